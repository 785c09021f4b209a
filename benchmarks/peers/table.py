"""The figures of results.json as the tables of docs/peers.md, docs/peers.zh.md and docs/accuracy.md.

    python benchmarks/peers/table.py        # writes the tables into the pages
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCS = HERE.parents[1] / "docs"
RESULTS = HERE / "results.json"
WORDS = tomllib.loads((HERE / "words.toml").read_text("utf-8"))
PAGES = {"peers.md": "en", "peers.zh.md": "zh", "accuracy.md": "en"}
"""Pages with marks, and the language of their table."""
VIEWS = ("all", "unflagged")
WORTH_A_LINE = 0.01
"""Share of rows that cannot be true above which a set has lines without them."""
MARK = re.compile(r"(<!-- figures:begin -->\n).*?(<!-- figures:end -->)", re.DOTALL)


def table(results: Mapping[str, Any], *, lang: str = "en") -> str:
    """One line for each peer, row set and quantity, with Sapper on exactly the rows that both answered; then Sapper on all."""
    words = WORDS[lang]
    heads = ("rows", "quantity", "peer", "answered", "mean", "median", "within", "sapper", "sapper_median", "cpu")
    caption = words["caption"].format(
        date=results["date"], version=results["sapper"][0]["version"], python=results["machine"]["python"],
        cores=results["machine"]["cores"], sets="; ".join(f"*{name}*: {one['what']}" for name, one in results["row_sets"].items()),
    )
    lines = [caption, "", "| " + " | ".join(words[head] for head in heads) + " |", "|---|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for name, described in results["row_sets"].items():
        for view in VIEWS if described["flagged"] > WORTH_A_LINE * described["rows"] else VIEWS[:1]:
            lines += ["| " + " | ".join(cells) + " |" for cells in _lines(results, name, view, words=words)]
    return "\n".join(lines) + "\n"


def _lines(results: Mapping[str, Any], name: str, view: str, *, words: Mapping[str, str]) -> Iterator[list[str]]:
    row_set = name + words[view]
    for figure in (one for one in results["figures"] if (one["row_set"], one["view"]) == (name, view)):
        ours = figure["sapper_on_both"]
        variant = "" if figure["variant"] == "default" else f" ({figure['variant']}{_constant(figure)})"
        peer = f"{figure['peer']} {figure['version']}{variant}"
        yield [
            row_set, words[figure["quantity"]], peer, f"{figure['answered']} / {figure['asked']}",
            percent(figure["mean_abs"]), percent(figure["median_abs"]), percent(figure["within_10pct"]),
            percent(ours["mean_abs"]), percent(ours["median_abs"]), seconds(figure["cpu_s_per_answer"]),
        ]
    for figure in (one for one in results["sapper"] if (one["row_set"], one["view"]) == (name, view)):
        yield [
            row_set, words[figure["quantity"]], words[f"without_{figure['leave_out']}"], f"{figure['answered']} / {figure['asked']}",
            percent(figure["mean_abs"]), percent(figure["median_abs"]), percent(figure["within_10pct"]), "-", "-", "-",
        ]


def _constant(figure: Mapping[str, Any]) -> str:
    value = figure["options"].get("flops_efficiency")
    return f": {value:g}" if value is not None else ""


def percent(value: float | None) -> str:
    """A share as the tables show it."""
    return "-" if value is None else f"{100 * value:.1f}%"


def seconds(value: float | None) -> str:
    """CPU seconds with two digits that count."""
    return "-" if value is None else f"{value:.2g}"


def refresh() -> list[Path]:
    """Put the tables of today's results into the pages; the pages that changed."""
    results = json.loads(RESULTS.read_text("utf-8"))
    changed = []
    for name, lang in PAGES.items():
        page = DOCS / name
        old = page.read_text("utf-8")
        new = MARK.sub(lambda found, lang=lang: f"{found[1]}{table(results, lang=lang)}{found[2]}", old)  # type: ignore[misc]
        if new != old:
            page.write_text(new, "utf-8")
            changed.append(page)
    return changed


if __name__ == "__main__":
    for written in refresh():
        print(written)
    sys.exit(0)
