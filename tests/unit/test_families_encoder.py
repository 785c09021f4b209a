"""bert and its kin: published parameter counts, arithmetic by hand, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sapper import workloads
from sapper.errors import BadFile, BadValue
from sapper.workloads.op import Workload

SMALL: dict[str, Any] = {
    "model_type": "bert", "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20, "vocab_size": 50,
    "max_position_embeddings": 16, "type_vocab_size": 2,
}


def read(**changes: Any) -> workloads.Model:
    return workloads.from_config(SMALL | changes, name="small", where="config.json")


def flops(workload: Workload) -> float:
    return workload.flops(convention="full")


@pytest.mark.parametrize(
    ("name", "params"),
    [
        # Published by the library for these checkpoints (masked-language models, tied output head, without pooler).
        ("bert-base-uncased", 109_514_298), ("bert-large-uncased", 335_174_458), ("roberta-base", 124_697_433),
        ("roberta-large", 355_412_057),
        ("distilbert-base-uncased", 66_985_530), ("albert-base-v2", 11_221_680),
    ],
)
def test_published_params(name, params):
    assert params == workloads.load(name).params


def test_flops_by_hand():
    h, ffn, t, vocab, layers = 12, 20, 8, 50, 2
    layer = 2 * t * (4 * h * h + 2 * h * ffn) + 2 * 2 * t * t * h
    head = 2 * t * (h * h + h * vocab)

    assert layers * layer + head == flops(read(architectures=["BertForMaskedLM"]).workload(t))


@pytest.mark.parametrize(
    ("architecture", "head_params"),
    [
        ("BertModel", 12 * 12 + 12),
        ("BertForMaskedLM", 12 * 12 + 12 + 2 * 12 + 50),
        ("BertForPreTraining", 2 * (12 * 12 + 12) + 2 * 12 + 50 + 2 * 12 + 2),
        ("BertForSequenceClassification", 12 * 12 + 12 + 5 * 12 + 5),
        ("BertForTokenClassification", 5 * 12 + 5),
    ],
)
def test_head_follows_the_architecture(architecture, head_params):
    labels = {"id2label": {str(i): f"L{i}" for i in range(5)}}
    model = read(architectures=[architecture], **labels)
    body = (50 + 16 + 2) * 12 + 24 + 2 * (4 * (144 + 12) + 2 * 12 * 20 + 20 + 12 + 48)

    assert body + head_params == model.params


def test_attention_is_two_sided_and_nothing_is_decoded():
    model = read()
    core = next(op for block in model.workload(8).blocks for op in block.ops if op.attention)

    assert core.attention is not None
    assert not core.attention.causal
    assert core.full_flops == core.flops
    with pytest.raises(BadValue):
        model.workload(8, purpose="decode")


def test_albert_shares_weights_but_not_work():
    raw = {
        "model_type": "albert", "hidden_size": 12, "embedding_size": 6, "num_attention_heads": 3, "intermediate_size": 20, "vocab_size": 50,
        "max_position_embeddings": 16, "num_hidden_groups": 1, "inner_group_num": 1,
    }
    one, many = (workloads.from_config(raw | {"num_hidden_layers": n}, name="a", where="config.json") for n in (1, 7))

    layer = flops(many.workload(8)) - flops(one.workload(8))

    assert one.params == many.params
    assert pytest.approx(6 * (2 * 8 * (4 * 144 + 2 * 12 * 20) + 4 * 64 * 12)) == layer


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["BertForNextSentencePrediction"]}, "BertForNextSentencePrediction"),
        ({"architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM"),
        ({"architectures": "BertModel"}, "architectures"),
        ({"architectures": []}, "architectures"),
        ({"hidden_size": 13}, "13 / 3"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"hidden_size": "12"}, "hidden_size"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"is_decoder": True}, "is_decoder"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_dropout_prob": 2}, "hidden_dropout_prob"),
        ({"num_labels": 0}, "num_labels"),
        ({"moe_every": 2}, "moe_every"),
    ],
)
def test_refused_by_name(changes, named):
    with pytest.raises(BadFile) as error:
        read(**changes)

    assert named in str(error.value)


def test_an_unnamed_architecture_is_told():
    assert any("BertForMaskedLM" in note for note in read().notes)
    assert not any("architectures" in note for note in read(architectures=["BertModel"]).notes)


def test_roberta_has_fewer_places_than_rows():
    assert workloads.load("roberta-base").max_positions == 512


def test_config_with_every_field_that_the_library_writes(tmp_path):
    raw = SMALL | {
        "architectures": ["BertForMaskedLM"], "attention_probs_dropout_prob": 0.1, "classifier_dropout": None, "dtype": "float32",
        "gradient_checkpointing": False, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0, "position_embedding_type": "absolute", "transformers_version": "5.0.0", "use_cache": True,
    }
    (tmp_path / "config.json").write_text(json.dumps(raw))

    assert read(architectures=["BertForMaskedLM"]).params == workloads.load(tmp_path).params
