"""The ledger of samples: which sequences each applied step has seen, so that none is skipped or seen twice unknowingly.

Sequences are numbered over the whole training: with a global batch of B, step t (counted from 0) has those from ``t B`` on. What a
fault undoes is written down as well: a step that was computed again left no trace in the weights.
"""

from __future__ import annotations

import msgspec

from sapper.errors import InvariantError


class Run(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Consecutive steps under one plan."""

    first: int
    """First step."""
    last: int
    """One past the last step."""
    sample: int
    """First sequence of the first step."""
    batch: int
    """Sequences of a step."""
    plan: str
    """Digest of the plan."""
    epoch: int = 0
    """Number of the membership under which it was computed: it grows with each change."""


class Undone(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Steps that were computed, in part or whole, and are not in the weights: their sequences came again."""

    first: int
    last: int
    sample: int
    count: int
    """Sequences."""
    reason: str


class Ledger(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All steps that are in the weights, without gap or overlap, and what was undone on the way."""

    runs: tuple[Run, ...] = ()
    undone: tuple[Undone, ...] = ()

    @property
    def step(self) -> int:
        """Steps applied."""
        return self.runs[-1].last if self.runs else 0

    @property
    def sample(self) -> int:
        """The sequence that comes next: the position in the data."""
        return self.runs[-1].sample + (self.runs[-1].last - self.runs[-1].first) * self.runs[-1].batch if self.runs else 0

    def applied(self, step: int, *, batch: int, plan: str, epoch: int = 0) -> None:
        """Enter ``step``.

        Raises:
            InvariantError: It does not follow the one before.
        """
        if step != self.step:
            raise InvariantError("SP-MIX-183", step=step, due=self.step)
        end = self.runs[-1] if self.runs else None
        if end is not None and (end.batch, end.plan, end.epoch) == (batch, plan, epoch):
            self.runs = (*self.runs[:-1], msgspec.structs.replace(end, last=step + 1))
        else:
            self.runs = (*self.runs, Run(first=step, last=step + 1, sample=self.sample, batch=batch, plan=plan, epoch=epoch))

    def undo(self, step: int, *, begun: int, batch: int, reason: str) -> None:
        """Take back all from ``step`` on; ``begun`` is one past the last step that anyone had begun."""
        kept = [msgspec.structs.replace(one, last=min(one.last, step)) for one in self.runs if one.first < step]
        self.runs = tuple(kept)
        if begun > step:
            gone = Undone(first=step, last=begun, sample=self.sample, count=(begun - step) * batch, reason=reason)
            self.undone = (*self.undone, gone)

    def copy(self) -> Ledger:
        """One that changes apart from this."""
        return Ledger(runs=self.runs, undone=self.undone)
