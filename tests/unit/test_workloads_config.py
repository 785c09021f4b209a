"""The loader: what it reads, what it refuses by name, what it says about defaults."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from sapper.errors import BadFile, SapperError, UnknownName
from sapper.workloads import Model, bundled, from_config, load
from sapper.workloads.families import registry
from sapper.workloads.notes import said
from support import ROOT

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 500,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
LLAMA_PARAMS = 2 * 500 * 64 + 64 + 3 * (2 * 64 + 64 * 64 * 2 + 2 * 64 * 16 + 3 * 64 * 160)


def read(**changes: Any) -> Model:
    return from_config({**LLAMA, **changes}, name="x", where="x.json")


def refused(code: str, **changes: Any) -> BadFile:
    with pytest.raises(BadFile) as caught:
        read(**changes)
    assert caught.value.code == code
    return caught.value


def test_a_file_and_its_folder_are_the_same_model(tmp_path: Path) -> None:
    folder = tmp_path / "my-llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    by_folder, by_file = load(folder), load(folder / "config.json")

    assert by_folder.params == by_file.params == LLAMA_PARAMS
    assert by_folder.name == by_file.name == "my-llama"
    assert by_file.source == str(folder / "config.json")


@pytest.mark.parametrize("name", ["qwen2.5-7b", "Qwen2.5-7B", "Qwen/Qwen2.5-7B", "QWEN2.5_7B"])
def test_a_bundled_name_in_any_case(name: str) -> None:
    assert load(name).source == "bundled:qwen2.5-7b"


def test_an_unknown_name_has_near_ones() -> None:
    with pytest.raises(UnknownName) as caught:
        load("qwen2.5-8b")

    assert "`qwen2.5-7b`" in str(caught.value)


@pytest.mark.parametrize(("name", "captured"), [("net.py:build", "net.py:build"), ("net.py", "net.py:BUILDER")])
def test_a_program_is_told_how_it_becomes_a_model(name: str, captured: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text("def build(): ...")
    with pytest.raises(UnknownName) as caught:
        load(name)

    assert caught.value.code == "SP-MODEL-023" and f"`sapper capture {captured} --out" in str(caught.value)


@pytest.mark.parametrize("name", ["", ".", "/", "\0", "no/such/config.json", "missing.json", "a" * 5000])
def test_a_path_that_leads_nowhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SapperError):
        load(name)


def test_a_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(BadFile) as caught:
        load(tmp_path)

    assert caught.value.code == "SP-MODEL-016"


def test_an_unknown_architecture_is_named_with_what_is_known() -> None:
    error = refused("SP-MODEL-001", model_type="lama")

    assert "`lama`" in str(error) and "`llama`" in str(error) and "deepseek_v3" in str(error)


def test_without_model_type_the_architecture_is_named() -> None:
    with pytest.raises(BadFile) as caught:
        from_config({"architectures": ["FooForCausalLM"]}, name="x", where="x.json")

    assert "FooForCausalLM" in str(caught.value)


def test_an_unknown_field_is_refused_by_name() -> None:
    error = refused("SP-MODEL-005", num_hidden_layer=3)

    assert "`num_hidden_layer`" in str(error) and "`num_hidden_layers`" in str(error)


@pytest.mark.parametrize("value", [None])
def test_an_unknown_field_of_null_says_nothing(value: None) -> None:
    assert read(some_new_thing=value).params == LLAMA_PARAMS


@pytest.mark.parametrize(
    "field",
    [
        "bos_token_id",
        "initializer_range",
        "torch_dtype",
        "dtype",
        "transformers_version",
        "use_cache",
        "rope_theta",
        "_name_or_path",
        "auto_map",
    ],
)
def test_fields_without_arithmetic_change_nothing(field: str) -> None:
    assert read(**{field: "anything"}).params == LLAMA_PARAMS


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("hidden_size", "64", "SP-MODEL-003"),
        ("hidden_size", 64.0, "SP-MODEL-003"),
        ("hidden_size", True, "SP-MODEL-003"),
        ("hidden_size", 0, "SP-MODEL-004"),
        ("hidden_size", -64, "SP-MODEL-004"),
        ("hidden_size", 10**12, "SP-MODEL-004"),
        ("num_hidden_layers", 10**6, "SP-MODEL-004"),
        ("hidden_size", 65, "SP-MODEL-008"),
        ("num_key_value_heads", 3, "SP-MODEL-008"),
        ("tie_word_embeddings", 1, "SP-MODEL-003"),
        ("hidden_act", 3, "SP-MODEL-003"),
        ("hidden_act", "swiglu", "SP-MODEL-004"),
        ("attention_dropout", 1.5, "SP-MODEL-004"),
        ("rope_scaling", "linear", "SP-MODEL-003"),
        ("partial_rotary_factor", 2, "SP-MODEL-004"),
    ],
)
def test_a_value_that_cannot_be(field: str, value: Any, code: str) -> None:
    error = refused(code, **{field: value})

    assert error.where is not None and error.where.startswith("x.json")


def test_the_equation_is_printed_where_a_division_leaves_a_rest() -> None:
    assert "64 / 7 leaves a rest of 1" in str(refused("SP-MODEL-008", num_attention_heads=7))


def test_an_absent_field_takes_the_librarys_default_and_says_so() -> None:
    config = {key: value for key, value in LLAMA.items() if key != "intermediate_size"}
    model = from_config(config, name="x", where="x.json")

    assert model.params == LLAMA_PARAMS + 3 * 3 * 64 * (11008 - 160)
    assert any("`intermediate_size` = 11008" in note for note in model.notes)
    assert "Transformers 的默认值" in said(model.notes[0], "zh")


def test_a_family_without_a_library_class_has_no_defaults() -> None:
    with pytest.raises(BadFile) as caught:
        from_config({"model_type": "baichuan", "hidden_size": 64}, name="x", where="x.json")

    assert caught.value.code == "SP-MODEL-002"


def test_null_and_absent_differ_where_the_library_says_so() -> None:
    config = json.loads(bundled()["mistral-7b"].read_text("utf-8"))
    absent = {key: value for key, value in config.items() if key != "sliding_window"}

    assert from_config({**config, "sliding_window": None}, name="x", where="x").layer_counts == {"full": 32}
    assert from_config(absent, name="x", where="x").layer_counts == {"sliding": 32}


def test_two_names_of_one_field_must_agree() -> None:
    gpt2 = {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "vocab_size": 100}

    assert from_config({**gpt2, "hidden_size": 64}, name="x", where="x").params == from_config(gpt2, name="x", where="x").params
    with pytest.raises(BadFile) as caught:
        from_config({**gpt2, "hidden_size": 128}, name="x", where="x")
    assert caught.value.code == "SP-MODEL-009"


@pytest.mark.parametrize(
    ("table", "dtype"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"), ({"quant_method": "mxfp4"}, "fp4"),
        ({"quant_method": "gptq", "bits": 8}, "int8"), ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4"),
        ({"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": {"type": "float", "num_bits": 8}}}}, "fp8"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "fp4"),
    ],
)
def test_quantised_weights_are_told_and_counted_unquantised(table: dict[str, Any], dtype: str) -> None:
    model = read(quantization_config=table)

    assert (model.weights_dtype, model.params) == (dtype, LLAMA_PARAMS)


@pytest.mark.parametrize(
    "table", [{}, [], "fp8", {"quant_method": "magic"}, {"quant_method": "gptq", "bits": 3}, {"quant_method": "compressed-tensors"}]
)
def test_an_unknown_quantisation_is_refused(table: Any) -> None:
    refused("SP-MODEL-017", quantization_config=table)


def test_infinity_in_a_published_config_is_read(tmp_path: Path) -> None:
    """Python writes it into JSON; Mamba's ``time_step_limit`` has it."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LLAMA, "bos_token_id": [0.0, float("inf"), float("-inf"), float("nan")]}))

    assert load(path).params == LLAMA_PARAMS


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"llama"', '{"model_type": }', "\udcff", "[" * 100_000])
def test_a_file_that_holds_no_config(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")

    with pytest.raises(BadFile):
        load(path)


def test_an_unpriced_variant_is_refused_by_name() -> None:
    with pytest.raises(BadFile) as caught:
        from_config({"model_type": "mpt", "d_model": 64, "n_heads": 4, "n_layers": 2, "attn_config": {"alibi": False}}, name="x", where="x")

    assert caught.value.code == "SP-MODEL-007" and "attn_config.alibi" in str(caught.value)


def test_a_vision_tower_is_named_as_not_priced() -> None:
    model = load("gemma-3-4b")

    assert "vision_tower" in model.unpriced
    assert "vision_tower" in model.workload(256).unpriced
    assert any("language model only" in note for note in model.notes)


def test_layer_types_must_name_every_layer() -> None:
    config = {**json.loads(bundled()["gemma-2-9b"].read_text("utf-8")), "num_hidden_layers": 3}

    assert from_config({**config, "layer_types": ["full_attention"] * 3}, name="x", where="x").layer_counts == {"full": 3}
    with pytest.raises(BadFile) as caught:
        from_config({**config, "layer_types": ["full_attention"] * 2}, name="x", where="x")
    assert caught.value.code == "SP-MODEL-006"


def test_the_family_of_another_package_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the code that docs/workloads.md shows."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "workloads.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "acme_sapper_family.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    entries = [metadata.EntryPoint(name, "acme_sapper_family:acme", "sapper.families") for name in ("acme", "llama")]
    monkeypatch.setattr(metadata, "entry_points", lambda group: entries if group == "sapper.families" else [])
    registry.cache_clear()
    try:
        config = {
            key: value
            for key, value in LLAMA.items()
            if key not in ("num_key_value_heads", "max_position_embeddings", "tie_word_embeddings")
        }
        model = from_config({**config, "model_type": "acme"}, name="x", where="x.json")
        assert model.params == LLAMA_PARAMS + 3 * 2 * 64 * 48  # as many key-value heads as query heads
        assert read().params == LLAMA_PARAMS  # a family of ours stays ours
        with pytest.raises(BadFile):
            from_config({**config, "model_type": "acme", "twist": 3}, name="x", where="x.json")
    finally:
        registry.cache_clear()
