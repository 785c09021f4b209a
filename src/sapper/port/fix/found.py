"""What the scan found, by line: which rule a change belongs to, and where nothing is to be changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sapper.port.finding import Finding
from sapper.port.fix.change import Change
from sapper.port.rule import rules

_HARD = ("kernel", "build", "capability")


class Found:
    """Findings of a scan.

    Args:
        findings: Of a whole tree.
        select: Beginnings of codes; all where empty.
    """

    def __init__(self, findings: Iterable[Finding], select: tuple[str, ...] = ()) -> None:
        self._select = select
        self._by_line: dict[tuple[str, int], list[Finding]] = {}
        for finding in findings:
            self._by_line.setdefault((finding.place.path, finding.place.line), []).append(finding)

    def wanted(self, path: str, line: int, change: Change) -> bool:
        """Whether to make a change: not beside another vendor's counterpart, not where the author keeps it."""
        standings = {finding.standing for finding in self._by_line.get((path, line), ())}
        if "kept" in standings or ("vendor" in standings and not change.despite) or self._is_meant(path, line, change):
            return False
        return not self._select or (self.code(path, line, change) or "").startswith(self._select)

    def _is_meant(self, path: str, line: int, change: Change) -> bool:
        """Whether a change is of what is asked for CUDA's sake: a guard of its own code, an answer that is only told."""
        rule = rules().get(self.code(path, line, change) or "")
        return rule is not None and rule.of_use and rule.fix == "none"

    def hard(self, path: str) -> frozenset[int]:
        """Lines of a file that need CUDA whatever is rewritten: kernels, builds, capabilities."""
        return frozenset(
            line for (where, line), found in self._by_line.items() if where == path and any(_is_hard(finding) for finding in found)
        )

    def rewritable(self, path: str) -> frozenset[int]:
        """Lines of a file that name CUDA as a device, which a safe rewrite takes away; one that is left fails on another chip.

        Flags and the like are none of them: they do no harm there, and are rewritten when the test around them is.
        """
        return frozenset(line for (where, line), found in self._by_line.items() if where == path and any(map(_places, found)))

    def open(self, done: Iterable[tuple[str, int]]) -> Iterator[Finding]:
        """Couplings of Python files that tie, whose rule knows a rewrite or shows one, and that no line ``done`` settles.

        What only carries a value from a rewritten line is settled with it.
        """
        lines = set(done)
        causes = {f"{path}:{line}" for path, line in lines}
        for place, found in sorted(self._by_line.items()):
            if place in lines or not place[0].endswith((".py", ".ipynb")):
                continue
            for finding in found:
                rule = rules().get(finding.code)
                asked = not self._select or finding.code.startswith(self._select)
                if finding.standing == "ties" and rule is not None and rule.fix != "none" and asked and finding.because not in causes:
                    yield finding

    def code(self, path: str, line: int, change: Change) -> str | None:
        """The rule that found what a change rewrites: the one with its symbol, else any on its line."""
        here = self._by_line.get((path, line), [])
        exact = [finding.code for finding in here if _alike(finding.symbol, change.symbol)]
        return next(iter(exact), here[0].code if len(here) == 1 else None)


def _is_hard(finding: Finding) -> bool:
    rule = rules().get(finding.code)
    return rule is not None and rule.klass in _HARD and rule.fix != "safe" and finding.because is None


def _places(finding: Finding) -> bool:
    rule = rules().get(finding.code)
    if rule is None or rule.klass != "device" or rule.fix != "safe" or rule.of_use:
        return False
    return finding.standing in ("ties", "guarded") and finding.because is None


def _alike(found: str, rewritten: str) -> bool:
    return found.strip("\"'.()") == rewritten.strip("\"'.()")
