"""The court: whose fault a difference is, decided by counter-runs and a truth table, with the evidence in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sapper.prove.blame.result import Evidence, Ruling

if TYPE_CHECKING:
    from sapper.prove.blame.court import court_pool, rule_on

__all__ = ["Evidence", "Ruling", "court_pool", "rule_on"]


def __getattr__(name: str) -> Any:
    if name in ("court_pool", "rule_on"):  # on demand: a ruling can be read without PyTorch
        from sapper.prove.blame import court

        return getattr(court, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
