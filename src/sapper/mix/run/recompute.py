"""Recomputation: what a block keeps for its backward pass is made again when it is needed, with the same random numbers.

``full`` keeps a block's input alone, ``selective`` leaves out the attention core (arXiv:2205.05198, section 5), as predict counts it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from sapper.mix.run.randomness import Randomness
from sapper.predict.plan import Recompute

Modes = Callable[[], contextlib.AbstractContextManager[Any]]
"""What is in force around a forward pass."""


_HERE = threading.local()


@contextlib.contextmanager
def one_of_several() -> Iterator[None]:
    """This thread is one seat of several in a process: PyTorch's generator is theirs together, and setting it back would disturb others."""
    _HERE.several = True
    try:
        yield
    finally:
        _HERE.several = False


def prepared(
    forward: Callable[..., Any], *, layer: int, recompute: Recompute, randomness: Randomness | None, modes: Modes
) -> Callable[..., Any]:  # fmt: skip
    """The ``forward`` of a block that draws the random numbers of its layer and recomputes as it should."""

    def run(*args: Any, **kwargs: Any) -> Any:
        if randomness is not None:
            randomness.enter(layer)
        if recompute == "full":
            return _checkpointed(_Replay(forward, randomness, modes), args, kwargs)
        with _Core(randomness, modes) if recompute == "selective" else contextlib.nullcontext():
            return forward(*args, **kwargs)

    return run


def _checkpointed(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    # What a block draws beside dropout (noise, stochastic depth) comes from the process's own generator, and is the same once more.
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=not getattr(_HERE, "several", False), **kwargs)


class _Replay:
    """A function that computes the same when it is called again later, in the midst of another micro-batch."""

    def __init__(self, function: Callable[..., Any], randomness: Randomness | None, modes: Modes) -> None:
        self._function, self._randomness, self._modes = function, randomness, modes
        self._mark = None if randomness is None else randomness.mark
        self._again = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._again:
            self._again = True
            return self._function(*args, **kwargs)
        now = None if self._randomness is None else self._randomness.mark
        try:
            self._to(self._mark)
            with self._modes():
                return self._function(*args, **kwargs)
        finally:
            self._to(now)

    def _to(self, mark: Any) -> None:
        if self._randomness is not None:
            self._randomness.mark = mark


class _Core(TorchFunctionMode):
    """Recomputes attention cores."""

    def __init__(self, randomness: Randomness | None, modes: Modes) -> None:
        super().__init__()
        self._randomness, self._modes = randomness, modes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention:
            return _checkpointed(_Replay(func, self._randomness, self._modes), args, kwargs or {})
        return func(*args, **(kwargs or {}))
