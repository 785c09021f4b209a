"""Vision transformers: patches as an implicit GEMM, one fixed length, heads by architecture."""

from __future__ import annotations

from typing import Any

import pytest

from sapper import workloads
from sapper.errors import BadFile, BadValue

SMALL: dict[str, Any] = {
    "model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 12, "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20, "image_size": 32, "patch_size": 8, "num_channels": 3, "num_labels": 10,
}


def read(**changes: Any) -> workloads.Model:
    return workloads.from_config(SMALL | changes, name="small", where="config.json")


@pytest.mark.parametrize(
    ("name", "params", "tokens"),
    [
        ("vit-base-patch16-224", 86_567_656, 197), ("vit-large-patch16-224", 304_326_632, 197),
        ("vit-huge-patch14-224-in21k", 632_404_480, 257),
        ("dinov2-large", 304_368_640, 1370),
    ],
)
def test_published_params_and_tokens(name, params, tokens):
    model = workloads.load(name)

    assert (params, tokens) == (model.params, model.workload().tokens_per_sequence)


def test_flops_by_hand():
    h, ffn, patches, tokens = 12, 20, 16, 17
    layer = 2 * tokens * (4 * h * h + 2 * h * ffn) + 4 * tokens * tokens * h

    assert 2 * patches * h * 3 * 8 * 8 + 2 * layer + 2 * h * 10 == read().workload().flops()


def test_patches_are_an_implicit_gemm():
    conv = next(op for block in read().workload().blocks for op in block.ops if op.kind == "conv")

    assert (conv.m, conv.n, conv.k) == (16, 12, 3 * 8 * 8)
    assert conv.params == 12 * 3 * 8 * 8 + 12


def test_other_lengths_are_refused():
    assert read().workload(17).seq_len == 17
    with pytest.raises(BadValue):
        read().workload(512)


def test_images_need_not_be_square():
    assert read(image_size=[32, 64]).workload().tokens_per_sequence == 4 * 8 + 1
    assert read(image_size=[32, 64], patch_size=[8, 16]).workload().tokens_per_sequence == 4 * 4 + 1


def test_deit_has_a_distillation_token_and_a_second_head():
    one = read(model_type="deit", architectures=["DeiTForImageClassification"])
    two = read(model_type="deit", architectures=["DeiTForImageClassificationWithTeacher"])

    assert one.workload().tokens_per_sequence == 18
    assert two.params - one.params == 10 * 12 + 10
    assert one.params - read().params == 2 * 12  # the token and its place


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["ViTForMaskedImageModeling"]}, "ViTForMaskedImageModeling"), ({"patch_size": 64}, "patch_size"),
        ({"patch_size": 0}, "patch_size"),
        ({"image_size": [32]}, "image_size"), ({"image_size": [32, "a"]}, "image_size"), ({"image_size": {"height": 32}}, "image_size"),
        ({"num_channels": None, "hidden_size": 13}, "13 / 3"), ({"window": 7}, "window"),
    ],
)
def test_refused_by_name(changes, named):
    with pytest.raises(BadFile) as error:
        read(**changes)

    assert named in str(error.value)
