"""A model cut over a tensor parallel group computes what one device computes, with equal and unequal shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from worlds import Place, world

import torch
from sapper.errors import BadPlan
from sapper.mix.run.cuts import Rule, deal
from sapper.mix.run.tensor import own_plan, shard
from torch import nn

SMALL = {"vocab_size": 64, "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "max_position_embeddings": 32}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {
        "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 4, "attention_bias": True, "mlp_bias": True,
        "tie_word_embeddings": True,
    },
    "phi3": {"num_attention_heads": 6, "num_key_value_heads": 3, "pad_token_id": 0, "eos_token_id": 1},
    "gpt_neox": {"num_attention_heads": 6, "hidden_act": "gelu"},
    "qwen3_moe": {
        "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 4, "num_experts": 4, "num_experts_per_tok": 2,
        "moe_intermediate_size": 12, "decoder_sparse_step": 1,
    },
}  # fmt: skip


def model_of(name: str) -> nn.Module:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **SMALL | MODELS[name])
    config._experts_implementation = "eager"  # the grouped product has no fp64
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").double()


class Plain(nn.Module):
    """No model of a library."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.down = nn.Linear(8, 10), nn.Linear(10, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x).relu())


def run(module: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    if isinstance(module, Plain):
        x = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(3, 8)
        loss = module(x).square().mean()
    else:
        ids = torch.arange(2 * 9).reshape(2, 9) * 7 % 64
        loss = module(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.detach(), {name: one.grad for name, one in module.named_parameters() if one.grad is not None}


def compare(name: str, group: Any, weights: list[float] | None) -> dict[str, float]:
    def build() -> nn.Module:
        return Plain().double() if name == "plain" else model_of(name)

    loss, truth = run(build())
    module = build()
    plan = {"up": "colwise", "down": "rowwise"} if name == "plain" else own_plan(module)
    cuts = shard(module, plan, group=group, weights=weights)
    found_loss, found = run(module)
    worst = 0.0
    for one, gradient in found.items():
        whole = truth[one]
        if one in cuts:
            held = cuts[one]
            whole = torch.cat([whole.narrow(held.dim, a, b - a) for a, b in held.ranges], held.dim)
            assert tuple(gradient.shape) == held.local_shape
        worst = max(worst, float((gradient - whole).abs().max() / truth[one].abs().max()))
    return {"loss": float(abs(found_loss - loss)), "gradient": worst, "cut": len(cuts), "weights": len(found) - len(truth)}


def shards(place: Place) -> dict[str, dict[str, float]]:
    comm = place.join(2)
    assert comm is not None
    group = comm.group((0, 1), purpose="tensor")
    return {f"{name} {weights}": compare(name, group, weights) for name in ["plain", *MODELS] for weights in (None, [2.0, 1.0])}


@pytest.mark.slow
def test_equal_and_unequal_shards_of_any_model_equal_one_device(tmp_path: Path) -> None:
    for answer in world(2, shards, folder=tmp_path):
        for name, one in answer.items():
            # Routers of mixtures of experts choose by an fp32 softmax whatever the dtype.
            band = 1e-6 if "moe" in name else 1e-12
            assert one["loss"] <= band and one["gradient"] <= band and one["cut"] and not one["weights"], (name, one)


class OneOfTwo:
    """A group whose other member is not needed."""

    def size(self) -> int:
        return 2

    def rank(self) -> int:
        return 1


def test_what_cannot_be_cut_is_refused_with_its_name() -> None:
    group = OneOfTwo()
    with pytest.raises(BadPlan, match="up: the tensor parallel style `columns` is not known"):
        shard(Plain(), {"up": "columns"}, group=group)
    with pytest.raises(BadPlan, match="`Plain` brings no tensor parallel plan"):
        shard(Plain(), {}, group=group)
    with pytest.raises(BadPlan, match="nothing in `Plain` can be cut"):
        shard(Plain(), {"layers.*.up": "colwise"}, group=group)
    with pytest.raises(BadPlan, match=r"self_attn\.k_proj: 4 elements in 1 whole units cannot be cut over 2 chips"):
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(**SMALL | {"num_attention_heads": 6, "num_key_value_heads": 1, "head_dim": 4})
        shard(LlamaForCausalLM(config), {"model.layers.*.self_attn.k_proj": "colwise"}, group=group)
    module = Plain()
    module.drop = nn.Dropout(0.1)
    with pytest.raises(BadPlan, match=r"dropout 0\.1 inside"):
        shard(module, {"up": "colwise"}, group=group)


def test_units_are_dealt_in_proportion_and_none_goes_without() -> None:
    assert deal(10, 4) == [3, 3, 2, 2]
    assert deal(8, 2, weights=[3.0, 1.0]) == [6, 2]
    assert deal(7, 3, weights=[100.0, 1.0, 1.0]) == [5, 1, 1]
    packed = Rule(1, 5, (2, 20, 3), packed=2).cut(2, 1)
    assert packed.ranges == ((6, 10), (16, 20)) and packed.local_shape == (2, 8, 3)
