"""``--store``: the user's own measurements correct every prediction of the command."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from sapper.cli.output import talk

F = TypeVar("F", bound=Callable[..., Any])


def own_option(function: F) -> F:
    """Adds ``--store URL``: what the store holds bears on the whole command; ``none`` leaves it out."""
    return click.option("--store", metavar="URL|none", expose_value=False, callback=_use, is_eager=True, help="calibrate.option.store")(
        function
    )


def _use(context: click.Context, _option: click.Parameter, store: str | None) -> str | None:
    if store != "none" and not context.resilient_parsing and _is_there(store):
        _correct(store)
    return store


def _is_there(store: str | None) -> bool:
    """Whether there is a store to ask; the database library is not imported to find that there is none."""
    from sapper.evidence.where import ENVIRONMENT, default_path

    return bool(store or os.environ.get(ENVIRONMENT)) or default_path().is_file()


def _correct(store: str | None) -> None:
    from sapper.chips import use_change
    from sapper.evidence import Store
    from sapper.predict import in_force
    from sapper.predict.own import Own

    with Store.open(store) as opened:
        own, place = Own(tuple(opened.records())), opened.place
    if own:
        use_change(own.chip)
        in_force.use(own)
        talk("calibrate.in_use", count=len(own.records), store=place)
