"""One op as every proof sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

import torch
from sapper.prove.call import Call, overload
from sapper.prove.stored import Unkept


class Seen(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Call, list[torch.Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = Call.of(func, args, kwargs)
        got = func(*args, **(kwargs or {}))
        outputs = [one.clone() for one in torch.utils._pytree.tree_leaves(got) if isinstance(one, torch.Tensor)]
        self.calls.append((call.kept(), outputs))
        return got


def seen(program: Callable[[], object]) -> list[tuple[Call, list[torch.Tensor]]]:
    torch.manual_seed(0)
    with Seen() as mode:
        program()
    return mode.calls


def training_step() -> None:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.ReLU(inplace=True), torch.nn.Flatten(), torch.nn.Linear(48, 5)
    )
    loss = torch.nn.functional.cross_entropy(net(torch.rand(2, 2, 6, 6)), torch.tensor([1, 3]))
    loss.backward()
    with torch.no_grad():
        for one in net.parameters():
            one.sub_(one.grad, alpha=0.1)
    torch.split(torch.arange(7.0).expand(2, 7).t(), 3)
    torch.zeros(3).masked_fill(torch.tensor([True, False, True]), float("-inf")).to(torch.bfloat16).topk(2)


def test_a_call_kept_in_a_file_gives_what_the_program_had() -> None:
    calls = [(call, got) for call, got in seen(training_step) if call.nature == "values"]
    assert len({call.op for call, _ in calls}) > 20
    for call, got in calls:
        again = Call.from_bytes(call.to_bytes())
        assert again.form() == call.form() and again.id == call.id
        assert [one.stride() for one in again.tensors] == [one.stride() for one in call.tensors]
        computation = again.computation()
        outputs = computation()
        assert len(outputs) == len(computation.labels), call
        for one, other in zip(outputs, got, strict=False):
            assert torch.equal(one, other), call


def test_running_a_call_changes_none_of_its_inputs_and_returns_what_the_op_changed() -> None:
    call = Call.of(torch.ops.aten.add_.Tensor, (torch.ones(3), torch.ones(3)), {"alpha": 2})
    assert [one.tolist() for one in call.run()] == [[3.0] * 3]
    assert call.tensors[0].tolist() == [1.0] * 3
    norm = Call.of(torch.ops.aten.native_batch_norm.default, (torch.rand(4, 2), None, None, torch.zeros(2), torch.ones(2), True, 0.5, 1e-5))
    assert norm.labels == ("value", "value 1", "value 2", "changed running_mean", "changed running_var")
    assert norm.run()[3].abs().sum() > 0 and norm.tensors[1].tolist() == [0, 0]
    listed = Call.of(torch.ops.aten._foreach_add_.Scalar, ([torch.ones(2), torch.ones(1)], 1))
    assert listed.labels == ("changed self 0", "changed self 1") and listed.run()[0].tolist() == [2, 2]


def test_devices_are_left_out_and_taken_from_the_inputs() -> None:
    call = Call.of(torch.ops.aten.arange.default, (5,), {"device": torch.device("cpu"), "pin_memory": False})
    assert "device" not in str(call.form())
    assert call.run([torch.empty(0, device="meta")])[0].device.type == "meta"
    assert call.computation()()[0].tolist() == [0, 1, 2, 3, 4]


def test_the_id_is_of_shapes_dtypes_and_attributes_and_not_of_values() -> None:
    def softmax(tensor: torch.Tensor, dim: int) -> str:
        return Call.of(torch.ops.aten._softmax.default, (tensor, dim, False)).id

    assert softmax(torch.rand(2, 3), 1) == softmax(torch.rand(2, 3), 1)
    others = {softmax(torch.rand(2, 3), 0), softmax(torch.rand(3, 3), 1), softmax(torch.rand(2, 3).double(), 1)}
    assert len(others | {softmax(torch.rand(2, 3), 1)}) == 4


def test_what_cannot_be_compared_by_value_says_so() -> None:
    assert Call.of(torch.ops.aten.bernoulli.default, (torch.rand(3),)).nature == "random"
    assert Call.of(torch.ops.aten.empty.memory_format, ([3],)).nature == "uninitialised"
    with pytest.raises(Unkept):
        Call.of(torch.ops.aten.add.Tensor, (torch.eye(2).to_sparse(), torch.eye(2)))


def test_a_file_that_holds_no_call_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nonsense of more than eight bytes")
    with pytest.raises(Unkept):
        Call.load(tmp_path / "x")
    with pytest.raises(KeyError):
        overload("aten::no_such_op")


@pytest.mark.parametrize(("dropout", "nature"), [((), "values"), ((0.0,), "values"), ((0.5,), "random")])
def test_attention_that_drops_nothing_has_values_to_judge(dropout: tuple[float, ...], nature: str) -> None:
    query = torch.randn(1, 2, 4, 8)

    call = Call.of(torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default, (query, query, query, *dropout))

    assert call.nature == nature
