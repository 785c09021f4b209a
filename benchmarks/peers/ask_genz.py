"""GenZ (genz-llm, MIT): prefill and decode of one batch, from its own presets of chips and the row's model dims.

End-to-end latency = prefill of the whole batch + output_len decode steps at the mean context; no efficiency factor (its
default of 1), no beam search.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from GenZ import decode_moddeling, prefill_moddeling
from GenZ.Models.default_models import ModelConfig
from protocol import NotAnswered, Row, need, serve

SYSTEMS = {
    "nvidia-a100-sxm-80gb": "A100_80GB_GPU",
    "nvidia-h100-sxm-80gb": "H100_GPU",
    "nvidia-gb200-nvl72": "GB200",
    "amd-mi300x": "MI300X",
    "amd-mi325x": "MI325X",
    "intel-gaudi3": "Gaudi3",
}
"""Its presets by catalogue id. It has none for MI250, Gaudi 2, H200 and B200."""
NAMED = {"NVIDIA GH200": "GH200_GPU"}
"""The same for rows without a catalogue id, by label."""
BITS = {"fp8": "fp8", "fp4": "fp4", "int4": "int4", "bf16": "bf16"}
UNGATED = re.compile(r"bloom|opt-|gpt-j", re.IGNORECASE)
"""Models whose feed-forward has one up projection instead of a gated pair."""
REASONS = {"would not fit": "does not fit in memory, says the peer", "divisible": "divisibility", "precision|KeyError": "precision"}
SCRATCH = Path("/tmp/genz")
"""Where it leaves one CSV file a call."""


def model_of(row: Row) -> ModelConfig:
    """The row's model as GenZ wants it."""
    need(row, "model.layers", "model.hidden", "model.heads", "model.ffn", "model.vocab")
    model = row["model"]
    if "mla" in model.get("arch", "") or re.search(r"deepseek-(v3|r1)|kimi-k2|glm-5", model["name"], re.IGNORECASE):
        raise NotAnswered("the peer has no latent attention", model["name"])
    return ModelConfig(
        model=model["name"],
        num_decoder_layers=model["layers"],
        hidden_size=model["hidden"],
        num_attention_heads=model["heads"],
        num_key_value_heads=model.get("kv_heads", model["heads"]),
        head_dim=model.get("head_dim"),
        intermediate_size=model["ffn"],
        num_ffi=1 if UNGATED.search(model["name"]) else 2,
        vocab_size=model["vocab"],
        num_experts=model.get("experts") or 1,
        expert_top_k=model.get("topk") or 1,
    )


def answer(row: Row) -> dict[str, float]:
    """Time to first token, time per output token and the sum over the answer's length."""
    need(row, "batch", "input_len", "output_len")
    system = SYSTEMS.get(row.get("chip_id", "")) or NAMED.get(row["chip"])
    if system is None:
        raise NotAnswered("the peer has no preset for the chip", row["chip"])
    precision = row.get("precision") or "bf16"
    bits = "bf16" if precision.startswith("fp16/bf16") else BITS.get(precision)
    if bits is None:
        raise NotAnswered("precision", precision)
    common = {
        "model": model_of(row),
        "batch_size": round(row["batch"]),
        "system_name": system,
        "bits": bits,
        "tensor_parallel": row["parallel"].get("tp") or 1,
        "expert_parallel": 1,
    }
    prefill_s = float(prefill_moddeling(input_tokens=round(row["input_len"]), **common)["Latency"]) / 1e3
    decode = decode_moddeling(input_tokens=round(row["input_len"]), output_tokens=round(row["output_len"] / 2), Bb=1, **common)
    step_s = float(decode["Latency"]) / 1e3
    return {"ttft_s": prefill_s, "tpot_s": step_s, "e2e_latency_s": prefill_s + row["output_len"] * step_s}


if __name__ == "__main__":
    mine = not SCRATCH.exists()
    try:
        serve(answer, reasons=REASONS)
    finally:
        if mine:
            shutil.rmtree(SCRATCH, ignore_errors=True)
