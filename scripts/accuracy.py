"""Write docs/accuracy.md: every bar of predict today, and the errors behind them by chip, vendor, source, model family and time.

    python scripts/accuracy.py                    # some minutes, on one core
    python scripts/accuracy.py --only training    # or inference: the figures of the other kind stay as the page has them

Only rows that ship are used, and no prior answers a row whose chip (or vendor, source, family) it saw.
"""

from __future__ import annotations

import datetime
import functools
import platform
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
from accuracy_floor import by_term, in_sample, repeats

import sapper
from sapper import messages
from sapper.chips import catalogue
from sapper.cli._bars import shown, target
from sapper.predict.bars import Bar, Bars, page, where
from sapper.predict.bars.ranking import ranking
from sapper.predict.bars.run import measured
from sapper.predict.kinds import KINDS
from sapper.predict.predictor import TrainPredictor
from sapper.predict.rows.case import Case
from sapper.predict.rows.question import Predictor
from sapper.predict.rows.row import Kind
from sapper.predict.rows.scores import Summary
from sapper.predict.rows.shipped import shipped_rows
from sapper.predict.serve.predictor import ServePredictor
from sapper.predict.serve.rows import ServeCase
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
PAGE = ROOT / "docs/accuracy.md"
TERMS_HEAD = """### By term of the step

Rows of left-out chips in which the term takes 15% of the predicted step or more (a row may count under several); optimism: median,
positive where the prediction is too fast.

"""
REPEATS_HEAD = """### What the rows themselves leave open

Distance of rows of one source from the median of those that ask the same of the same chips. What sets them apart (submitter, release,
host, options) is told by neither row nor catalogue: a predictor from a datasheet gives all of them one answer.

"""
SERVING_HEAD, PEERS_HEAD = "## Where the error of serving sits", PEERS.splitlines()[0]
SEEN = """Constants fitted on vTrain's very rows leave {several} over several nodes and {single} on one node, and choose the best plan or
one within 2% in {best} of the groups, with a mean regret of {regret}: what is beyond that is not in the constants but in the counts
(kernels and their host time by plan), or in the rows.
"""


def main() -> int:
    """Measure everything, or one kind, and write the page."""
    only = sys.argv[sys.argv.index("--only") + 1] if "--only" in sys.argv else None
    predictors = {kind: entry.predictor() for kind, entry in KINDS.items() if only in (None, kind)}
    found, reports = measured(catalogue(), predictors)
    head = HEAD.format(
        date=datetime.date.today().isoformat(), version=sapper.__version__, python=platform.python_version(), numpy=numpy.__version__
    )
    names = {messages.text(f"bars.name.{bar.key}", "en") for bar in found.bars}
    table_, missed = bar_table(found), misses(found)
    if only:
        today, rest = PAGE.read_text("utf-8").split("## Where the bars are missed")
        table_ = kept(table_, today, names, opens=r"\| (?! )([^|]+?) \|")
        missed = kept(missed, rest.split("\n#")[0], names, opens=r"- \*\*(.+?)\*\*")
    parts = [head + table_, "## Where the bars are missed\n\n" + missed]
    parts.append(floor(predictors["training"], reports) if "training" in predictors else between(TERMS_HEAD.splitlines()[0], SERVING_HEAD))
    parts.append(serving_errors(predictors["inference"], reports) if "inference" in predictors else between(SERVING_HEAD, PEERS_HEAD))
    parts.append(PEERS)
    parts += [section(kind, predictors[kind], reports) if kind in predictors else old_section(kind) for kind in KINDS]
    PAGE.write_text("\n".join(parts), "utf-8")
    subprocess.run([sys.executable, ROOT / "benchmarks/peers/table.py"], check=True)
    return 0


def kept(new: str, today: str, names: set[str], *, opens: str) -> str:
    """``new`` with what the page has ``today`` of bars that are not among ``names``, in the order of the page.

    Args:
        new: Lines of bars; ``opens`` matches the first of each and captures its name.
        names: Bars that were measured.
        opens: A regular expression.
    """
    fresh, old = _blocks(new, opens), _blocks(today, opens)
    order = [*old, *(name for name in fresh if name not in old)]
    return "".join(fresh.get(name) or ("" if name in names else old[name]) for name in order)


