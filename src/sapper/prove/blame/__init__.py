"""The court: whose fault a difference is, decided by counter-runs and a truth table, with the evidence in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sapper.prove.blame.result import Evidence, Ruling

if TYPE_CHECKING:
    from sapper.prove.blame.court import rule_on

__all__ = ["Evidence", "Ruling", "rule_on"]


def __getattr__(name: str) -> Any:
    if name == "rule_on":  # on demand: a ruling can be read without PyTorch
        from sapper.prove.blame.court import rule_on

        return rule_on
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
