"""Models from published dims, first of all those of the measurements that ship with the project."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sapper.errors import BadValue, MissingFact
from sapper.workloads import Op, from_dims, load
from sapper.workloads.names import meaning
from support import ROOT

ROWS = [json.loads(line) for line in (ROOT / "tests" / "data" / "measurements_training.jsonl").read_text("utf-8").splitlines()]
MODELS = {json.dumps(row["model"]): row["model"] for row in ROWS}


def layer(dims: dict[str, Any], index: int = 0) -> dict[str, Op]:
    blocks = [block for block in from_dims(dims).workload(512).blocks if block.role == "layer"]
    return {op.name: op for op in blocks[index].ops}


@pytest.mark.slow
def test_every_measured_model_is_answered_with_its_dims() -> None:
    for dims in MODELS.values():
        model = from_dims(dims)

        assert model.workload(dims.get("seq_len", 2048)).flops() > 0
        for dim, found in (("layers", model.layers), ("hidden", model.hidden), ("heads", model.heads), ("vocab", model.vocab)):
            assert dims.get(dim) in (None, found), (dims, dim)


@pytest.mark.slow
def test_parameters_are_near_those_published_or_the_reader_is_told() -> None:
    """Names such as Gemma-2B (which has 2.5 B) are rounded; where more than one digit is published, we are within 4%."""
    for dims in MODELS.values():
        if "params_b" not in dims:
            continue
        model = from_dims(dims)
        error = abs(model.params / (dims["params_b"] * 1e9) - 1)
        rounded = len(f"{dims['params_b']:g}".replace(".", "").strip("0")) == 1 or (
            dims["params_b"] == int(dims["params_b"]) and dims["params_b"] < 20
        )
        assert rounded or error < 0.04, (dims, model.params)
        assert error < 0.03 or any("published" in note for note in model.notes), dims


def test_a_known_name_fills_what_the_dims_leave_out() -> None:
    by_name, known = from_dims({"name": "Qwen1.5-MoE-A2.7B", "arch": "dense"}), load("qwen1.5-moe-a2.7b")

    assert (by_name.params, by_name.active_params) == (known.params, known.active_params)


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("Llama3.1-8B", "llama-3.1-8b"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("Llama2-70B LoRA", "llama-2-70b"),
        ("llama3-70b truncated to 12 layers", "llama-3-70b"),
        ("deepseekv2 truncated to 4 layers", "deepseek-v2"),
        ("GPT-3 175B", "gpt3-175b"),
        ("GPT-175B", "gpt3-175b"),
        ("gpt2_large", "gpt2-large"),
        ("bert_large", "bert-large-uncased"),
        ("GLM4-9B", "glm-4-9b"),
        ("Gemma2-27B", "gemma-2-27b"),
        ("Llama4-Scout-17B-16E", "llama-4-scout"),
        ("Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", "qwen3-235b-a22b"),
        ("opt_13", "opt-1.3b"),
        ("01-ai/Yi-34B", "yi-34b"),
    ],
)
def test_a_name_means_a_bundled_model(name: str, template: str) -> None:
    assert meaning(name).template == template and meaning(name).exact


@pytest.mark.parametrize("name", ["LLaMA2-34B", "InternLM-65B", "DeepSeek-V2-60B", "GPT-39.1B"])
def test_another_size_only_resembles_its_line(name: str) -> None:
    assert meaning(name).template is not None and not meaning(name).exact


@pytest.mark.parametrize("name", ["", "Foo-7B", "MaxText-64B", "/", "-", "7b", "truncated"])
def test_other_names_mean_nothing(name: str) -> None:
    assert meaning(name).template is None


def test_dims_given_win_over_the_known() -> None:
    cut = from_dims(
        {
            "name": "llama3-70b truncated to 12 layers",
            "layers": 12,
            "hidden": 8192,
            "heads": 64,
            "kv_heads": 8,
            "ffn": 28672,
            "vocab": 128256,
        }
    )

    assert cut.layers == 12
    assert cut.params == load("llama-3-70b").params - 68 * (8192 * 8192 * 2 + 2 * 8192 * 1024 + 3 * 8192 * 28672 + 2 * 8192)


def test_leading_dense_layers_shrink_with_the_depth_and_one_stays() -> None:
    dims = {
        "name": "deepseek-v3 truncated to 4 layers",
        "arch": "moe-mla",
        "layers": 4,
        "hidden": 7168,
        "heads": 128,
        "ffn": 2048,
        "experts": 256,
        "topk": 8,
    }
    model = from_dims(dims)

    assert model.layer_counts == {"mla": 1, "mla+moe": 3}
    assert any("from 3 to 1" in note for note in model.notes)


def test_the_width_of_a_mixture_is_an_experts_unless_it_is_the_dense_layers() -> None:
    v3 = {"name": "DeepSeek-V3", "arch": "moe-mla"}

    assert from_dims({**v3, "ffn": 2048}).params == from_dims({**v3, "ffn": 18432}).params == load("deepseek-v3").params
    assert layer({**v3, "ffn": 1024}, 1)["mlp.experts.down_proj"].k == 1024


def test_gpt_of_megatron_is_plain_with_biases_learned_positions_and_a_padded_vocabulary() -> None:
    dims = {
        "name": "GPT-39.1B",
        "arch": "dense",
        "params_b": 39.1,
        "layers": 48,
        "hidden": 8192,
        "heads": 64,
        "kv_heads": 64,
        "ffn": 32768,
        "seq_len": 2048,
    }
    model = from_dims(dims)

    # arXiv:2104.04473, equation 2, with V = 51,200 and s = 2,048; the last norm adds 2h.
    assert model.params == 12 * 48 * 8192**2 + 13 * 48 * 8192 + (51200 + 2048) * 8192 + 2 * 8192
    assert "mlp.act" in layer(dims) and "mlp.gate_proj" not in layer(dims)


def test_gpt_unties_its_head_where_tied_misses_the_published_parameters() -> None:
    dims = {
        "name": "GPT-32B",
        "params_b": 32.0,
        "layers": 48,
        "hidden": 7168,
        "heads": 56,
        "kv_heads": 56,
        "ffn": 28672,
        "vocab": 131072,
        "seq_len": 4096,
    }

    assert from_dims(dims).params - from_dims({**dims, "params_b": None}).params == 131072 * 7168


def test_mpt_learns_positions_where_the_published_parameters_say_so() -> None:
    dims = {"name": "MPT-7b", "layers": 32, "hidden": 4096, "heads": 32, "ffn": 16384, "vocab": 50368, "seq_len": 65536}
    plain, learned = from_dims({**dims, "params_b": 6.65}), from_dims({**dims, "params_b": 6.919})

    assert learned.params - plain.params == 65536 * 4096
    assert plain.params == 50368 * 4096 + 32 * (12 * 4096**2 + 2 * 4096) + 4096  # no biases, tied


def test_palm_shares_one_key_value_head_and_runs_its_branches_in_parallel() -> None:
    """arXiv:2204.02311, table 1 and section 2: 540.35 B parameters."""
    dims = {"name": "PaLM-540B", "layers": 118, "hidden": 18432, "heads": 48, "kv_heads": 1, "head_dim": 256, "ffn": 73728, "vocab": 256000}

    assert from_dims(dims).params == pytest.approx(540.35e9, rel=2e-5)
    assert [name for name, op in layer(dims).items() if op.reduces] == ["mlp.down_proj"]


@pytest.mark.parametrize(("params_b", "gated"), [(64.0, True), (47.5, False)])
def test_an_unknown_line_is_gated_or_plain_by_its_parameters(params_b: float, gated: bool) -> None:
    dims = {"name": "MaxText-64B", "params_b": params_b, "layers": 64, "hidden": 8192, "heads": 64, "ffn": 28672, "vocab": 32000}

    assert ("mlp.gate_proj" in layer(dims)) is gated
    assert any("closest to the published" in note for note in from_dims(dims).notes)


@pytest.mark.parametrize(("ffn", "gated"), [(11008, True), (16384, False)])
def test_without_parameters_the_width_tells(ffn: int, gated: bool) -> None:
    dims = {"name": "Foo-7B", "layers": 4, "hidden": 4096, "heads": 32, "ffn": ffn, "vocab": 32000}

    assert ("mlp.gate_proj" in layer(dims)) is gated
    assert any("from its width" in note for note in from_dims(dims).notes)


@pytest.mark.parametrize("missing", ["layers", "hidden", "heads"])
def test_what_stays_unknown_is_named(missing: str) -> None:
    dims = {"name": "Foo-7B", "layers": 4, "hidden": 4096, "heads": 32, "ffn": 11008}
    with pytest.raises(MissingFact) as caught:
        from_dims({key: value for key, value in dims.items() if key != missing})

    assert caught.value.values["fields"] == missing


def test_an_unknown_mixture_needs_its_experts() -> None:
    with pytest.raises(MissingFact) as caught:
        from_dims({"name": "Foo-MoE", "arch": "moe", "layers": 4, "hidden": 4096, "heads": 32})

    assert caught.value.values["fields"] == "experts, topk"


@pytest.mark.parametrize(
    "dims",
    [
        {"layers": 0},
        {"layers": -3},
        {"layers": 10**9},
        {"hidden": "wide"},
        {"hidden": 4096.5},
        {"heads": True},
        {"params_b": 0},
        {"params_b": "7B"},
        {"arch": "huge"},
        {"seq_len": 0},
        {"heads": 31},
        {"kv_heads": 5},
        {"experts": 2, "topk": 3},
        {"name": 3},
    ],
)
def test_a_dim_that_cannot_be(dims: dict[str, Any]) -> None:
    with pytest.raises(BadValue):
        from_dims({"name": "Foo-7B", "layers": 4, "hidden": 4096, "heads": 32, "ffn": 11008, **dims})


def test_a_fixed_width_is_not_bent() -> None:
    with pytest.raises(BadValue) as caught:
        from_dims({"name": "bloom-7b1", "ffn": 10000})

    assert caught.value.code == "SP-MODEL-021"


def test_what_is_not_understood_is_told() -> None:
    assert any("num_towers" in note for note in from_dims({"name": "llama-2-7b", "num_towers": 3}).notes)


def test_llava_is_its_language_model() -> None:
    model = from_dims({"name": "LLaVA1.5-7B", "arch": "dense"})

    assert model.params == load("llama-2-7b").params + 2 * 64 * 4096  # 64 tokens more
    assert any("language model only" in note for note in model.notes)
