"""Graphs of ``torch.cuda`` on the emulated chip: what is captured runs at once, and a replay leaves its results as they are.

So a program that captures its step goes on; what it computes in replays is not what it would compute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sapper.port.dryrun.inside import journal
from sapper.port.dryrun.session import Note

_POOL = (0, 0)


def _remark() -> None:
    journal.JOURNAL.remark(Note("graph"))


class Graph:
    """What stands for ``torch.cuda.CUDAGraph``."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def capture_begin(self, *_: Any, **__: Any) -> None:
        """Nothing is recorded, which the answer says."""
        _remark()

    def capture_end(self, *_: Any, **__: Any) -> None:
        """Nothing was."""

    replay = reset = instantiate = enable_debug_mode = debug_dump = capture_end

    def pool(self) -> tuple[int, int]:
        """The one pool."""
        return _POOL


@contextmanager
def capture(*_: Any, **__: Any) -> Iterator[None]:
    """What stands for ``torch.cuda.graph``."""
    _remark()
    yield


def _graphed(callables: Any, *_: Any, **__: Any) -> Any:
    """The callables as they are."""
    _remark()
    return callables


EQUIVALENTS: dict[str, Callable[..., Any]] = {
    "CUDAGraph": Graph,
    "graphs.CUDAGraph": Graph,
    "graph": capture,
    "graphs.graph": capture,
    "graph_pool_handle": lambda: _POOL,
    "make_graphed_callables": _graphed,
    "is_current_stream_capturing": lambda: False,
}
"""By name without ``torch.cuda.``."""
