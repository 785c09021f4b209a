"""llm-analysis (Apache-2.0): a training step from formulas; the user supplies the share of peak that is reached.

Options: ``flops_efficiency`` (null: its default, 1).
"""

from __future__ import annotations

import json
import logging
import sys

from llm_analysis.analysis import ActivationRecomputation, DSZeRO, LLMAnalysis
from llm_analysis.config import ModelConfig, ParallelismConfig, get_dtype_config_by_name, get_gpu_config_by_name
from protocol import NotAnswered, Row, serve
from training_rows import GATED, degrees, fastest, recomputation, sequence_parallel

GPUS = {
    "nvidia-a100-sxm-80gb": "a100-sxm-80gb",
    "nvidia-a100-sxm-40gb": "a100-sxm-40gb",
    "nvidia-h100-sxm-80gb": "h100-sxm-80gb",
}
RECOMPUTED = {
    "none": ActivationRecomputation.NONE,
    "selective": ActivationRecomputation.SELECTIVE,
    "full": ActivationRecomputation.FULL,
}
CHIPS_PER_NODE = 8
PADDED_VOCAB = 51200
"""GPT-2's vocabulary as Megatron pads it, for rows without one."""
REASONS = {
    "memory|batch_size_per_gpu must be": "does not fit in memory, says the peer",
    "divis|multiple|equal": "divisibility",
}


def answer(row: Row) -> dict[str, float]:
    """Seconds of one step."""
    tp, pp, dp = degrees(row)
    if tp > CHIPS_PER_NODE:
        raise NotAnswered("degrees that the peer refuses", f"tp {tp} > {CHIPS_PER_NODE}, its chips of a node")
    gpu = GPUS.get(row.get("chip_id", ""))
    if gpu is None:
        raise NotAnswered("the peer has no preset for the chip", row["chip"])
    if "fp8" in (row.get("precision") or ""):
        raise NotAnswered("precision", row["precision"])
    model = row["model"]
    shape = ModelConfig(
        name=model["name"],
        num_layers=model["layers"],
        n_head=model["heads"],
        hidden_dim=model["hidden"],
        vocab_size=model.get("vocab") or PADDED_VOCAB,
        max_seq_len=model["seq_len"],
        num_key_value_heads=model.get("kv_heads") or model["heads"],
        ffn_embed_dim=model.get("ffn") or 4 * model["hidden"],
        expansion_ratio=(model.get("ffn") or 4 * model["hidden"]) / model["hidden"],
        moe_num_experts=model.get("experts") or 1,
        moe_top_k=model.get("topk") or 1,
    )
    cut = ParallelismConfig(tp_size=tp, pp_size=pp, dp_size=dp, sp_size=tp if sequence_parallel(row) else 1)
    analysis = LLMAnalysis(
        shape, get_gpu_config_by_name(gpu), get_dtype_config_by_name("w16a16e16"), cut, flops_efficiency=OPTIONS["flops_efficiency"]
    )

    def step_s(micro_batch: int) -> float:
        found = analysis.training(
            batch_size_per_gpu=micro_batch,
            global_batch_size=row["global_batch"],
            seq_len=model["seq_len"],
            activation_recomputation=RECOMPUTED[recomputation(row)],
            ds_zero=DSZeRO(row["parallel"].get("zero") or 0),
            mlp_gated_linear_units=any(word in model["name"].lower() for word in GATED),
            flash_attn=False,
        )
        return float(found["latency_per_iter"])

    return {"step_time_s": fastest(row, step_s)}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    OPTIONS = json.loads(sys.argv[1])
    serve(answer, reasons=REASONS)
