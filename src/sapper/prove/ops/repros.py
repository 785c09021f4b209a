"""Scripts for findings: one for each op, dtype, phase and outcome, the worst outcomes first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from sapper.prove.isolate import Job, Runner
from sapper.prove.journal import Journal
from sapper.prove.ops.entry import Entry
from sapper.prove.verdict import RED, SEVERITY, CaseVerdict

FOLDER = "repros"
BUDGET_S = 60.0
"""Wall time to shrink one finding."""
LIMIT_S = 900.0
"""With its verification in a fresh process, and a stack that compiles."""
WITHOUT = frozenset({"stateful", "fallback", "memory"})
"""Outcomes that one computation alone does not show."""


def write_repros(journal: Journal, runner: Runner, *, folder: Path, most: int) -> None:
    """Write scripts, and their paths into the journal; what was tried before is not tried again.

    Raises:
        SapperError: No worker comes up, or the journal cannot be written.
    """
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in journal.done.values():
        if line.get("outcome") in RED - WITHOUT and not line.get("suspect"):
            groups.setdefault((SEVERITY.index(line["outcome"]), line["op"], line.get("dtype"), line.get("phase")), line)
    chosen = [groups[key] for key in sorted(groups, key=lambda key: (key[0], str(key)))][:most]
    by_case = {line["case"]: line for line in chosen if "repro" not in line}
    for answer in runner.run(_jobs(by_case, folder)):
        line = dict(by_case[answer.id])
        case = line.pop("case")
        made = answer.value if answer.status == "done" else {}
        path = made.get("path") if made.get("reproduced") else None
        line["repro"] = f"{FOLDER}/{Path(path).name}" if path else None
        journal.add(case, line)


def _jobs(by_case: dict[str, dict[str, Any]], folder: Path) -> Iterator[Job]:
    for case, line in by_case.items():
        source, op, dtype, phase = case.rpartition("/")[0].split("/")
        entry = Entry(op=op, dtype=dtype, phase=phase, source=source)  # type: ignore[arg-type]
        verdict = msgspec.convert(line, CaseVerdict)
        payload = {
            "entry": msgspec.to_builtins(entry), "case": case, "outcome": verdict.outcome, "folder": str((folder / FOLDER).resolve()),
            "name": re.sub(r"\W+", "_", f"{op.partition('#')[0]}_{dtype}_{phase}_{verdict.outcome}"), "budget_s": BUDGET_S,
            "labels": [one.label for one in verdict.scores if one.outcome in RED],
        }  # fmt: skip
        yield Job(id=case, function="sapper.prove.ops.work:repro", payload=payload, limit_s=LIMIT_S)
