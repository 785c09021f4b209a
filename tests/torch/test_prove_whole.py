"""A whole program as one computation, and its graph."""

from __future__ import annotations

from typing import Any

import pytest
from torch.nn import functional

import torch
from sapper.backends.computation import graph_of
from sapper.programs.program import Program
from sapper.prove.judge import judge
from sapper.prove.reference import refer
from sapper.prove.whole import whole
from torch import nn


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.unused = nn.Linear(16, 48), nn.Linear(16, 2)

    def forward(self, x: Any) -> Any:
        q, k, v = (one.view(*one.shape[:2], 2, 8).transpose(1, 2) for one in self.qkv(x).chunk(3, -1))
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def program(module: Any, inputs: Any) -> Program:
    torch.manual_seed(0)
    return Program(module=module, inputs=inputs, loss=lambda out: out.square().mean())


@pytest.mark.parametrize("decompose", [True, False])
@pytest.mark.parametrize(
    ("module", "shape"),
    [(Attention, (2, 6, 16)), (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (2, 3, 6, 6))],
    ids=["attention", "batch norm"],
)
def test_the_graph_of_forward_and_backward_computes_the_same(module: Any, shape: Any, decompose: bool) -> None:
    found = whole(program(module(), torch.randn(shape)), name="step").computation
    graph = graph_of(found, decompose=decompose)
    scores = judge(list(graph(*found.tensors)), refer(found, spreads=2), found.labels)
    assert {score.label: score.outcome for score in scores} == dict.fromkeys(found.labels, "ok")
    assert not any(node.target._schema.is_mutable for node in graph.graph.nodes if hasattr(node.target, "_schema"))


def test_a_weight_without_influence_has_no_gradient() -> None:
    found = whole(program(Attention(), torch.randn(2, 6, 16)), name="step")
    assert found.taught == ("qkv.weight", "qkv.bias")
    assert found.computation.labels == ("loss", "output 0", "grad qkv.weight", "grad qkv.bias")


def test_running_statistics_are_results_and_stay_as_they_were() -> None:
    module = nn.BatchNorm1d(3)
    found = whole(program(module, torch.randn(8, 3) + 5), name="step").computation
    after = dict(zip(found.labels, found(), strict=True))
    assert float(after["buffer running_mean"].detach().mean()) > 0.4 and int(after["buffer num_batches_tracked"]) == 1
    assert float(module.running_mean.abs().max()) == 0.0


def test_recurrent_layers_and_batch_norm_have_graphs_whose_ops_say_all_they_write() -> None:
    class Spoken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells, self.norm = nn.LSTM(4, 3, batch_first=True, bidirectional=True), nn.BatchNorm1d(6)

        def forward(self, x: Any) -> Any:
            return self.norm(self.cells(x)[0].transpose(1, 2))

    found = whole(program(Spoken(), torch.randn(2, 5, 4)), name="step").computation
    graph = graph_of(found, decompose=False)

    called = [node.target for node in graph.graph.nodes if isinstance(node.target, torch._ops.OpOverload)]
    assert torch.ops.aten.native_batch_norm.default not in called  # it changes statistics, and its schema does not say so
    assert torch.ops.aten._native_batch_norm_legit_functional.default in called
    for one, other in zip(graph(*found.tensors), found(), strict=True):
        torch.testing.assert_close(one, other)
