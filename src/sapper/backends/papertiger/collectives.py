"""Collectives of the chip: a backend of ``torch.distributed`` under a vendor's name (``hccl``) that Gloo carries out.

Gloo works on the host's view of the same bytes, so results are in place. Each call is done when it returns, save for sending
and receiving, which would wait for each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

import torch
from sapper.backends.papertiger import memory
from sapper.backends.papertiger.core import CHIP
from sapper.backends.trees import mapped, tensors_in


def register(name: str, device: str) -> None:
    """Make the backend ``name`` known, as the default one of ``device``; tensors of the CPU may pass too."""

    def make(store: Any, rank: int, size: int, timeout: Any) -> Group:
        return Group(name, store, (rank, size), timeout)

    dist.Backend.register_backend(name, make, devices=[device, "cpu"])
    dist.Backend.default_device_backend_map[device] = name


class Group(dist.ProcessGroup):
    """A process group of the chip."""

    def __init__(self, name: str, store: Any, place: tuple[int, int], timeout: Any) -> None:
        super().__init__(*place)
        self._own_name = name
        self._group_name = ""
        self._rank, self._size = place
        self._gloo: Any = dist.ProcessGroupGloo(store, *place, timeout=timeout)

    def getBackendName(self) -> str:
        """The vendor's name."""
        return self._own_name

    supports_splitting = False
    """Whether it connects at once where the program names the process's device."""

    def _get_backend(self, device: torch.device) -> Group:
        """What carries out collectives on ``device``: the group itself, for the chip and for the host."""
        if device.type not in (CHIP.device, "cpu"):
            raise RuntimeError(f"No backend type associated with device type {device.type}")
        return self

    def _set_group_name(self, name: str) -> None:
        self._group_name = name

    @property
    def group_name(self) -> str:
        """Under which functional collectives find it; PyTorch keeps it in backends, of which a group in Python has none."""
        return self._group_name

    def size(self) -> int:
        """Number of processes."""
        return self._size

    def rank(self) -> int:
        """Which of them this is."""
        return self._rank

    def _do(self, name: str, result: Any, *arguments: Any) -> Any:
        """One of Gloo's collectives on host views, waited for; ``result`` is what the future holds."""
        _refuse_dtypes(arguments)
        getattr(self._gloo, name)(*mapped(arguments, _view)).wait()
        return _done(result)

    def allreduce(self, tensors: Any, opts: Any = None) -> Any:
        """Reduce to all; means are sums divided, which Gloo does not do."""
        listed = [tensors] if isinstance(tensors, torch.Tensor) else list(tensors)
        opts = dist.AllreduceOptions() if opts is None else opts
        mean = _is_mean(opts)
        if mean:
            opts.reduceOp = dist.ReduceOp.SUM
        for tensor in listed:
            self._do("allreduce", listed, [tensor], opts)
            if mean:
                tensor.div_(self._size)
        return _done(listed)

    def allreduce_coalesced(self, tensors: Any, opts: Any = None) -> Any:
        """Several at once."""
        plain = dist.AllreduceOptions()
        if opts is not None:
            plain.reduceOp = opts.reduceOp
        return self.allreduce(tensors, plain)

    def broadcast(self, tensors: Any, opts: Any) -> Any:
        """From one to all."""
        return self._do("broadcast", tensors, tensors, opts)

    def reduce(self, tensors: Any, opts: Any) -> Any:
        """Reduce to one."""
        return self._do("reduce", tensors, tensors, opts)

    def allgather(self, outputs: Any, inputs: Any, opts: Any = None) -> Any:
        """Gather to all."""
        return self._do("allgather", outputs, outputs, inputs)

    def _allgather_base(self, output: torch.Tensor, given: torch.Tensor, opts: Any = None) -> Any:
        parts = list(output.view(-1).chunk(self._size))
        return self.allgather([parts], [given.reshape(-1)])

    def allgather_into_tensor_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> Any:
        """Several at once."""
        for output, given in zip(outputs, inputs, strict=True):
            self._allgather_base(output, given)
        return _done(outputs)

    def reduce_scatter(self, outputs: Any, inputs: Any, opts: Any = None) -> Any:
        """Reduce, and keep one's own part."""
        for output, parts in zip(outputs, inputs, strict=True):
            whole = torch.cat([part.reshape(-1) for part in parts])
            self._reduce_scatter_base(output, whole, opts)
        return _done(outputs)

    def _reduce_scatter_base(self, output: torch.Tensor, given: torch.Tensor, opts: Any = None) -> Any:
        whole = given.clone()
        plain = dist.AllreduceOptions()
        if opts is not None:
            plain.reduceOp = opts.reduceOp
        self.allreduce([whole], plain)
        output.copy_(whole.view(-1).chunk(self._size)[self._rank].view_as(output))
        return _done([output])

    def reduce_scatter_tensor_coalesced(self, outputs: Any, inputs: Any, opts: Any = None) -> Any:
        """Several at once."""
        for output, given in zip(outputs, inputs, strict=True):
            self._reduce_scatter_base(output, given, opts)
        return _done(outputs)

    all_gather_single = _allgather_base
    all_gather_single_coalesced = allgather_into_tensor_coalesced
    reduce_scatter_single = _reduce_scatter_base
    reduce_scatter_single_coalesced = reduce_scatter_tensor_coalesced

    def alltoall_base(self, output: torch.Tensor, given: torch.Tensor, *sizes_and_opts: Any) -> Any:
        """Each gives a part to each."""
        return self._do("alltoall_base", [output], output, given, *sizes_and_opts)

    all_to_all_single = alltoall_base

    def gather(self, outputs: Any, inputs: Any, opts: Any) -> Any:
        """Gather to one."""
        return self._do("gather", outputs, outputs, inputs, opts)

    def scatter(self, outputs: Any, inputs: Any, opts: Any) -> Any:
        """From one, a part to each."""
        return self._do("scatter", outputs, outputs, inputs, opts)

    def barrier(self, opts: Any = None) -> Any:
        """Wait for all."""
        self._gloo.barrier().wait()
        return _done([])

    def send(self, tensors: Any, dst: int, tag: int = 0) -> Any:
        """Send; the work is Gloo's own."""
        _refuse_dtypes(tensors)
        return self._gloo.send(mapped(tensors, _view), dst, tag)

    def recv(self, tensors: Any, src: int, tag: int = 0) -> Any:
        """Receive; the work is Gloo's own."""
        _refuse_dtypes(tensors)
        return self._gloo.recv(mapped(tensors, _view), src, tag)


def _view(leaf: Any) -> Any:
    return memory.host(leaf) if isinstance(leaf, torch.Tensor) else leaf


def _refuse_dtypes(values: Any) -> None:
    absent = CHIP.personality.collectives.absent_dtypes
    if absent:
        CHIP.refuse_absent_in_collectives([one.dtype for one in tensors_in(list(values)) if memory.on_device(one)])


def _is_mean(opts: Any) -> bool:
    return str(opts.reduceOp).rpartition(".")[2] == "AVG" or opts.reduceOp == dist.ReduceOp.AVG


def _done(result: Sequence[torch.Tensor] | Any) -> Any:
    future = torch.futures.Future()
    future.set_result(result)
    return torch._C._distributed_c10d._create_work_from_future(future)
