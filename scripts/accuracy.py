"""Write docs/accuracy.md: every bar of predict today, and the errors behind them by chip, vendor, source, model family and time.

    python scripts/accuracy.py      # some minutes, on one core

Only rows that ship are used, and no prior answers a row whose chip (or vendor, source, family) it saw.
"""

from __future__ import annotations

import datetime
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy

import sapper
from sapper import messages
from sapper.chips import catalogue
from sapper.cli._bars import shown, target
from sapper.predict.bars import Bar, Bars
from sapper.predict.bars.run import measured
from sapper.predict.kinds import KINDS
from sapper.predict.rows.question import Predictor
from sapper.predict.rows.row import Kind
from sapper.predict.rows.scores import Summary
from sapper.predict.rows.shipped import shipped_rows
from sapper.predict.splits import LeaveOut
from sapper.predict.validate import Report, validate

ROOT = Path(__file__).resolve().parent.parent
LEVEL = 0.9
SPLITS: dict[Kind, tuple[LeaveOut, ...]] = {"training": ("chip", "vendor", "source", "model", "time"), "inference": ("chip",)}
"""Per kind: what is left out. The bulk files are in the bars and in the inference rows."""
HEAD = """# Accuracy

Written by `scripts/accuracy.py` on {date} (sapper {version}, Python {python}, NumPy {numpy}) from the measurements that ship;
`sapper validate --bars` prints the first table, `sapper validate --leave-out ...` the others. Each row is predicted from the
catalogue and the row alone, by a prior that saw no row of its chip (or vendor, source, model family; in the time split: nothing newer
than the cut). Error = predicted / measured - 1 in the row's own metric, rows of confidence high; *inside* = share of truths in the
90% interval; *width* = high / low - 1. 中文读者：首表各列依次为 指标、数值、当前、目标、是否达标、已回答、他处最佳；
分组表各列依次为 分组、行数、已回答、误差中位数、平均误差、最大误差、偏差、区间命中率、区间宽度。

## Bars

"""
PEERS = """## Other predictors on the same rows

How each was asked, and with which conditions: [peers.md](peers.md). Written by `benchmarks/peers/run.py`.

<!-- figures:begin -->
<!-- figures:end -->
"""
"""``benchmarks/peers/table.py`` puts the figures between the marks."""
FIELDS = ("n", "answered", "median_abs", "mean_abs", "max_abs", "bias", "coverage", "width")
WORST = 6
"""Groups that a missed bar lists."""


def main() -> int:
    """Measure everything and write the page."""
    predictors = {kind: entry.predictor() for kind, entry in KINDS.items()}
    found, reports = measured(catalogue(), predictors)
    head = HEAD.format(
        date=datetime.date.today().isoformat(), version=sapper.__version__, python=platform.python_version(), numpy=numpy.__version__
    )
    parts = [head + bar_table(found), "## Where the bars are missed\n\n" + misses(found) + "\n", PEERS]
    parts += [section(kind, predictors[kind], reports) for kind in KINDS]
    (ROOT / "docs/accuracy.md").write_text("\n".join(parts), "utf-8")
    subprocess.run([sys.executable, ROOT / "benchmarks/peers/table.py"], check=True)
    return 0


def bar_table(found: Bars) -> str:
    """All bars, a line for each figure."""
    lines = ["| bar | figure | today | target | met | answered | best elsewhere |", "|---|---|---:|---:|---|---:|---|"]
    for bar in found.bars:
        name, best = (messages.text(f"bars.{part}.{bar.key}", "en") for part in ("name", "best"))
        first = (name, f"{bar.answered:,} / {bar.rows:,}", best)
        for figure in bar.figures:
            name, answered, best = first
            met = "" if figure.met is None else "yes" if figure.met else "**no**"
            label = messages.text(f"bars.figure.{figure.name}", "en")
            lines.append(f"| {name} | {label} | {shown(figure, figure.value)} | {target(figure)} | {met} | {answered} | {best} |")
            first = ("", "", "")
    return "\n".join(lines) + "\n"


def misses(found: Bars) -> str:
    """The worst groups of each bar that is missed."""
    return "\n".join(miss(bar) for bar in found.bars if bar.met is False and bar.groups)


def miss(bar: Bar) -> str:
    """The worst groups of one bar."""
    lines = [f"- **{messages.text(f'bars.name.{bar.key}', 'en')}**: " + "; ".join(group(entry) for entry in bar.groups[:WORST])]
    return "\n".join(lines) + "."


def group(entry: Mapping[str, Any]) -> str:
    """A group with its figures."""
    rows = f" ({entry['rows']})" if entry.get("rows") else ""
    figures = [
        f"{messages.text(f'bars.figure.{name}', 'en')} {value:.2f}" if name == "tau"
        else f"{messages.text(f'bars.figure.{name}', 'en')} {100 * value:.0f}%"
        for name, value in entry.items() if name not in ("group", "rows") and isinstance(value, float)
    ]
    return f"{entry['group']}{rows} {', '.join(figures)}"


def section(kind: Kind, predictor: Predictor, reports: Mapping[tuple[Kind, str], Report]) -> str:
    """The splits of one kind of rows; those that the bars stand on are measured already."""
    parts = [f"## {kind.capitalize()}, by split\n"]
    for split in SPLITS[kind]:
        report = reports.get((kind, split)) or validate(
            shipped_rows(kind), {kind: predictor}, catalogue=catalogue(), leave_out=split, level=LEVEL,
        )
        parts.append(in_time(report) if split == "time" else f"### Leave one {split} out\n\n{table(report, split)}")
    return "\n".join(parts)


def in_time(report: Report) -> str:
    """The time split, by source."""
    return (
        f"### Fitted on what is older than {report.cut_year:g}, asked what is newer\n\n"
        f"{report.not_asked} older or undated questions are not asked.\n\n{table(report, 'source')}"
    )


def table(report: Report, split: str) -> str:
    """All rows, the naive predictor, then group by group."""
    lines = ["| group | rows | answered | median | mean | max | bias | inside | width |", "|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    groups: list[tuple[str, Summary]] = [("**all**", report.summary)]
    if report.naive.answered:
        groups.append(("one constant MFU", report.naive))
    by_split = {"vendor": report.by_vendor, "source": report.by_source, "model": report.by_source}.get(split, report.by_chip)
    groups += by_split.items()
    lines += [f"| {name} | " + " | ".join(cells(entry)) + " |" for name, entry in groups]
    return "\n".join(lines) + "\n"


def cells(entry: Summary) -> Sequence[str]:
    """A summary as the page shows it."""
    return [str(getattr(entry, name)) if name in ("n", "answered") else percent(getattr(entry, name)) for name in FIELDS]


def percent(value: float | None) -> str:
    """A share as the page shows it."""
    return "unknown" if value is None else f"{100 * value:.1f}%"


if __name__ == "__main__":
    messages.set_language("en")
    sys.exit(main())
