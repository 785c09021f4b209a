"""The sets of measured rows that peers and Sapper are asked alike: which file, which rows, which quantities."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
SHIPPED = Path(__file__).resolve().parents[2] / "src" / "sapper" / "predict" / "data"
"""The measurement files of the package."""
FLAGGED = frozenset(
    line for line in (Path(__file__).resolve().parent / "flagged.txt").read_text("utf-8").splitlines() if line and not line.startswith("#")
)
"""Rows that cannot be true. They are asked and scored like all others; figures without them stand beside."""
SAMPLE_ROWS = 600
SEED = 0


@dataclass(frozen=True)
class RowSet:
    """Rows that are asked together."""

    name: str
    file: str
    what: str
    pick: Callable[[Sequence[Row]], Sequence[Row]]
    quantities: tuple[str, ...]
    """What is scored of each row, as the answers name it."""

    def rows(self, folder: Path = SHIPPED) -> list[Row]:
        """The rows, in the file's order."""
        picked = self.pick([row for row in read(folder / self.file) if row["confidence"] == "high"])
        return sorted(picked, key=lambda row: (row["chip"], row.get("framework") or "", row["model"]["name"], row["id"]))


def read(path: Path) -> list[Row]:
    """The rows of a ``.jsonl`` or ``.jsonl.gz`` file."""
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _of_source(*starts: str) -> Callable[[Sequence[Row]], Sequence[Row]]:
    return lambda rows: [row for row in rows if row["source"].startswith(starts)]


def _silicon(rows: Sequence[Row]) -> Sequence[Row]:
    aggregated = [row for row in rows if row["id"].startswith("silicon-") and row["phase"] == "serving agg"]
    return random.Random(SEED).sample(aggregated, SAMPLE_ROWS)


ROW_SETS = {
    found.name: found
    for found in (
        RowSet(
            "vtrain-multi", "training.jsonl.gz", "vTrain, A100 on 8 and 64 nodes, GPT, step time",
            _of_source("VIA-Research/vTrain data/ground_truth_multi"), ("step_time_s",),
        ),
        RowSet(
            "vtrain-single", "training_bulk.jsonl.gz", "vTrain, A100 of one node, GPT, step time",
            _of_source("VIA-Research/vTrain data/ground_truth_single"), ("step_time_s",),
        ),
        RowSet(
            "megatron", "training.jsonl.gz", "Megatron-LM's own tables and arXiv:2205.05198 table 5, A100 and H100, throughput",
            lambda rows: [row for row in _of_source("NVIDIA/Megatron-LM", "arXiv 2205.05198")(rows) if row["metric"] != "memory_per_chip"],
            ("step_time_s",),
        ),
        RowSet(
            "argonne", "inference.jsonl.gz", "Argonne's LLM-Inference-Bench, six chips of three vendors, end-to-end latency of a batch",
            _of_source("argonne-lcf/LLM-Inference-Bench"), ("e2e_latency_s",),
        ),
        RowSet(
            "silicon", "inference_bulk.jsonl.gz",
            "aggregated serving points of the sample in aiconfigurator's wheel (InferenceX, NVIDIA):"
            f" {SAMPLE_ROWS} drawn by random.Random({SEED})",
            _silicon, ("tpot_s", "ttft_s"),
        ),
        RowSet(
            "infersim-own", "inference.jsonl.gz", "the six points of InferSim's own page, prefill and decode throughput",
            _of_source("alibaba/InferSim"), ("tokens_per_s_per_chip",),
        ),
    )
}
