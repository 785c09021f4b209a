"""The smallest window of a sequence that fails, by halves where a half fails alone and by both ends where none does."""

from __future__ import annotations

from collections.abc import Callable


def smallest(count: int, fails: Callable[[int, int], bool]) -> tuple[int, int] | None:
    """The window ``[low, high)`` that fails and fails no more without its first or its last element; None where the whole passes.

    Args:
        count: Elements.
        fails: Whether the window fails, on correct inputs. It is asked about 4 log2(count) times, mostly for small windows.
    """
    if not fails(0, count):
        return None
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        if fails(low, middle):
            high = middle
        elif fails(middle, high):
            low = middle
        else:  # what fails spans the middle: cut from the end, then from the beginning
            high = _edge(middle, high, lambda end, low=low: fails(low, end))  # type: ignore[misc]
            low = _edge(middle, low, lambda start, high=high: fails(start, high))  # type: ignore[misc]
            break
    return low, high


def _edge(passes: int, fails: int, failing: Callable[[int], bool]) -> int:
    """The number that fails and is nearest to one that passes, between one of each; either may be the larger."""
    while abs(fails - passes) > 1:
        middle = (passes + fails) // 2
        if failing(middle):
            fails = middle
        else:
            passes = middle
    return fails
