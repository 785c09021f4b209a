"""Modules without data convert as others do."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from torch._subclasses.fake_tensor import unset_fake_temporarily

import torch
from sapper.programs.dataless import without_data
from torch import nn

pytestmark = pytest.mark.torch


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.steps, self.head = nn.Embedding(5, 4), nn.LSTM(4, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.words.weight
        self.register_buffer("scale", torch.ones(4))


@pytest.mark.parametrize(("dtype", "kept"), [(torch.float32, True), (torch.bfloat16, False)])
def test_a_module_without_data_converts_and_stays_tied(dtype: torch.dtype, kept: bool) -> None:
    with without_data():
        module = Tied().float()
        before = module.words.weight
        module = module.to("cpu").to(dtype)
        assert {one.dtype for one in (*module.parameters(), *module.buffers())} == {dtype}
        assert module.head.weight is module.words.weight and (module.words.weight is before) == kept
        assert isinstance(module.words.weight, nn.Parameter) and module.words.weight.requires_grad
        assert [one is two for one, two in zip(module.steps._flat_weights, module.steps.parameters(), strict=True)] == [True] * 4
        assert tuple(module.steps(torch.zeros(2, 3, 4, dtype=dtype))[0].shape) == (2, 3, 4)


def test_modules_with_data_convert_as_pytorch_does_meanwhile() -> None:
    module = nn.Linear(2, 2)
    weight = module.weight
    with without_data(), unset_fake_temporarily():
        module.double()
    assert module.weight is weight and weight.dtype == torch.float64
    module.float()
    assert module.weight is weight and weight.dtype == torch.float32
