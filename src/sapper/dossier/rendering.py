"""Templates, style sheet and filters that all pages share."""

from __future__ import annotations

import functools
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


@functools.cache
def environment() -> Environment:
    """The templates of this package; what is printed is escaped, and what is not defined is an error."""
    from jinja2 import DictLoader, Environment, StrictUndefined

    folder = resources.files(__package__).joinpath("templates")
    sources = {entry.name: entry.read_text("utf-8") for entry in folder.iterdir() if entry.name.endswith(".j2")}
    made = Environment(loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["marked"] = _marked
    return made


@functools.cache
def resource(name: str) -> str:
    """A text file beside the templates."""
    return resources.files(__package__).joinpath("templates", name).read_text("utf-8")


def _marked(text: str) -> Markup:
    """Text with what stands in backticks as code."""
    from markupsafe import Markup, escape

    pieces = str(text).split("`")
    if len(pieces) % 2 == 0:
        return Markup(escape(text))
    return Markup("").join(Markup("<code>{}</code>").format(piece) if at % 2 else escape(piece) for at, piece in enumerate(pieces))
