"""Write docs/accuracy.md: the errors of predict over the published training rows that ship, with three leave-out splits.

    python scripts/accuracy.py      # a minute or two
"""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "tests/data/measurements_training.jsonl"
SPLITS = ("chip", "vendor", "source")
HEAD = """# Accuracy

Written by `scripts/accuracy.py` on {date} (sapper {version}, Python {python}, NumPy {numpy}); `sapper validate FILE` prints the
same of any file. Rows: the {rows} training rows of confidence high in `tests/data/measurements_training.jsonl` (sources in each
row). Each row is predicted from the catalogue and the row alone, with efficiencies fitted on the other chips' (vendors',
sources') rows only; the factor that widens the intervals comes from those rows too. Error = predicted / measured - 1 in the row's
own metric; *inside* = share of truths in the 80% interval; *width* = high / low - 1. A constant MFU (the median of the other
chips') is the naive predictor. 中文读者：表头依次为 分组、行数、已回答、误差中位数、平均误差、最大误差、区间覆盖率、区间宽度。

"""
PEERS = """
## Other predictors on the same rows

How each was asked, and with which conditions: [peers.md](peers.md). Written by `benchmarks/peers/run.py`.

<!-- figures:begin -->
<!-- figures:end -->
"""
"""``benchmarks/peers/table.py`` puts the figures between the marks."""
TAIL = """
## Where the error sits

- **Chips against the rest of their class**: MI300X in the LoRA benchmark runs far below what MI355X and NVIDIA parts reach of
  their fp8 peaks, and nothing in the catalogue says so beforehand (no fp8 matmul record). An fp8 matmul measurement would close it.
- **B200 bf16 under Megatron-LM** (SimuMax, four- and twelve-layer models on one node) is slower than the share of peak that other
  chips reach; its MLPerf rows, in fp8 and fp4, are faster. Their truths disagree about the chip by half.
- **A100 without its own rows** is predicted 10-20% too slow on 2022 software (vTrain): newer chips reach a smaller share of peak.
- **fp32 without TF32** (NeuSight): MI210 and MI250 multiply fp32 on matrix units whose rate the catalogue does not list.
- **Ascend 910B** rows hide four bins; the rows are scored as 910B3.

Rows without an answer lack `seq_len` and are named by `sapper validate`.
"""


def main() -> int:
    """Run the splits and write the page."""
    import numpy

    import sapper

    parts: list[str] = []
    rows = 0
    for split in SPLITS:
        report = validated(split)
        rows = report["summary"]["n"]
        parts.append(f"## Leave one {split} out\n\n" + table(report, f"by_{split}"))
    head = HEAD.format(
        date=datetime.date.today().isoformat(),
        version=sapper.__version__,
        python=platform.python_version(),
        numpy=numpy.__version__,
        rows=rows,
    )
    (ROOT / "docs/accuracy.md").write_text(head + "\n".join(parts) + PEERS + TAIL, "utf-8")
    subprocess.run([sys.executable, ROOT / "benchmarks/peers/table.py"], check=True)
    return 0


def validated(split: str) -> dict[str, Any]:
    """The report of ``sapper validate`` as JSON."""
    line = [sys.executable, "-m", "sapper", "validate", str(ROWS), "--leave-out", split, "--format", "json"]
    done = subprocess.run(line, capture_output=True, text=True, check=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(report: dict[str, Any], key: str) -> str:
    """One table: all rows, the naive predictor, then group by group."""
    lines = ["| group | rows | answered | median | mean | max | inside | width |", "|---|---:|---:|---:|---:|---:|---:|---:|"]
    groups = [("**all**", report["summary"])]
    if report.get("naive"):
        groups.append(("one constant MFU", report["naive"]))
    groups += sorted(report[key].items(), key=lambda item: -item[1]["n"])
    for name, entry in groups:
        lines.append("| " + " | ".join([name, *(cell(entry, field) for field in FIELDS)]) + " |")
    return "\n".join(lines) + "\n"


FIELDS = ("n", "answered", "median_abs", "mean_abs", "max_abs", "coverage", "width")


def cell(entry: dict[str, Any], field: str) -> str:
    """A number as the page shows it."""
    value = entry.get(field)
    if value is None:
        return "unknown"
    return str(value) if field in ("n", "answered") else f"{100 * value:.1f}%"


if __name__ == "__main__":
    sys.exit(main())
