"""Parameter counts equal those of the Transformers library exactly.

Sapper reads the config.json that the library writes; the library builds the model on the meta device.
"""

from __future__ import annotations

import json
from pathlib import Path

import compare
import fake_trace
import pytest
from cases import Case, all_cases

from sapper import workloads
from sapper.workloads.families import registry

CASES = {case.model_type: case for case in all_cases()}
DRAWS = 6
BUNDLED = {name: path for name, path in workloads.bundled().items() if json.loads(path.read_text("utf-8"))["model_type"] in CASES}

NOT_IN_THE_LIBRARY = {
    # Code published with the model: there is no class here to build.
    "Yi", "aquila", "baichuan", "chatglm", "deepseek", "internlm", "internlm2", "minicpm", "pangu_ultra_moe", "qwen",
}
OTHER_NAMES = {
    # Read by the function of a family that is compared.
    "RefinedWeb", "RefinedWebModel", "kimi_k2",
}
LANGUAGE_MODEL_ONLY = {
    # The library's model has a vision tower, which a workload names as not priced; its language model is compared.
    "gemma3", "llama4", "llava", "llava_next", "mistral3", "qwen3_5", "qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe",
}


def test_every_family_is_compared_or_named_here():
    assert set(registry()) - set(CASES) == NOT_IN_THE_LIBRARY | OTHER_NAMES | LANGUAGE_MODEL_ONLY
    assert set(CASES) <= set(registry())


@pytest.mark.parametrize("index", range(DRAWS))
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_drawn(case: Case, index: int, tmp_path: Path):
    config = compare.draw(case, index)

    with compare.quiet():
        expected = fake_trace.count_params(config)

    assert expected == workloads.load(compare.written(config, tmp_path)).params


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_defaults_of_the_config_class(case: Case, tmp_path: Path):
    config = compare.real_config(case, case.architectures[0], case.defaults)

    with compare.quiet():
        expected = fake_trace.count_params(config)

    assert expected == workloads.load(compare.written(config, tmp_path)).params


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled(name: str):
    case = CASES[json.loads(BUNDLED[name].read_text("utf-8"))["model_type"]]

    with compare.quiet():
        expected = fake_trace.count_params(compare.bundled_config(case, BUNDLED[name]))

    assert expected == workloads.load(name).params


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_as_the_library_would_write_it(name: str, tmp_path: Path):
    case = CASES[json.loads(BUNDLED[name].read_text("utf-8"))["model_type"]]
    config = compare.bundled_config(case, BUNDLED[name])

    assert workloads.load(name).params == workloads.load(compare.written(config, tmp_path)).params


@pytest.mark.parametrize(
    ("config_class", "model_type", "inner"),
    [
        ("Gemma3Config", "gemma3_text", "gemma3_text"), ("Llama4Config", "llama4_text", "llama4_text"), ("LlavaConfig", "llama", "llama"),
        ("LlavaNextConfig", "mistral", "mistral"), ("Mistral3Config", "mistral", "mistral"),
        ("Qwen3_5Config", "qwen3_5_text", "qwen3_5_text"),
        ("Qwen3_5MoeConfig", "qwen3_5_moe_text", "qwen3_5_moe_text"), ("Qwen3VLConfig", "qwen3", "qwen3_vl_text"),
        ("Qwen3VLMoeConfig", "qwen3_moe", "qwen3_vl_moe_text"),
    ],
)
def test_language_model_of_a_config_with_a_vision_tower(config_class: str, model_type: str, inner: str, tmp_path: Path):
    text = compare.draw(CASES[model_type], 0)
    with compare.quiet():
        whole = getattr(compare.transformers, config_class)(
            text_config=text.to_dict() | {"model_type": inner}, tie_word_embeddings=text.tie_word_embeddings,
        )
        expected = fake_trace.count_params(text)

    model = workloads.load(compare.written(whole, tmp_path))

    assert expected == model.params
    assert "vision_tower" in model.unpriced
