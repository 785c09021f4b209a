"""t5 and its kin: published counts, the two lengths of a sequence, what decode leaves out."""

from __future__ import annotations

from typing import Any

import pytest

from sapper import workloads
from sapper.errors import BadFile
from sapper.workloads.families.seq2seq import target_len

SMALL: dict[str, Any] = {
    "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 12, "d_kv": 5, "d_ff": 20, "num_heads": 3,
    "num_layers": 2,
    "num_decoder_layers": 3, "vocab_size": 50, "relative_attention_num_buckets": 8,
}


def read(**changes: Any) -> workloads.Model:
    return workloads.from_config(SMALL | changes, name="small", where="config.json")


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("t5-small", 60_506_624), ("t5-base", 222_903_552), ("t5-large", 737_668_096), ("t5-3b", 2_851_598_336), ("t5-11b", 11_307_321_344),
        ("flan-t5-xl", 2_783_959_040), ("flan-t5-xxl", 11_003_736_064),
    ],
)
def test_published_params(name, params):
    assert params == workloads.load(name).params


def test_flops_by_hand():
    s, t, h, inner, ffn, vocab = 32, 8, 12, 15, 20, 50
    encoder = 2 * s * (4 * h * inner + 2 * h * ffn) + 4 * s * s * inner
    decoder = 2 * t * (6 * h * inner + 2 * h * ffn) + 2 * s * 2 * h * inner + 4 * t * t * inner + 4 * t * s * inner

    assert 2 * encoder + 3 * decoder + 2 * t * h * vocab == read().workload(s).flops(convention="full")


def test_gated_feed_forward_has_three_matrices():
    assert read(feed_forward_proj="gated-gelu").params - read().params == (2 + 3) * 12 * 20


def test_lengths_are_stated_and_counted():
    model = read()

    assert target_len(512) == 128
    assert target_len(1) == 1
    assert model.workload(512).tokens_per_sequence == 512 + 128
    assert any("T/4" in note for note in model.notes)


def test_only_the_decoder_masks():
    cores = [op for block in read().workload(32).blocks for op in block.ops if op.attention]

    # Two runs a stack: the first layer has the position biases.
    assert [
        (op.attention.causal, op.attention.q_len, op.attention.kv_len) for op in cores if op.attention
    ] == [(False, 32, 32)] * 2 + [(True, 8, 8), (False, 8, 32)] * 2


def test_decode_runs_one_decoder_token_and_owns_every_weight():
    model = read()
    decode = model.workload(32, purpose="decode")

    assert model.params == decode.params
    assert decode.tokens_per_sequence == 1
    assert all(op.flops == 0 for block in decode.blocks if block.name.startswith("encoder") for op in block.ops)
    assert decode.flops(convention="full") == 3 * (2 * (6 * 12 * 15 + 2 * 12 * 20) + 4 * 15 * (8 + 32)) + 2 * 12 * 50


def test_encoder_alone():
    model = read(architectures=["T5EncoderModel"])
    full = read()

    assert model.workload(32).tokens_per_sequence == 32
    assert not any(block.name.startswith("decoder") for block in model.workload(32).blocks)
    assert model.params < full.params


def test_untied_head_is_told():
    assert any("holds 600 weights" in note for note in read(tie_word_embeddings=False).notes)
    assert read(tie_word_embeddings=False).params == read().params


def test_umt5_has_biases_in_each_layer():
    shared = workloads.from_config(
        SMALL | {"model_type": "mt5", "architectures": ["MT5Model"], "feed_forward_proj": "relu"}, name="a", where="a",
    )
    each = workloads.from_config(
        SMALL | {"model_type": "umt5", "architectures": ["UMT5Model"], "feed_forward_proj": "relu"}, name="b", where="b",
    )

    assert each.params - shared.params == (1 + 2) * 8 * 3


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"architectures": ["T5ForTokenClassification"]}, "T5ForTokenClassification"), ({"d_model": 0}, "d_model"),
        ({"num_decoder_layers": "3"}, "num_decoder_layers"),
        ({"feed_forward_proj": 3}, "feed_forward_proj"), ({"dropout_rate": -1}, "dropout_rate"), ({"experts": 8}, "experts"),
    ],
)
def test_refused_by_name(changes, named):
    with pytest.raises(BadFile) as error:
        read(**changes)

    assert named in str(error.value)
