"""Papertiger as programs use a device: streams, generators, pinned memory, ``torch.accelerator``, dispatch modes, collectives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from sapper.backends import papertiger  # noqa: E402
from sapper.backends.papertiger.personality import Absent, Collectives, Memory, Personality  # noqa: E402

DEVICE = "papertiger"


@pytest.fixture(autouse=True)
def honest() -> Iterator[None]:
    papertiger.install(Personality(devices=2))
    torch.manual_seed(0)
    yield
    papertiger.install(Personality())


def test_streams_and_events() -> None:
    stream, begin, end = torch.papertiger.Stream(), torch.papertiger.Event(enable_timing=True), torch.Event(enable_timing=True)
    begin.record()
    with torch.papertiger.stream(stream):
        torch.ones(3, device=DEVICE).record_stream(stream)
    end.record(stream)
    end.synchronize()
    stream.wait_event(begin)
    assert begin.elapsed_time(end) >= 0 and end.query() and isinstance(stream.record_event(), torch.Event)
    assert isinstance(torch.accelerator.current_stream(), torch.Stream)
    with pytest.raises(ValueError, match="must be recorded"):
        torch.papertiger.Event().elapsed_time(end)


def test_a_generator_of_the_device_draws_the_same_again() -> None:
    def drawn(seed: int) -> torch.Tensor:
        return torch.randn(4, device=DEVICE, generator=torch.Generator(device=DEVICE).manual_seed(seed)).cpu()

    assert torch.equal(drawn(3), drawn(3)) and not torch.equal(drawn(3), drawn(4))
    assert torch.Generator(device=DEVICE).device == torch.device(DEVICE, 0) and torch.Generator().device.type == "cpu"
    assert isinstance(torch.default_generator, torch.Generator)


def test_pinned_memory_and_a_chip_without_it() -> None:
    plain = torch.arange(4.0)
    pinned = plain.pin_memory()
    assert pinned.is_pinned() and not plain.is_pinned() and torch.equal(pinned, plain)
    loader = DataLoader(TensorDataset(plain), batch_size=2, pin_memory=True)
    assert all(batch.is_pinned() for (batch,) in loader)
    papertiger.install(Personality(memory=Memory(pinned=False)))
    assert not plain.pin_memory().is_pinned()


def test_the_accelerator_tells_memory_and_selects_devices() -> None:
    before = torch.accelerator.memory_allocated()
    held = torch.zeros(1024, device=DEVICE)
    assert torch.accelerator.memory_allocated() - before == held.nbytes
    assert torch.accelerator.max_memory_allocated() >= torch.accelerator.memory_allocated()
    torch.accelerator.empty_cache()
    torch.accelerator.set_device_index(1)
    assert (torch.accelerator.device_count(), torch.accelerator.current_device_index(), torch.papertiger.current_device()) == (2, 1, 1)
    with torch.accelerator.device_index(0):
        assert torch.papertiger.current_device() == 0
    with pytest.raises(RuntimeError, match="invalid device ordinal 2"):
        torch.papertiger.set_device(2)


def test_it_works_beneath_dispatch_modes() -> None:
    with FlopCounterMode(display=False) as counter:
        made = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=DEVICE)
        assert made[[1, 0]].cpu().tolist() == [[3.0, 4.0], [1.0, 2.0]]
        made @ made
    assert counter.get_total_flops() == 16


def test_data_parallel_on_one_device() -> None:
    model = torch.nn.DataParallel(torch.nn.Linear(4, 2).to(DEVICE), device_ids=[0])
    assert model(torch.ones(3, 4, device=DEVICE)).shape == (3, 2)


def test_it_prints_without_fp64_and_refuses_what_it_lacks() -> None:
    papertiger.install(Personality(absent=Absent(dtypes=("float64",), op_dtypes={"aten::mm": ("bfloat16",)})))
    assert "1.5000" in repr(torch.full((2,), 1.5, device=DEVICE))
    with pytest.raises(RuntimeError, match="aten::mm of bfloat16"):
        torch.ones(2, 2, device=DEVICE, dtype=torch.bfloat16) @ torch.ones(2, 2, device=DEVICE, dtype=torch.bfloat16)
    told: list[tuple[str, str]] = []

    def watcher(kind: str, name: str, error: Exception | None) -> bool:
        told.append((kind, name))
        return True

    papertiger.chip().watcher = watcher
    try:
        assert torch.ones(2, device=DEVICE, dtype=torch.float64).sum().item() == 2.0
    finally:
        papertiger.chip().watcher = None
    assert ("dtype", "torch.float64") in told


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    from sapper.backends.papertiger import collectives

    if "tigerccl" not in torch.distributed.Backend.backend_list:
        collectives.register("tigerccl", DEVICE)
    torch.distributed.init_process_group("tigerccl", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PyTorch renames its functions
def test_collectives_work_in_place_on_tensors_of_the_device(group: None) -> None:
    dist = torch.distributed
    one = torch.arange(4.0, device=DEVICE)
    dist.all_reduce(one, op=dist.ReduceOp.AVG)
    gathered, scattered = torch.zeros(4, device=DEVICE), torch.zeros(4, device=DEVICE)
    dist.all_gather_into_tensor(gathered, one)
    dist.reduce_scatter_tensor(scattered, one)
    listed = [torch.zeros(4, device=DEVICE)]
    dist.all_gather(listed, one)
    dist.broadcast(one, 0)
    dist.barrier()
    assert all(each.cpu().tolist() == [0.0, 1.0, 2.0, 3.0] for each in (one, gathered, scattered, listed[0]))
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1).to(DEVICE))
    model(one).sum().backward()
    assert model.module.weight.grad.device.type == DEVICE
    papertiger.install(Personality(collectives=Collectives(absent_dtypes=("int64",))))
    with pytest.raises(RuntimeError, match=r"collectives of torch\.int64"):
        dist.all_reduce(torch.ones(2, dtype=torch.int64, device=DEVICE))


class Refusing(TorchDispatchMode):
    """A mode that raises at an op."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.tanh_backward.default:
            raise KeyError("from the mode")
        return func(*args, **(kwargs or {}))


class Refused(torch.autograd.Function):
    """An op whose gradient raises."""

    @staticmethod
    def forward(ctx: Any, given: torch.Tensor) -> torch.Tensor:
        return given.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise KeyError("from the function")


def test_what_python_code_raises_in_a_backward_pass_arrives_as_it_is() -> None:
    """PyTorch's own guard of devices written in Python ends the process there."""
    given = torch.ones(3, device=DEVICE, requires_grad=True)

    def refuse(_: torch.Tensor) -> None:
        raise KeyError("from the hook")

    hooked = given * 3
    hooked.register_hook(refuse)
    recomputed = checkpoint(lambda one: Refused.apply(one.sin()), given, use_reentrant=True)
    losses = {"function": Refused.apply(given), "hook": hooked, "mode": given.tanh()}
    for where, loss in losses.items():
        with pytest.raises(KeyError, match=f"from the {where}"), Refusing():
            torch.autograd.grad(loss.sum(), given)
    with pytest.raises(KeyError, match="from the function"):
        recomputed.sum().backward()
    (gradient,) = torch.autograd.grad((given * 2).sum(), given)
    assert gradient.cpu().tolist() == [2, 2, 2]
