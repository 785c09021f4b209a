"""The tables of docs/prove-benchmark.md in both languages, from the raw rows.

python benchmarks/prove/tables.py
"""

from __future__ import annotations

import gzip
import json
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs"
COST = "cost_2core_2026-11-27.json"
Row = dict[str, Any]


def rows(name: str) -> list[Row]:
    """Of the newest file of results with this name; none where it was not run."""
    paths = sorted((HERE / "results").glob(f"{name}_2core_*.jsonl.gz"))
    return [json.loads(line) for line in gzip.decompress(paths[-1].read_bytes()).decode().splitlines()] if paths else []


def table(heads: list[str], body: list[list[str]]) -> str:
    """As Markdown, numbers to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def detection(found: list[Row], column: str) -> str:
    """Share found by each rule, by precision."""
    dtypes = ["fp32", "bf16"]
    groups = {dtype: [row for row in found if row["dtype"] == dtype] for dtype in dtypes}
    body = []
    for rule in found[0]["rules"]:
        cells = []
        for group in groups.values():
            hits = sum(row["rules"][rule][0] for row in group)
            cells.append(f"{hits} / {len(group)} ({hits / len(group):.1%})")
        body.append([rule, *cells])
    return table([column, *dtypes], body)


def missed(found: list[Row]) -> str:
    """What the rule did not find, by kind and op."""
    lines = [f"{row['kind']} in `{row['op']}` ({row['model']}, {row['dtype']})" for row in found if not row["rules"]["sapper"][0]]
    return "; ".join(lines) or "-"


def false_alarms(names: list[str], heads: str) -> str:
    """Outputs accused, by stack and precision."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for name in names:
        for row in rows(name):
            groups[row["stack"], row["dtype"]].append(row)
    body = []
    for (stack, dtype), group in groups.items():
        outcomes = [one[1] for row in group for one in row.get("outcomes", [])]
        accused = sum(one not in ("ok", "legal") for one in outcomes)
        body.append([stack, dtype, str(len({row["model"] for row in group})), str(len(outcomes)), str(accused)])
    return table(heads.split(" | "), body)


def emulated(heads: str) -> str:
    """Faults of the emulated chip, by model."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows("emulated"):
        groups[row["model"]].append(row)
    body = []
    for model, group in groups.items():
        live = [row for row in group if "found" in row]
        counts = [str(sum(row[key] for row in live)) for key in ("found", "first", "three")]
        body.append([model, str(len(live)), *counts, str(len(group[0]["accused"]))])
    return table(heads.split(" | "), body)


def by_bits() -> str:
    """Fallbacks of single ops that the values alone would have told."""
    found = [row["by_bits"] for row in rows("downgrades") if row["part"] == "fallback"]
    return f"{sum(found)} / {len(found)}"


def downgrades(heads: str, kinds: dict[str, str]) -> str:
    """Lies by kind: how many were flagged, and of what honest chips were accused."""
    last: dict[tuple[Any, ...], Row] = {}
    honest = [row for row in rows("downgrades") if row["part"] == "honest"]
    for row in rows("downgrades"):
        if "flagged" in row and not row.get("inert"):
            last[row["part"], row.get("model"), row.get("op"), row.get("form"), row.get("chip")] = row
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in last.values():
        groups[f"{row['part']} {row.get('form') or ''}".strip()].append(row)
    body = [[kinds[name], str(len(group)), str(sum(row["flagged"] for row in group))] for name, group in groups.items()]
    outputs, accused = sum(row["outputs"] for row in honest), sum(row["outcome"] not in ("ok", "legal") for row in honest)
    return table(heads.split(" | "), [*body, [kinds["honest"], str(outputs), str(accused)]])


def repros(heads: str) -> str:
    """Findings by stack: scripts, those of at most 30 lines, those that showed the defect again, and both."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows("shrink_share"):
        groups[row["backend"].partition(":")[0]].append(row)
    every = [row for group in groups.values() for row in group]
    body = []
    for name, group in [*groups.items(), ("*", every)]:
        written = [row for row in group if "lines" in row]
        short, again = sum(row["lines"] <= 30 for row in written), sum(row["again"] for row in written)
        good = sum(row["good"] for row in group)
        counts = [str(len(group)), str(len(written)), str(short), str(again), f"{good} ({good / len(group):.1%})"]
        body.append([name, *counts])
    return table(heads.split(" | "), body)


def cost(heads: str) -> str:
    """Ratios to the plain step."""
    measured = json.loads((HERE / "results" / COST).read_text("utf-8"))
    body = [[name, f"{one['median']:.2f}", f"{one['least']:.2f} - {one['most']:.2f}"] for name, one in measured["ratios"].items()]
    return f"GPT, {measured['params'] / 1e6:.1f} M, {measured['tokens']} tokens, fp32.\n\n" + table(heads.split(" | "), body)


def _of_downgrades(say: dict[str, str]) -> list[str]:
    kinds = {name.removeprefix("lie "): words for name, words in say.items() if name.startswith("lie ")}
    return [say["downgrades"], say["downgrades_note"].format(by_bits=by_bits()), downgrades(say["h_downgrades"], kinds)]


def page(lang: str) -> str:
    """The whole page."""
    say = {key: entry[lang] for key, entry in tomllib.loads((HERE / "words.toml").read_text("utf-8")).items()}
    local, whole = rows("detect_local"), rows("detect_whole_runs_seed1")
    stacks = ["eager_threads", "eager_no_onednn", "inductor", "jax", "openvino", "ort"]
    parts = [
        say["title"], say["intro"],
        say["faults"], say["faults_note"], detection(local, say["column"]), say["missed"] + missed(local),
        say["whole"], say["whole_note"], detection(whole, say["column"]), say["missed"] + missed(whole),
        *([say["emulated"], say["emulated_note"], emulated(say["h_emulated"])] if rows("emulated") else []),
        *(_of_downgrades(say) if rows("downgrades") else []),
        *([say["repros"], say["repros_note"], repros(say["h_repros"]), say["repros_again"]] if rows("shrink_share") else []),
        say["healthy"], say["healthy_note"], false_alarms([f"healthy_{one}" for one in stacks], say["h_stack"]),
        *([say["unseen_note"], false_alarms(["healthy_unseen"], say["h_stack"])] if rows("healthy_unseen") else []),
        say["cost"], cost(say["h_cost"]),
        say["missing"], say["missing_note"],
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Write both pages."""
    for lang, suffix in (("en", ""), ("zh", ".zh")):
        (DOCS / f"prove-benchmark{suffix}.md").write_text(page(lang), "utf-8")


if __name__ == "__main__":
    main()
