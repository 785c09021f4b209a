"""Mutated configs of encoders, encoder-decoders, vision models and hybrids: a model or an error of ours, nothing else."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapper import workloads
from sapper.errors import InputError, SapperError

FAMILIES = {
    "albert", "bamba", "bert", "deit", "dinov2", "distilbert", "electra", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba",
    "kimi_linear",
    "lfm2", "lfm2_moe", "mamba", "mamba2", "minimax", "mt5", "nemotron_h", "olmo_hybrid", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next",
    "recurrent_gemma", "roberta", "t5", "umt5", "vit", "xlm-roberta", "zamba2",
}
CONFIGS = {
    name: raw for name, path in workloads.bundled().items() if (raw := json.loads(path.read_text("utf-8")))["model_type"] in FAMILIES
} | {kind: {"model_type": kind} for kind in FAMILIES}
BAD = st.one_of(
    st.sampled_from([
        None, True, False, 0, -1, 1, 2, 3, 10**12, 1.5, -0.5, math.nan, math.inf, "", "auto", "linear_attention", "x" * 500, [], {}, [0],
        [[]], ["a"],
    ]),
    st.integers(-5, 5000),
    st.lists(st.one_of(st.integers(-2, 40), st.sampled_from(["mamba", "attention", "conv", "hybrid", "moe"])), max_size=5),
    st.dictionaries(st.sampled_from(["head_dim", "num_heads", "kda_layers", "x"]), st.integers(-2, 200), max_size=3),
)


def test_all_families_are_fuzzed():
    assert {raw["model_type"] for raw in CONFIGS.values()} == FAMILIES


@pytest.mark.slow
@settings(max_examples=600, deadline=None)
@given(st.data())
def test_one_or_two_fields_changed(data):
    name = data.draw(st.sampled_from(sorted(CONFIGS)))
    raw = dict(CONFIGS[name])
    keys = [
        *sorted(raw), "architectures", "layer_types", "num_hidden_layers", "num_attention_heads", "num_experts_per_tok", "head_dim",
        "id2label",
    ]
    for key in data.draw(st.lists(st.sampled_from(keys), min_size=1, max_size=2, unique=True)):
        raw[key] = data.draw(BAD)
    try:
        model = workloads.from_config(raw, name=name, where="config.json")
        workload = model.workload(model.fixed_seq_len or 16)
    except SapperError as error:
        assert isinstance(error, InputError)
        assert error.render("en")
        assert error.render("zh")
        return
    assert model.params > 0
    assert workload.flops() >= 0
    assert all(math.isfinite(op.flops) and op.flops >= 0 and op.params >= 0 for block in workload.blocks for op in block.ops)
