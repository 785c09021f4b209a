"""claims: whether a published figure can be true at all, and why not.

A claim is a row of a measurement file. Each rule asks one question of physics or of the source's own figures, and its
answer does not depend on who measured, on the row's id or on the confidence that somebody gave it. A rule that lacks
a fact (a chip without a published bandwidth, a model whose dims nobody names) says what it lacks and does not guess.
"""

from __future__ import annotations

from sapper.predict.claims.check import check
from sapper.predict.claims.finding import KINDS, Checked, Finding, Gap

__all__ = ["KINDS", "Checked", "Finding", "Gap", "check"]
