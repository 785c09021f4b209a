"""Red findings that shrink to a script of at most 30 lines which shows them in a fresh environment: counted on campaigns.

    sapper prove ops --on onnxruntime --repros 1000 --out runs/onnxruntime
    python benchmarks/prove/mixed_faults.py --seed 1 --faults 40 tiger.toml  # prints the --ops for the next line
    sapper prove ops --on papertiger:tiger.toml --ops ... --repros 1000 --out runs/papertiger
    python benchmarks/prove/shrink_share.py runs/* --out benchmarks/prove/results/shrink_share.jsonl

A finding is what `sapper prove ops` takes for one: an op, dtype, phase and outcome. Each script is run again here, in an empty folder, by
an interpreter that sees installed packages alone (``-I``; ``--python`` names one of another environment); where the stack is in part
Sapper's own (papertiger, the lowering to JAX) Sapper is put on its path. Findings for which the product writes no script count as missed;
those that a campaign had not come to when it was stopped are left out, and their number is printed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from sapper.prove.ops.repros import WITHOUT
from sapper.prove.ops.result import NAME, Ops, read
from sapper.prove.verdict import SEVERITY, CaseVerdict

LINES = 30
LIMIT_S = 300.0
LONG_LINE = 2000
"""Characters above which a line is data that nobody reads; counted apart."""
Row = dict[str, Any]


def findings(found: Ops) -> list[list[CaseVerdict]]:
    """All cases of each finding."""
    groups: dict[tuple[Any, ...], list[CaseVerdict]] = defaultdict(list)
    for one in found.red():
        groups[SEVERITY.index(one.outcome), one.op, one.dtype or "", one.phase].append(one)
    return [groups[key] for key in sorted(groups)]


def reproduces(script: Path, *, outcome: str, python: str) -> bool:
    """Whether a script shows its defect in a fresh process and an empty folder."""
    source = script.read_text("utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    with_sapper = "from sapper" in source or "import sapper" in source
    if with_sapper:
        environment["PYTHONPATH"] = str(Path(__file__).parents[2] / "src")
    with tempfile.TemporaryDirectory() as folder:
        command = [python, *([] if with_sapper else ["-I"]), str(script.resolve())]
        try:
            ended = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=False, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return outcome == "hang"
    if ended.returncode < 0:
        return outcome in ("crash", "stateful")
    return ended.returncode == 1 and ("DEFECT" in ended.stdout or (outcome == "hang" and "Timeout" in ended.stderr))


def counted(run: Path, *, python: str, jobs: int) -> list[Row]:
    """A row for each finding of a campaign."""
    found = read(run / NAME)
    every = findings(found)
    tried = [cases for cases in every if any(one.repro or one.no_repro for one in cases) or cases[0].outcome in WITHOUT]
    print(f"{run.name}: {len(every)} findings, {len(every) - len(tried)} of them not tried")
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda cases: _row(run, found, cases, python=python), tried))


def _row(run: Path, found: Ops, cases: list[CaseVerdict], *, python: str) -> Row:
    first = cases[0]
    script = next((run / one.repro for one in cases if one.repro), None)
    row: Row = {
        "run": run.name, "backend": found.header.asked.backend, "versions": found.header.versions, "op": first.op, "dtype": first.dtype,
        "phase": first.phase, "outcome": first.outcome, "cases": len(cases),
    }  # fmt: skip
    if script is None:
        return {**row, "why": next((one.no_repro for one in cases if one.no_repro), None), "good": False}
    lines = script.read_text("utf-8").splitlines()
    again = reproduces(script, outcome=first.outcome, python=python)
    size = {"lines": len(lines), "long_lines": sum(len(one) > LONG_LINE for one in lines), "source": "\n".join(lines)}
    return {**row, **size, "again": again, "good": again and len(lines) <= LINES}


def report(rows: list[Row]) -> None:
    """A line for each stack, and one for each miss."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["backend"].partition(":")[0]].append(row)
    for name, group in [*groups.items(), ("all", rows)]:
        scripts = [row for row in group if "lines" in row]
        good = sum(row["good"] for row in group)
        print(f"{name}: {len(group)} findings, {len(scripts)} scripts, {sum(row['again'] for row in scripts)} show again, {good} good")
    for row in rows:
        if not row["good"]:
            print("  miss:", *(row.get(key) for key in ("backend", "op", "dtype", "phase", "outcome", "lines", "again", "why")))


def main() -> None:
    """Count, print, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of `sapper prove ops`")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the environment in which scripts run")
    parser.add_argument("--jobs", type=int, default=1, help="scripts that run at the same time")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = [row for run in given.runs for row in counted(run, python=given.python, jobs=given.jobs)]
    report(rows)
    if given.out:
        text = "".join(json.dumps(row) + "\n" for row in rows)
        given.out.write_bytes(gzip.compress(text.encode(), mtime=0) if given.out.suffix == ".gz" else text.encode())


if __name__ == "__main__":
    main()
