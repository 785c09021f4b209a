"""Sapper on exactly the rows of a list of ids, by ``sapper validate``: each row answered by a prior that saw no row of its chip.

    python benchmarks/peers/sapper_side.py --rows FILE --ids IDS          # ids one a line; prints the figures as JSON
    python benchmarks/peers/sapper_side.py --set vtrain-multi             # a set that the peers are asked
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from row_sets import ROW_SETS, Row, read
from scoring import by_chip, summary

LEAVE_OUT = ("chip", "vendor", "source", "none")
QUANTITY = {
    "tpot": "tpot_s",
    "ttft": "ttft_s",
    "e2e_latency": "e2e_latency_s",
    "prefill_tokens_per_s_per_chip": "tokens_per_s_per_chip",
    "decode_tokens_per_s_per_chip": "tokens_per_s_per_chip",
}
"""What the peers call a metric of validation's report; every other metric is a step's time in other words."""


@dataclass(frozen=True)
class Said:
    """What Sapper said of a set of rows."""

    errors: Mapping[str, Mapping[str, float]]
    """predicted / measured - 1 in the row's own metric, by quantity and row id."""
    codes: Mapping[str, str]
    """Code of the reason by id, of the rows (or of one question of a row) that were not answered."""
    version: str

    def without(self, rows: Sequence[Row]) -> Said:
        """The same but of ``rows``."""
        gone = {row["id"] for row in rows}
        errors = {quantity: {key: one for key, one in found.items() if key not in gone} for quantity, found in self.errors.items()}
        return replace(self, errors=errors, codes={key: code for key, code in self.codes.items() if key not in gone})

    def with_(self, other: Said) -> Said:
        """The same and what ``other`` says of other rows."""
        quantities = dict.fromkeys([*self.errors, *other.errors])
        errors = {quantity: {**self.errors.get(quantity, {}), **other.errors.get(quantity, {})} for quantity in quantities}
        return Said(errors=errors, codes={**self.codes, **other.codes}, version=other.version)


def sapper_on(rows: Sequence[Row], *, leave_out: str = "chip") -> Said:
    """Ask ``sapper validate`` these rows and no others."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        line = [sys.executable, "-m", "sapper", "validate", path, "--leave-out", leave_out, "--confidence", "all", "--format", "json"]
        done = subprocess.run(line, capture_output=True, text=True, check=False, env=os.environ | {"SAPPER_LANG": "en"})
    if done.returncode:
        raise SystemExit(done.stderr)
    report = json.loads(done.stdout)
    errors: dict[str, dict[str, float]] = {}
    codes = {refused["id"]: refused["code"] for refused in report["refused"]}
    for row in report["rows"]:
        if row["error"] is None:
            codes[row["id"]] = row["code"]
        else:
            errors.setdefault(QUANTITY.get(row["metric"], "step_time_s"), {})[row["id"]] = row["error"]
    return Said(errors=errors, codes=codes, version=report["version"])


def figures(rows: Sequence[Row], quantities: Sequence[str], said: Said) -> list[dict[str, object]]:
    """The figures of each quantity, as the results hold them; of ``said``, only what it says of ``rows``."""
    found = []
    for quantity in quantities:
        errors = {row["id"]: error for row in rows if (error := said.errors.get(quantity, {}).get(row["id"])) is not None}
        missing = Counter(said.codes.get(row["id"], "not asked") for row in rows if row["id"] not in errors)
        found.append(
            {
                "quantity": quantity, **summary(len(rows), errors.values()), "not_answered": dict(missing.most_common()),
                "by_chip": by_chip(rows, errors),
            }
        )
    return found


def main() -> int:
    """Print the figures of a set, or of the rows of a list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--set", choices=sorted(ROW_SETS))
    which.add_argument("--ids", type=Path, help="ids of rows of --rows, one a line")
    parser.add_argument("--rows", type=Path, help="a file of measured rows")
    parser.add_argument("--leave-out", choices=LEAVE_OUT, default="chip")
    given = parser.parse_args()
    if given.set:
        rows, quantities = ROW_SETS[given.set].rows(), ROW_SETS[given.set].quantities
    else:
        if given.rows is None:
            parser.error("--ids needs --rows")
        wanted = set(given.ids.read_text("utf-8").split())
        rows = [row for row in read(given.rows) if row["id"] in wanted]
        quantities = tuple(sorted({QUANTITY.get(row["metric"], "step_time_s") for row in rows}))
        if missing := wanted - {row["id"] for row in rows}:
            print(f"{len(missing)} ids are not in {given.rows}, such as {min(missing)}", file=sys.stderr)
            return 2
    print(json.dumps(figures(rows, quantities, sapper_on(rows, leave_out=given.leave_out)), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
