"""What a name may carry of what CUDA answered, as one file tells it to others."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["flag", "count", "index", "capability", "memory", "name", "device", "stream", "monitor", "gate", "default"]
"""``monitor``: an object of a class of the project that asks CUDA. ``gate``: a decorator or helper that lets something
run only where there is CUDA. ``default``: a function with a parameter that is CUDA unless the caller says otherwise."""


class Carrier(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A function, class or variable that other files may import, and what it carries."""

    name: str
    """Qualified: ``pkg.utils.gpu_count``."""
    kind: Kind
    origin: str
    """``path:line``."""
    called: bool = True
    """Whether one has to call it to get the value."""
    parameter: str | None = None
    """Of kind ``default``: the parameter that is CUDA unless the caller says otherwise..."""
    position: int | None = None
    """...and where it stands among the positional ones (``self`` not counted); None where it is keyword-only."""
