"""Read the recipes of InferenceX out of a clone of its repository, and write what they state beside the rules of its rows.

    git clone https://github.com/SemiAnalysisAI/InferenceX
    python scripts/inferencex_recipes.py InferenceX     # needs PyYAML, which nothing else here does

The benchmark publishes latencies without the workers, the drafts and the batch limits of each run; its recipes
(``nvidia-master.yaml``, Apache-2.0) state them, and their history tells which of them was current on which day. Nothing
measured is in them. Written: ``src/sapper/predict/serve/rows/data/inferencex.jsonl.gz``, read by
:mod:`sapper.predict.serve.rows.recipes`.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

FILES = (".github/configs/nvidia-master.yaml", "configs/nvidia-master.yaml")
"""Where the recipes lay before and after they moved."""
UNTIL = "2026-05-01T00:00:00Z"
"""The day after the last measurement of the exports that ship."""
OUT = Path(__file__).resolve().parent.parent / "src/sapper/predict/serve/rows/data/inferencex.jsonl.gz"
CHIPS = {
    "gb200": "nvidia-gb200-nvl72", "gb300": "nvidia-gb300-nvl72", "b200": "nvidia-b200-sxm", "b300": "nvidia-b300-sxm",
    "h200": "nvidia-h200-sxm-141gb", "h100": "nvidia-h100-sxm-80gb",
}
NODE = 4
"""Chips of a node of GB200."""
STACKS = {"trt": "trtllm", "sglang": "sglang", "vllm": "vllm"}


def main() -> int:
    """Write the recipes of the clone that the command names."""
    clone = Path(sys.argv[1])
    days: dict[str, list[str]] = {}
    for day, file, commit in newest_of_each_day(clone):
        for recipe in recipes_in(git(clone, "show", f"{commit}:{file}")):
            days.setdefault(json.dumps(recipe, sort_keys=True), []).append(day)
    lines = [json.dumps(json.loads(text) | {"first": min(seen), "last": max(seen)}) for text, seen in sorted(days.items())]
    OUT.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode(), mtime=0))
    print(f"{OUT.name}: {len(lines)} recipes")
    return 0


def git(clone: Path, *arguments: str) -> str:
    """What git prints."""
    return subprocess.run(["git", "-C", str(clone), *arguments], capture_output=True, text=True, check=True).stdout


def newest_of_each_day(clone: Path) -> Iterator[tuple[str, str, str]]:
    """(day, file, commit) of the last state of the recipes on each day that changed them."""
    for file in FILES:
        log = git(clone, "log", "--reverse", f"--before={UNTIL}", "--format=%cs %H", "--diff-filter=AM", "--", file)
        yield from ((day, file, commit) for day, commit in dict(line.split() for line in log.splitlines()).items())


_READ: dict[str, list[dict[str, Any]]] = {}
"""By the text of an entry: most of them stay as they are for weeks."""


def recipes_in(text: str) -> Iterator[dict[str, Any]]:
    """The recipes of one state of a file."""
    for entry in re.split(r"\n(?=\w)", text):
        if entry not in _READ:
            _READ[entry] = [recipe for config in _configs(entry) for recipe in _recipes(config)]
        yield from _READ[entry]


def _configs(entry: str) -> list[Mapping[str, Any]]:
    try:
        loaded = yaml.safe_load(entry)
    except yaml.YAMLError:  # some days hold an entry that their own tools refuse
        return []
    return [config for config in loaded.values() if isinstance(config, dict)] if isinstance(loaded, dict) else []


def _recipes(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    chip = CHIPS.get(re.split(r"[-_]", str(config.get("runner")))[0])
    stack = STACKS.get(str(config.get("framework")).removeprefix("dynamo-"))
    lengths = config.get("seq-len-configs") or (config.get("scenarios") or {}).get("fixed-seq-len") or ()
    if chip is None or stack is None:
        return
    precision = config["precision"]
    model = str(config["model-prefix"]).removesuffix(f"-{precision}")
    for one in lengths:
        for space in one.get("search-space", ()):
            yield {
                "model": model, "chip": chip, "precision": precision, "stack": stack,
                "image": str(config.get("image", "")).rpartition(":")[2],
                "input_len": one["isl"], "output_len": one["osl"], "loads": _loads(space),
                "decode": _workers(space.get("decode") or space),
                "prefill": _workers(space["prefill"]) if "prefill" in space else None, "drafts": _drafts(space), "most": _most(space),
            }


def _loads(space: Mapping[str, Any]) -> list[int]:
    """Concurrent requests: a list, or doublings from start to end."""
    if "conc-list" in space:
        return sorted(int(load) for load in space["conc-list"])
    load, end = int(space["conc-start"]), int(space["conc-end"])
    found = [load * 2**n for n in range(16) if load * 2**n <= end]
    return found if found and found[-1] == end else [*found, end]


def _workers(pool: Mapping[str, Any]) -> list[int]:
    """[workers, chips of one, ranks of its attention, degree of its experts]."""
    workers, chips = int(pool.get("num-worker", 1)), int(pool.get("tp", 1)) * int(pool.get("pp", 1))
    nodes = re.search(r"(?:PREFILL|DECODE)_NODES=(\d+)", " ".join(str(one) for one in pool.get("additional-settings") or ()))
    if nodes and chips == 1:  # the first recipes for GB200 leave the degrees at 1 and count nodes
        chips = int(nodes[1]) * NODE // workers
    return [workers, chips, chips if pool.get("dp-attn") is True else 1, int(pool.get("ep") or 1)]


def _settings(space: Mapping[str, Any]) -> str:
    return " ".join(str(one) for which in ("prefill", "decode") for one in (space.get(which) or {}).get("additional-settings") or ())


def _drafts(space: Mapping[str, Any]) -> int | None:
    """Tokens drafted for each that is generated: 0 without drafts, None where their number is in a file that the recipe names."""
    text = _settings(space)
    found = re.search(r"DECODE_MTP_SIZE=(\d)", text) or re.search(r"mtp(\d)(?!\d)", text)
    if found:
        return int(found[1])
    return None if str(space.get("spec-decoding", "none")) not in ("none", "None") else 0


def _most(space: Mapping[str, Any]) -> int | None:
    """Requests that may decode together on one attention rank, where stated."""
    found = re.search(r"DECODE_MAX_BATCH_SIZE=(\d+)", _settings(space)) or re.search(r"_batch(\d+)", _settings(space))
    return int(found[1]) if found else None


if __name__ == "__main__":
    sys.exit(main())
