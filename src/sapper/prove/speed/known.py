"""Verdicts that other proofs have left in the run's folder: a call that one of them has judged is not judged again."""

from __future__ import annotations

from pathlib import Path

from sapper.errors import BadFile
from sapper.prove.results import read
from sapper.prove.speed.result import Judged
from sapper.prove.verdict import GREEN, RED, Outcome


def known_verdicts(folder: Path, backend: str) -> dict[str, tuple[Outcome, Judged]]:
    """Call id -> outcome and who found it, of proofs of this backend; what a model had wrong goes before what was right alone."""
    try:
        results = read(folder)
    except BadFile:  # nothing there yet
        return {}
    found: dict[str, tuple[Outcome, Judged]] = {}
    if results.ops is not None and results.ops.header.asked.backend == backend:
        for case in results.ops.verdicts:
            if "#" in case.op and case.outcome in RED | GREEN:
                found[case.op] = case.outcome, "ops"
    if results.model is not None and results.model.backend == backend:
        for one in sorted(results.model.ops, key=lambda one: one.outcome in RED):  # the last one stays
            if one.call is not None and one.outcome in RED | GREEN:
                found[one.call] = one.outcome, "model"
    return found
