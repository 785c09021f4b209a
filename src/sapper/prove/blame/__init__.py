"""The court: whose fault a difference is, decided by counter-runs and a truth table, with the evidence in words."""

from __future__ import annotations

from sapper.prove.blame.court import rule_on
from sapper.prove.blame.result import Evidence, Ruling

__all__ = ["Evidence", "Ruling", "rule_on"]
