"""The posteriors in force: those that ship, or, once :func:`use` was called, those that the user's own records correct.

One command answers many questions, all from the same evidence; as with the catalogue's search path, the evidence is a
property of the context and not an argument of every function on the way.
"""

from __future__ import annotations

import contextvars
import functools
from typing import TYPE_CHECKING

from sapper.predict.engine import shipped_fit
from sapper.predict.fit import Fitted

if TYPE_CHECKING:
    from sapper.predict.own import Own

_own: contextvars.ContextVar[Own | None] = contextvars.ContextVar("sapper_own_evidence", default=None)


def use(own: Own | None) -> None:
    """Let ``own`` correct the posteriors of this context; None: those that ship."""
    _own.set(own)


def train_fit() -> Fitted:
    """The posterior over the constants of a training step."""
    own = _own.get()
    return shipped_fit() if own is None else _train(own)


def serve_fit() -> Fitted:
    """The posterior over the constants of an engine's iteration."""
    from sapper.predict.serve.posterior import shipped_serve_fit

    own = _own.get()
    return shipped_serve_fit() if own is None else _serve(own)


@functools.lru_cache(maxsize=8)
def _train(own: Own) -> Fitted:
    from sapper.chips import catalogue

    return own.fitted("training", catalogue())


@functools.lru_cache(maxsize=8)
def _serve(own: Own) -> Fitted:
    from sapper.chips import catalogue

    return own.fitted("inference", catalogue())
