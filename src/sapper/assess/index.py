"""The evidence index: every fact under every figure, numbered once."""

from __future__ import annotations

import msgspec

from sapper.assess.assessment import Source
from sapper.evidence import Fact


class Index:
    """Numbers facts in the order in which figures first cite them.

    The same fact of the same subject keeps its number and the name that it was first cited by.
    """

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._sources: list[Source] = []

    def cite(self, subject: str, key: str, fact: Fact | None) -> tuple[int, ...]:
        """The number of ``fact`` as a one-tuple; empty where there is no fact."""
        if fact is None:
            return ()
        identity = msgspec.json.encode((subject, fact))
        number = self._numbers.get(identity)
        if number is None:
            number = len(self._sources) + 1
            self._numbers[identity] = number
            self._sources.append(Source(number=number, subject=subject, key=key, fact=fact))
        return (number,)

    @property
    def sources(self) -> tuple[Source, ...]:
        """All facts, by number."""
        return tuple(self._sources)


def ranges(numbers: tuple[int, ...]) -> list[tuple[int, int]]:
    """Sorted numbers as runs: ``(1, 2, 3, 7)`` is ``[(1, 3), (7, 7)]``."""
    runs: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
