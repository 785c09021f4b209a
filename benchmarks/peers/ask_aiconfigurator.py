"""aiconfigurator (NVIDIA, Apache-2.0): aggregated serving, from its kernel database of the chip that was measured.

The rows are those of the sample that its own wheel carries (``silicon_sample.csv``), so each is asked with exactly the
engine, quantisation and degrees that the sample states; where it lacks data for the stated quantisation it is asked a second
time and left to infer the quantisation from the checkpoint, so that a label of the sample costs it no answer. The engine's
version is left to its current database: it refuses older ones. Model ids without a bundled config stand for the bundled one
of the same shape, since nothing is downloaded.

Options: ``parse_once`` (its index of versions, some hundred YAML files, is parsed anew for every estimate; true: once a file,
which changes no answer and saves nine tenths of the time).
"""

from __future__ import annotations

import copy
import csv
import functools
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import aiconfigurator_core
import yaml
from aiconfigurator.cli.api import EstimateResult, cli_estimate, cli_recommend
from protocol import NotAnswered, Row, reason_of, serve

SAMPLE = Path(aiconfigurator_core.__file__).parent / "systems" / "silicon_sample.csv"
SAME_SHAPE = {
    "meta-llama/Llama-3.1-70B": "meta-llama/Meta-Llama-3.1-70B",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Meta-Llama-3.1-8B",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "meta-llama/Meta-Llama-3.1-8B",
    "nvidia/DeepSeek-R1-NVFP4": "nvidia/DeepSeek-V3.1-NVFP4",
    "nvidia/Qwen3-32B-NVFP4": "Qwen/Qwen3-32B",
    "zhipuai/GLM-5": "zai-org/GLM-5",
}
REASONS = {
    r"data missing|PerfDataNotAvailable|no .*data|not available|not collected": "missing kernel data",
    r"memory|oom|capacity|does not fit|KV cache": "does not fit in memory, says the peer",
    r"divis|must equal|must be equal|mismatch|!=": "degrees that the peer refuses",
    r"version": "engine version",
    r"quant": "quantisation",
    r"model": "unknown model",
}


def sample() -> dict[str, dict[str, str]]:
    """Rows of the wheel's sample by id."""
    with SAMPLE.open(newline="", encoding="utf-8") as file:
        return {line["id"]: line for line in csv.DictReader(file)}


def answer(row: Row) -> dict[str, float]:
    """Time to first token and per output token; of a row with a service level, the chips that it takes."""
    if "slo" in row:
        return sized(row)
    stated = ROWS.get(row["id"].removeprefix("silicon-"))
    if stated is None:
        raise NotAnswered("the row is not of the peer's sample", row["id"])
    quantised = {name: stated[name] for name in ("gemm_quant_mode", "moe_quant_mode") if stated[name]}
    try:
        found = estimate(stated, quantised)
    except Exception as error:
        if not quantised or reason_of(error, REASONS) not in ("missing kernel data", "quantisation"):
            raise
        found = estimate(stated, {})
    if not (found.tpot > 0 and found.ttft > 0):
        raise NotAnswered("no finite answer", f"ttft {found.ttft}, tpot {found.tpot}")
    return {"ttft_s": float(found.ttft) / 1e3, "tpot_s": float(found.tpot) / 1e3}


def estimate(stated: dict[str, str], quantised: dict[str, str]) -> EstimateResult:
    """The peer's estimate of a line of its sample."""
    return cli_estimate(
        SAME_SHAPE.get(stated["model_path"], stated["model_path"]),
        stated["system"],
        backend_name=stated["backend"],
        isl=int(stated["isl"]),
        osl=int(stated["osl"]),
        batch_size=int(stated["batch_size"]),
        tp_size=int(stated["tp_size"]),
        pp_size=int(stated["pp_size"] or 1),
        attention_dp_size=int(stated["attention_dp_size"] or 0) or 1,
        moe_tp_size=int(stated["moe_tp_size"] or 0) or None,
        moe_ep_size=int(stated["moe_ep_size"] or 0) or None,
        **quantised,
    )


def sized(row: Row) -> dict[str, float]:
    """The fewest chips that serve the row's rate within its limits."""
    slo = row["slo"]
    found = cli_recommend(
        row["model"], row["system"], target_request_rate=slo["rate_per_s"], backend=row["backend"], database_mode="SILICON",
        isl=row["input_len"], osl=row["output_len"], ttft=1e3 * slo["ttft_s"], tpot=1e3 * slo["tpot_s"],
    )
    return {"chips": float(min(one["total_gpus_needed"] for one in found.best_latencies.values()))}


def parse_once() -> None:
    """Let the peer parse equal YAML text once."""
    parsed = functools.cache(yaml.safe_load)

    def safe_load(stream: Any) -> Any:
        return copy.deepcopy(parsed(stream.read() if hasattr(stream, "read") else stream))

    yaml.safe_load = safe_load


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    if json.loads(sys.argv[1])["parse_once"]:
        parse_once()
    ROWS = sample()
    serve(answer, reasons=REASONS)
