"""Evidence: one measured or quoted value with its source, date, grade and conditions."""

from __future__ import annotations

from sapper.evidence.fact import GRADES, Fact, Grade, Interval, worst

__all__ = ["GRADES", "Fact", "Grade", "Interval", "worst"]
