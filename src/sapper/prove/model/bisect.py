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
            high = _first(middle, high, lambda end, low=low: fails(low, end))  # type: ignore[misc]
            low = _last(low, middle, lambda start, high=high: fails(start, high))  # type: ignore[misc]
            break
    return low, high


def _first(passes: int, fails: int, failing: Callable[[int], bool]) -> int:
    """The smallest number that fails, between one that passes and one that fails."""
    while fails - passes > 1:
        middle = (passes + fails) // 2
        if failing(middle):
            fails = middle
        else:
            passes = middle
    return fails


def _last(fails: int, passes: int, failing: Callable[[int], bool]) -> int:
    """The largest number that fails, between one that fails and one that passes."""
    while passes - fails > 1:
        middle = (passes + fails) // 2
        if failing(middle):
            fails = middle
        else:
            passes = middle
    return fails
