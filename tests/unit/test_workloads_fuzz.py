"""Whatever stands in a config.json or in published dims, the answer is a model or an error of ours."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sapper.errors import SapperError
from sapper.workloads import bundled, from_config, from_dims, load

CONFIGS = {path.stem: json.loads(path.read_text("utf-8")) for path in bundled().values()}
FIELDS = sorted({key for config in CONFIGS.values() for key in config})
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.sampled_from([-1, 0, 7, 64, 10**9, 2**63, 10**30, 0.5, -0.0, 1e308, "", "8", "gelu", "full_attention"]),
    st.floats(allow_nan=True),
    st.text(max_size=8),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3), max_leaves=8
)


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    config: dict[str, Any] = copy.deepcopy(CONFIGS[draw(st.sampled_from(sorted(CONFIGS)))])
    for _ in range(draw(st.integers(1, 3))):
        table = config
        nested = [key for key, value in config.items() if isinstance(value, dict)]
        if nested and draw(st.booleans()):
            table = config[draw(st.sampled_from(nested))]
        key = draw(st.sampled_from(sorted(table)) | st.sampled_from(FIELDS) | st.text(max_size=8)) if table else draw(st.text(max_size=8))
        if draw(st.booleans()):
            table[key] = draw(VALUES)
        else:
            table.pop(key, None)
    return config


def answers(config: Any) -> None:
    try:
        model = from_config(config, name="fuzzed", where="fuzzed.json")
        workload = model.workload(model.fixed_seq_len or 64)
        assert model.params > 0
        assert 0 < workload.flops() <= workload.flops(convention="full") < math.inf
        assert all(
            value >= 0
            for block in workload.blocks
            for op in block.ops
            for value in (op.flops, op.input_bytes, op.output_bytes, op.saved_bytes, op.params)
        )
    except SapperError as error:
        assert error.render("en") and error.render("zh")


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(mutated())
def test_a_mutated_config(config: dict[str, Any]) -> None:
    answers(config)


@settings(max_examples=60, deadline=None)
@given(VALUES)
@example({"model_type": ["llama"]})
@example({"model_type": "llama", "num_hidden_layers": 10**9})
@example({"model_type": "gemma3", "text_config": []})
@example({"model_type": "llama", "quantization_config": {"quant_method": ["fp8"]}})
@example({"model_type": "llama", "quantization_config": {"config_groups": {"a": {"weights": {"num_bits": True}}}}})
def test_any_json(config: Any) -> None:
    answers(config)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_in_a_file(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "config.json"
    path.write_bytes(raw)
    with pytest.raises(SapperError):
        load(path)


DIMS = ("params_b", "layers", "hidden", "heads", "kv_heads", "head_dim", "ffn", "vocab", "seq_len", "experts", "topk", "arch", "other")


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from(
        [*sorted(CONFIGS), "GPT-39.1B", "MPT-7b", "PaLM-540B", "Llama3.1-8B", "deepseek-v3 truncated to 4 layers", "Foo-7B", "", "/", "-b"]
    ),
    dims=st.dictionaries(
        st.sampled_from(DIMS), st.integers(-1, 200) | st.sampled_from([4096, 11008, 32, 8, 7.5, 64.0]) | SCALARS, max_size=6
    ),
)
def test_any_dims(name: str, dims: dict[str, Any]) -> None:
    try:
        model = from_dims({"name": name, **dims})
        assert model.params > 0
        model.workload(model.fixed_seq_len or 128)
    except SapperError as error:
        assert error.render("en") and error.render("zh")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40))
def test_any_name(name: str) -> None:
    try:
        load(name)
    except SapperError as error:
        assert error.render("zh")
