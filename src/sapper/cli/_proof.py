"""Flags and endings that proofs share."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sapper.cli.output import talk

if TYPE_CHECKING:
    from sapper.prove.verdict import Outcome

F = TypeVar("F", bound=Callable[..., Any])


def backend_option(function: F) -> F:
    """Adds ``--on BACKEND``, given as ``on``."""
    return click.option("--on", required=True, metavar="BACKEND", help="prove.option.on")(function)


def out_option(function: F) -> F:
    """Adds ``--out DIR``."""
    return click.option("--out", default="proof", show_default=True, metavar="DIR", help="prove.option.out")(function)


def json_option(function: F) -> F:
    """Adds ``--json``, given as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="prove.option.json")(function)


def need_torch() -> None:
    """Refuse where PyTorch is missing.

    Raises:
        BadValue: It is not installed.
    """
    from sapper.programs.needs import need

    need("torch", where=click.get_current_context().command_path)


@contextlib.contextmanager
def running(*, kept: str | None = None) -> Iterator[None]:
    """While a proof runs: what the program prints is no part of the answer, and Ctrl-C says what is left.

    Args:
        kept: The folder from which the same command goes on; None where it starts anew.
    """
    stopped = told_when_stopped("prove.stopped.anew") if kept is None else told_when_stopped("prove.stopped.kept", path=kept)
    with stopped, contextlib.redirect_stdout(sys.stderr):
        yield


@contextlib.contextmanager
def told_when_stopped(code: str, **values: object) -> Iterator[None]:
    """Ctrl-C says the message ``code``, and stays Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        talk(code, **values)
        raise


@contextlib.contextmanager
def faults_told(on: str, out: str, command: str, *, anew: bool) -> Iterator[None]:
    """On an emulated chip, say at the end which of its faults never fired, as a run says nothing of those.

    Args:
        on: The backend.
        out: The run's folder.
        command: Whose run it is: each has its own marks in the folder.
        anew: Whether the run goes on from nothing that is in the folder.
    """
    name, _, detail = on.partition(":")
    if name != "papertiger":
        yield
        return
    from sapper.backends.papertiger import firings
    from sapper.backends.papertiger.personality import DEFAULT, load

    faults = load(detail or DEFAULT).faults
    folder = Path(out) / "firings" / command
    unknown = not anew and not folder.exists() and any(Path(out).glob(f"{command}.json*"))
    with firings.kept_in(folder, anew=anew):
        yield
    if unknown and faults:
        talk("papertiger.silent.unknown")
        return
    for at, fault, met in firings.silent(faults, folder):
        op = fault.op if isinstance(fault.op, str) else ", ".join(fault.op)
        talk("papertiger.silent.unchanged" if met else "papertiger.silent.unmet", at=at, kind=fault.kind, op=op)


def exit_code(outcomes: Sequence[Outcome]) -> int:
    """0 where nothing is red, 1 with findings, 2 where nothing at all was proved."""
    from sapper.prove.verdict import GREEN, RED

    if any(one in RED for one in outcomes):
        return 1
    return 0 if any(one in GREEN for one in outcomes) else 2
