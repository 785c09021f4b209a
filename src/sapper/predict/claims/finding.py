"""What the claim checker says: findings against rows, and gaps where a rule could not look."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from sapper import messages

Kind = Literal["impossible", "contradiction", "copied", "outlier", "doubtful"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""impossible: above what the hardware can do. contradiction: the row's own figures exclude each other. copied: one value
stands for two chips. outlier: another unit or setup than the table's other rows. doubtful: cannot be told apart from a copy."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One reason why a row cannot be taken at its word."""

    row_id: str
    code: str
    kind: Kind
    values: dict[str, Any] = msgspec.field(default_factory=dict)
    """Figures of the reason, as printed."""

    @property
    def text(self) -> str:
        """The reason in the language in force."""
        return messages.text(self.code, **self.values)


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that could not look at a row, and the fact that it lacked."""

    row_id: str
    rule: str
    """Code of the finding that the rule would have made."""
    lacks: str
    """The field that nobody states, such as ``chip.memory.bandwidth`` or ``model.layers``."""


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """The claim checker's answer for a set of rows."""

    rows: int
    findings: tuple[Finding, ...]
    """In the order of the rows."""
    gaps: tuple[Gap, ...]

    @property
    def flagged(self) -> frozenset[str]:
        """Ids of the rows with a finding."""
        return frozenset(finding.row_id for finding in self.findings)

    @property
    def beyond(self) -> frozenset[str]:
        """Ids of the rows that lie beyond the hardware."""
        return frozenset(finding.row_id for finding in self.findings if finding.kind == "impossible")