def between(first: str, after: str) -> str:
    """What the page has today from the heading ``first`` up to the heading ``after``."""
    return first + PAGE.read_text("utf-8").split(first)[1].split(after)[0].rstrip("\n") + "\n"


def _blocks(text: str, opens: str) -> dict[str, str]:
    """Name of a bar -> its lines, up to the first empty one."""
    found: dict[str, str] = {}
    name = None
    for line in text.splitlines(keepends=True):
        first = re.match(opens, line)
        name = first[1] if first else name if line.strip() else None
        if name is not None:
            found[name] = found.get(name, "") + line
    return found


def old_section(kind: Kind) -> str:
    """The splits of ``kind`` as the page has them."""
    return f"## {kind.capitalize()}, by split" + PAGE.read_text("utf-8").split(f"## {kind.capitalize()}, by split")[1].split("\n## ")[0]


def floor(predictor: Predictor, reports: Mapping[tuple[Kind, str], Report]) -> str:
    """Errors of training by term, and what the rows leave open."""
    assert isinstance(predictor, TrainPredictor)
    pool = [case for case in KINDS["training"].pool(catalogue()) if isinstance(case, Case)]
    rows = [row for row in shipped_rows("training_bulk").rows if row.confidence == "high"]
    single = [case for case in KINDS["training"].questions(rows, catalogue())[0] if isinstance(case, Case)]
    seen = in_sample(predictor, pool, single)
    words = {"several": "multi", "single": "single", "best": "best_or_close", "regret": "regret"}
    return (
        TERMS_HEAD + by_term(reports["training", "chip"].rows, pool, predictor) + "\n" + REPEATS_HEAD + repeats(pool) + "\n"
        + SEEN.format(**{word: percent(seen[name]) for word, name in words.items()})
    )


@functools.cache
def reasons() -> Mapping[str, Mapping[str, str]]:
    """By bar: the term in which its error sits, what the data leave open, what would close it."""
    return tomllib.loads((ROOT / "scripts/accuracy_misses.toml").read_text("utf-8"))


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
    return "".join(miss(bar) + "\n" for bar in found.bars if bar.met is False and (bar.groups or bar.key in reasons()))


def miss(bar: Bar) -> str:
    """The worst groups of one bar."""
    worst = "; ".join(group(entry) for entry in bar.groups[:WORST]) or "see the table"
    lines = [f"- **{messages.text(f'bars.name.{bar.key}', 'en')}**: " + worst]
    lines[0] += "."
    why = reasons().get(bar.key, {})
    titles = {"term": "the term", "floor": "what the data leave open", "data": "what would close it"}
    return "\n".join([*lines, *(f"  - {title}: {why[name]}" for name, title in titles.items() if name in why)])


def group(entry: Mapping[str, Any]) -> str:
    """A group with its figures."""
    rows = f" ({entry['rows']})" if entry.get("rows") else ""
    figures = [
        f"{messages.text(f'bars.figure.{name}', 'en')} {value:.2f}" if name == "tau"
        else f"{messages.text(f'bars.figure.{name}', 'en')} {100 * value:.0f}%"
        for name, value in entry.items() if name not in ("group", "rows") and isinstance(value, float)
    ]
    return f"{entry['group']}{rows} {', '.join(figures)}"


def serving_errors(predictor: Predictor, reports: Mapping[tuple[Kind, str], Report]) -> str:
    """The section on the error of serving, in both languages."""
    assert isinstance(predictor, ServePredictor)
    asked = KINDS["inference"].pool(catalogue())
    cases = [case for case in asked if isinstance(case, ServeCase)]
    seen = where.seen_answers(cases, predictor)
    lines = reports["inference", "chip"].rows
    left = {(line.id, line.metric): line.predicted for line in lines if line.predicted is not None and (line.id, line.metric) in seen}
    orders: tuple[Mapping[tuple[str, str], float], ...] = (left, {key: seen[key].value for key in left})
    taus = [ranking(asked, order, "ranking_inference").figures[0].value for order in orders]
    found = where.places(cases, lines, seen)
    return "\n".join(page.page(found, taus=taus, lang=lang) for lang in ("en", "zh"))


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
