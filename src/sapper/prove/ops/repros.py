"""Scripts for findings: one for each op, dtype, phase and outcome, the worst outcomes first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
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
CASES_TRIED = 3
"""Cases of a finding, at most, for which a script is tried."""
WITHOUT = frozenset({"memory"})
"""Outcomes that no script shows, lest it take the memory of the machine."""


def write_repros(journal: Journal, runner: Runner, *, folder: Path, most: int) -> None:
    """Write scripts, and their paths into the journal, or why there is none; what was tried before is not tried again.

    Where a finding's first case gives no script, two more cases of it are tried.

    Raises:
        SapperError: No worker comes up, or the journal cannot be written.
    """
    findings = grouped(journal.done)[:most]
    for turn in range(CASES_TRIED):
        due = [cases[turn] for cases in findings if turn < len(cases) and not any(_shown(journal.done[one]) for one in cases)]
        by_case = {case: journal.done[case] for case in due if "repro" not in journal.done[case]}
        for answer in runner.run(_jobs(by_case, folder)):
            line = dict(by_case[answer.id])
            case = line.pop("case")
            made = answer.value if answer.status == "done" else {"reason": "prove.repro.ended"}
            reproduced = bool(made.get("reproduced"))
            line["repro"] = f"{FOLDER}/{Path(made['path']).name}" if reproduced else None
            line["no_repro"] = None if reproduced else made.get("reason")
            journal.add(case, line)


def grouped(done: Mapping[str, dict[str, Any]]) -> list[list[str]]:
    """Findings, worst first, each the cases of one op, dtype, phase and outcome; without those that no script shows."""
    groups: dict[tuple[Any, ...], list[str]] = {}
    for case, line in done.items():
        if line.get("outcome") in RED - WITHOUT and not line.get("suspect"):
            key = SEVERITY.index(line["outcome"]), line["op"], line.get("dtype"), line.get("phase")
            groups.setdefault(key, []).append(case)
    return [groups[key] for key in sorted(groups, key=lambda key: (key[0], str(key)))]


def _shown(line: dict[str, Any]) -> bool:
    return line.get("repro") is not None


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
