"""What is asked of one op: an entry of the list that a campaign works off, and the names of its cases."""

from __future__ import annotations

from typing import Literal

import msgspec

Phase = Literal["forward", "backward", "step"]
Source = Literal["opinfo", "workload"]


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One op in one dtype and phase; its cases are found by whoever runs it."""

    op: str
    """Full name in PyTorch's op database (``nn.functional.gelu``, ``std.unbiased``), or ``aten::name.overload#form`` of a workload."""
    dtype: str
    """As on the command line: ``fp32``; ``mixed`` for a workload's op with several."""
    phase: Phase = "forward"
    source: Source = "opinfo"

    @property
    def id(self) -> str:
        """Stable from run to run; the ids of its cases are this, a slash, and what tells them apart."""
        return f"{self.source}/{self.op}/{self.dtype}/{self.phase}"

    def case(self, which: str | int) -> str:
        """Id of one case."""
        return f"{self.id}/{which}"


def entry_of(case: str) -> str:
    """Id of the entry that a case belongs to."""
    return case.rpartition("/")[0]
