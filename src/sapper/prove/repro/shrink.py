"""The shrinker: the simplest suspect whose script still shows the same kind of defect, by delta debugging.

Deterministic: edits come in a fixed order, and the first one that still shows the defect and is simpler is kept. Zeller and
Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002, is the idea; the edits are those of tensors and graphs.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from sapper.prove.repro import edits
from sapper.prove.repro.cuts import cut
from sapper.prove.repro.oracle import Oracle, Shown
from sapper.prove.repro.script import Plan, script_of
from sapper.prove.suspect import Suspect

LEAST_RATIO = 100.0
"""Error over allowed error that a shrunk defect keeps, if it had it: a kernel that is plainly wrong must not shrink into one that is
a little imprecise."""
PASSES: tuple[Callable[[Suspect], Iterator[Suspect]], ...] = (
    edits.together, edits.lists, edits.bypasses, edits.layouts, edits.dtypes, edits.values, edits.shapes, edits.attributes,
)  # fmt: skip


@dataclass
class Budget:
    """What a shrink may spend."""

    tries: int
    end_s: float
    """By the monotonic clock."""
    spent: int = 0

    def left(self) -> bool:
        """Whether another try may be made."""
        return self.spent < self.tries and time.monotonic() < self.end_s


@dataclass(frozen=True, kw_only=True)
class Found:
    """A suspect whose script was seen to show the defect."""

    plan: Plan
    source: str
    shown: Shown


@dataclass
class Shrinker:
    """Walks from one found script to simpler ones."""

    oracle: Oracle
    budget: Budget
    best: Found
    history: list[Found] = field(default_factory=list)
    """All that were kept, simplest last."""
    _tried: set[str] = field(default_factory=set)

    def run(self) -> list[Found]:
        """What was kept, simplest last; its last entry need not be minimal where the budget ended."""
        self.history.append(self.best)
        self._least = min(self.best.shown.ratio or 0.0, LEAST_RATIO)
        self._kind = self.best.shown.kind
        self._drop_before()
        while self.budget.left():
            before = self.best.source
            cut(self.best.plan.suspect, self._keep_if_shown)
            for one in PASSES:
                self._apply(one)
            if self.best.source == before:
                break
        self._state_bound()
        return self.history

    def _state_bound(self) -> None:
        """The bound as a number, where the error is so far beyond it that nobody asks how it came about."""
        if (self.best.shown.ratio or 0.0) >= LEAST_RATIO:
            self._keep_if_shown(self.best.plan.suspect, allowed=self.best.shown.allowed)

    def _apply(self, make: Callable[[Suspect], Iterator[Suspect]]) -> None:
        """One kind of edit until none of them helps any more."""
        changed = True
        while changed and self.budget.left():
            changed = False
            for candidate in make(self.best.plan.suspect):
                if not self.budget.left():
                    return
                if self._simpler(candidate) and self._keep_if_shown(candidate):
                    changed = True
                    break

    def _drop_before(self) -> None:
        """What ran before: all but the last, all but the first, if one of them is enough."""
        suspect = self.best.plan.suspect
        if len(suspect.before) > 1:
            for one in reversed(suspect.before):
                if self._keep_if_shown(dataclasses.replace(suspect, before=(one,))):
                    return

    def _simpler(self, candidate: Suspect) -> bool:
        if not candidate.is_whole():
            return False
        own = (*edits.complexity(candidate), len(script_of(dataclasses.replace(self.best.plan, suspect=candidate))))
        return own < (*edits.complexity(self.best.plan.suspect), len(self.best.source))

    def _keep_if_shown(self, candidate: Suspect, *, allowed: float | None = None) -> bool:
        plan = dataclasses.replace(self.best.plan, suspect=candidate, allowed=allowed)
        source = script_of(plan)
        if source in self._tried or (allowed is None and not self.budget.left()):
            return source == self.best.source
        self._tried.add(source)
        self.budget.spent += 1
        shown = self.oracle.shows(source, plan.check, candidate)
        if not shown.defect or shown.kind != self._kind or (shown.ratio is not None and shown.ratio < self._least):
            return False
        self.best = Found(plan=plan, source=source, shown=shown)
        self.history.append(self.best)
        return True


def one_output(suspect: Suspect, at: int) -> Suspect:
    """The suspect with one of its outputs, or the gradient of one input, by the place among :meth:`Suspect.all_labels`."""
    count = len(suspect.outputs)
    if at < count:
        plain = dataclasses.replace(suspect, outputs=(suspect.outputs[at],), labels=(suspect.labels[at],), wrt=(), cotangents=())
        inputs = {name: one for name, one in plain.inputs.items() if name not in suspect.cotangents}
        return dataclasses.replace(plain, inputs=inputs).pruned()
    kept = [place for place, name in enumerate(suspect.cotangents) if name is not None]
    return dataclasses.replace(
        suspect, wrt=(suspect.wrt[at - count],), outputs=tuple(suspect.outputs[place] for place in kept),
        labels=tuple(suspect.labels[place] for place in kept), cotangents=tuple(suspect.cotangents[place] for place in kept),
    ).pruned()  # fmt: skip


def is_floating(suspect: Suspect, at: int) -> bool:
    """Whether an output holds floating or complex numbers, by the CPU's own."""
    if at >= len(suspect.outputs):
        return True
    dtype: torch.dtype = suspect.forward(suspect.inputs)[at].dtype
    return bool(dtype.is_floating_point or dtype.is_complex)
