"""What each peer is asked, and how it is set up."""

from __future__ import annotations

from asking import Question

BEST = "best-constant"
"""The variant whose efficiency is chosen in hindsight, over the very rows that it is scored on."""
CONSTANTS = tuple(round(0.02 * step, 2) for step in range(3, 36))
"""Efficiencies that are tried for it."""
TRAINING_SETS = ("vtrain-multi", "vtrain-single", "megatron")

_GENZ = (
    "its own presets of A100, H100, GH200, GB200 and MI300X, efficiency 1 (its default); the model from the row's dims;"
    " latency = prefill of the batch + one decode step at the mean context for each token of the answer"
)
_MICRO_BATCH = "where a row states no micro-batch, the fastest of 1 to 16 counts, as in Sapper's own search"
_LLM_ANALYSIS = f"its own presets of A100 and H100; padded GPT-2 vocabulary where the row has none; {_MICRO_BATCH}"
_CALCULON = f"its own chip files of A100 and H100 with their efficiency curves; {_MICRO_BATCH}"

QUESTIONS = (
    Question("genz", "argonne", "default", f"bf16; {_GENZ}"),
    Question("genz", "silicon", "default", f"batch = the row's concurrency, no queueing; {_GENZ}"),
    Question(
        "aiconfigurator", "silicon", "default",
        "database mode SILICON (its default), its current engine version, quantisation as the row states or else as it infers itself;"
        " six model ids stand for bundled configs of the same shape; no network; each of its YAML files is parsed once, which saves nine"
        " tenths of the time that it takes as shipped",
        {"parse_once": True},
    ),
    *(
        Question("llm-analysis", name, variant, f"flops_efficiency {shown}; {_LLM_ANALYSIS}", {"flops_efficiency": value})
        for name in TRAINING_SETS
        for variant, shown, value in (
            ("default", "1, the default of its code", None),
            ("documented", "0.5, what its documentation says Megatron-LM reaches", 0.5),
            (BEST, "the constant with the least mean error on these very rows, found in hindsight", None),
        )
    ),
    *(Question("calculon", name, "default", _CALCULON, {"network": "shipped"}) for name in TRAINING_SETS),
    Question(
        "calculon", "vtrain-multi", "stated-network", f"800 Gb/s between nodes, as the rows state; otherwise {_CALCULON}",
        {"network": "stated"},
    ),
    Question("infersim", "infersim-own", "default", "the arguments of the scripts in its own example folder"),
)
