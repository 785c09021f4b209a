"""Calculon (calculon-ai/calculon, Apache-2.0): a training step from its own chip files. It is not on PyPI; a checkout is given.

Options: ``checkout`` (folder), ``network`` (``shipped``: as its chip file says; ``stated``: between nodes what the row states).
"""

from __future__ import annotations

import copy
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

from protocol import NotAnswered, Row, serve
from training_rows import degrees, fastest, plain, recomputation, sequence_parallel

SYSTEMS = {"nvidia-a100-sxm-80gb": "a100_80g", "nvidia-h100-sxm-80gb": "h100_80g_nvl8"}
CHIPS_PER_NODE = 8
RECOMPUTED = {"none": "none", "selective": "attn_only", "full": "full"}
REASONS = {
    r"^Error: Mem|tier1 needs|memory": "does not fit in memory, says the peer",
    r"Network tier": "degrees that the peer refuses",
    r"interleaving|AssertionError|divis": "degrees that the peer refuses",
}


def system_of(row: Row) -> dict[str, Any]:
    """The chip file, with the row's network between nodes where asked for."""
    name = SYSTEMS.get(row.get("chip_id", ""))
    if name is None:
        raise NotAnswered("the peer has no preset for the chip", row["chip"])
    found = copy.deepcopy(CHIP_FILES[name])
    stated = re.search(r"inter-node (\d+) Gb/s", row.get("note") or "")
    if OPTIONS["network"] == "stated" and stated:
        found["networks"][1]["bandwidth"] = int(stated[1]) / 8 / CHIPS_PER_NODE  # GB/s of a chip
    return found


def execution(row: Row, micro_batch: int) -> dict[str, Any]:
    """The row's plan in Calculon's words."""
    tp, pp, dp = degrees(row)
    one_node = row["n_chips"] <= CHIPS_PER_NODE
    split = sequence_parallel(row) and tp > 1
    recompute = RECOMPUTED[recomputation(row)]
    return {
        "num_procs": row["n_chips"],
        "tensor_par": tp,
        "pipeline_par": pp,
        "data_par": dp,
        "tensor_par_net": 0,
        "pipeline_par_net": 0 if one_node else 1,
        "data_par_net": 0 if one_node else 1,
        "batch_size": row["global_batch"],
        "microbatch_size": micro_batch,
        "datatype": "float16",
        "fused_activation": False,
        "attention_type": "multihead",
        "activation_recompute": recompute,
        "pipeline_interleaving": row["parallel"].get("vpp") or 1,
        "optimizer_sharding": (row["parallel"].get("zero") or 0) > 0 and dp > 1,
        "tensor_par_comm_type": "rs_ag" if split else "ar",
        "tensor_par_overlap": "none",
        "seq_par_ag_redo": split and recompute != "full",
        "data_par_overlap": "comm overlap on" in (row.get("note") or "") and dp > 1,
        "weight_offload": False,
        "activations_offload": False,
        "optimizer_offload": False,
        "training": True,
    }


def answer(row: Row) -> dict[str, float]:
    """Seconds of one step."""
    degrees(row)
    if not plain(row):
        raise NotAnswered("a model that the peer cannot describe", row["model"]["name"])
    if "fp8" in (row.get("precision") or ""):
        raise NotAnswered("precision", row["precision"])
    model = row["model"]
    application = Llm.Application(
        {
            "hidden": model["hidden"],
            "feedforward": model.get("ffn") or 4 * model["hidden"],
            "seq_size": model["seq_len"],
            "attn_heads": model["heads"],
            "attn_size": model.get("head_dim") or model["hidden"] // model["heads"],
            "num_blocks": model["layers"],
        }
    )
    system = System(system_of(row))

    def step_s(micro_batch: int) -> float:
        one = Llm(application, logging.getLogger("calculon"))
        one.compile(system, Llm.Execution.from_json(execution(row, micro_batch)))
        one.run(system)
        return float(one.get_stats_json(False)["total_time"])

    return {"step_time_s": fastest(row, step_s)}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    OPTIONS = json.loads(sys.argv[1])
    CHECKOUT = Path(OPTIONS["checkout"])
    sys.path.insert(0, str(CHECKOUT))
    from calculon.llm import Llm
    from calculon.system import System

    CHIP_FILES = {name: json.loads((CHECKOUT / "systems" / f"{name}.json").read_text("utf-8")) for name in SYSTEMS.values()}
    serve(answer, reasons=REASONS)
