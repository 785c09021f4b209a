"""How far a campaign is, and what it has found so far: a bar on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli._help import printable
from sapper.cli.output import console

if TYPE_CHECKING:
    from sapper.prove.ops.result import Ops
    from sapper.prove.verdict import CaseVerdict, Outcome

EVERY_S = 10.0
"""Between two plain lines."""
MOST_FINDINGS = 40
"""Told as they come; the summary has all."""


class Progress:
    """A context manager that the campaign tells what happens."""

    def __init__(self, entries: int) -> None:
        self._entries, self._done = entries, 0
        self._outcomes: dict[str, Outcome] = {}
        self._told: set[tuple[str, ...]] = set()
        self._last_s = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        if sys.stderr.isatty():
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            texts = TextColumn("{task.completed}/{task.total}"), TextColumn("{task.description}")
            self._bar = Bar(BarColumn(bar_width=24), *texts, TimeElapsedColumn(), console=console(stderr=True), transient=True)
            self._task = self._bar.add_task("", total=entries)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._entries:
            self._say(self._line())

    def begun(self, known: Ops) -> None:
        """What an earlier run has done already."""
        self._done = known.entries_done
        self._outcomes = {one.case: one.outcome for one in known.verdicts}
        if self._outcomes:
            self._say(messages.text("prove.ops.show.resumed", cases=len(self._outcomes), entries=self._done))

    def verdict(self, verdict: CaseVerdict, settled: bool) -> None:
        """A verdict; findings are told once for each op and outcome, when they are settled."""
        from sapper.prove import words
        from sapper.prove.verdict import RED

        if settled:
            self._outcomes[verdict.case] = verdict.outcome
        key = (verdict.op, str(verdict.dtype), verdict.phase, verdict.outcome)
        if settled and verdict.outcome in RED and key not in self._told and len(self._told) < MOST_FINDINGS:
            self._told.add(key)
            self._say(f"  {words.outcome(verdict.outcome)}: {verdict.op} {verdict.dtype} {verdict.phase}  {printable(why(verdict))[:160]}")
        self._show()

    def entry_done(self, entry: str) -> None:
        """An entry is finished."""
        self._done += 1
        self._show()

    def _line(self) -> str:
        from sapper.prove import words

        counts = Counter(self._outcomes.values())
        found = ", ".join(f"{words.outcome(name)} {count}" for name, count in counts.most_common()) or "-"
        done = {"done": self._done, "entries": self._entries, "cases": len(self._outcomes)}
        return messages.text("prove.ops.show.progress", **done, found=found)

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, description=self._line().partition(": ")[2])
        elif time.monotonic() - self._last_s > EVERY_S:
            self._last_s = time.monotonic()
            self._say(self._line())

    def _say(self, text: str) -> None:
        if self._bar is not None:
            from rich.text import Text

            self._bar.console.print(Text(text))
        else:
            click.echo(text, err=True)


def why(verdict: CaseVerdict) -> str:
    """What decided, in one line."""
    said = (verdict.said or "").strip().splitlines()
    reason = messages.text(verdict.reason, **verdict.values) if verdict.reason else ""
    return f"{reason}: {said[0]}" if reason and said else reason or (said[0] if said else "")
