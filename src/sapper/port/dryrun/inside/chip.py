"""The emulated chip in the user's process: registered under the vendor's name, and counted."""

from __future__ import annotations

import functools
import itertools
import os
import sys
from typing import Any

import msgspec
from torch.utils._python_dispatch import TorchDispatchMode

import torch
from sapper.backends import papertiger
from sapper.backends.papertiger.op_kinds import facts_of
from sapper.port.dryrun.inside import frames, journal
from sapper.port.dryrun.session import Note, Outcome, Stack, current

INTERNAL = "papertiger"
"""Name of the chip's device where PyTorch does not let a plug-in bear the vendor's."""
_ON_HOST: dict[str, int] = {}


def internal_name() -> str:
    """Device type that PyTorch knows the chip by."""
    stack = current().stack
    return stack.device if stack.native else INTERNAL


def install(stack: Stack, *, processes: int) -> None:
    """Plug the chip in; each process of a node sees as many devices as there are processes."""
    own = papertiger.load(stack.personality)
    papertiger.install(msgspec.structs.replace(own, device=internal_name(), devices=max(own.devices, processes)))
    papertiger.chip().watcher = _lacking
    _count_host_ops()
    os.register_at_fork(after_in_child=_forget)


def module() -> Any:
    """The chip's module, ``torch.npu``."""
    return getattr(torch, internal_name())


def launches() -> int:
    """How many ops have run on the chip so far."""
    return papertiger.chip().counters.total()


def _forget() -> None:
    """A forked child begins with counters of its own."""
    papertiger.chip().counters.reset()
    _ON_HOST.clear()


def tell() -> None:
    """Write the counters down."""
    counters = papertiger.chip().counters
    on_chip = {name.removeprefix("aten::"): count for name, count in counters.launched.items()}
    record = {"on_chip": on_chip, "on_host": dict(_ON_HOST), "copied_in": counters.copied_in, "copied_out": counters.copied_out}
    journal.JOURNAL.write("ops", record)


def _lacking(kind: str, name: str, error: Exception | None) -> bool:
    """The chip is asked for something that it lacks: recorded; done all the same unless the run is a strict one."""
    where = journal.seen(through_torch=True) or frames.Where("", 0, 0, "")
    if kind == "unplayed":
        journal.JOURNAL.remark(Note("unplayed", {"op": name, "place": f"{where.path}:{where.line}"}))
        return False
    says = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}" if error else None
    outcome: Outcome = "lacks" if error else "silent"
    journal.JOURNAL.touch("chip", f"{kind}:{name.removeprefix('aten::')}", outcome=outcome, where=where, says=says)
    return error is not None and not current().strict


class _HostOps(TorchDispatchMode):
    """Counts what is computed on the CPU; tensors of the chip pass by."""

    def __init__(self) -> None:
        super().__init__()
        self.next_telling = itertools.accumulate(itertools.repeat(2), lambda before, factor: before * factor, initial=512)
        self.until = next(self.next_telling)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else PyTorch imports its compiler for the first op, which takes seconds

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tracer = sys.gettrace()
        sys.settrace(None)  # below here there are no lines of the program's, and following ours would take most of the time
        try:
            found = func(*args, **(kwargs or {}))
        finally:
            sys.settrace(tracer)
        if isinstance(found, torch.Tensor) and found.device.type == "cpu" and _computes(func) and not _is_scalar(found, args):
            _ON_HOST[func.overloadpacket.__name__] = _ON_HOST.get(func.overloadpacket.__name__, 0) + 1
        self.until -= 1
        if not self.until:
            self.until = next(self.next_telling)
            tell()
        return found


_NO_WORK = frozenset({
    "_to_copy", "copy_", "clone", "detach", "empty", "empty_like", "empty_strided", "zeros", "ones", "full", "zeros_like",
    "ones_like", "arange", "randperm", "random_", "set_", "resize_", "lift_fresh", "lift_fresh_copy", "alias", "stack", "cat",
    "index", "select_backward", "randint", "scalar_tensor", "fill_", "zero_", "normal_", "uniform_", "randn", "rand", "is_same_size",
    "pin_memory", "_pin_memory",
})  # fmt: skip
"""Ops by which data are made, loaded and put together, which belong on the CPU; the rest is computing."""


@functools.cache
def _computes(func: Any) -> bool:
    return facts_of(func).launches and func.overloadpacket.__name__ not in _NO_WORK


def _is_scalar(found: torch.Tensor, args: Any) -> bool:
    """Whether only a single number was computed from single numbers, such as an optimizer's count of steps."""
    return found.dim() == 0 and not any(isinstance(one, torch.Tensor) and one.dim() for one in args)


def _count_host_ops() -> None:
    mode = _HostOps()
    mode.__enter__()
    journal.JOURNAL.at_end(lambda: None if sys.is_finalizing() else _leave(mode))


def _leave(mode: _HostOps) -> None:
    from torch.utils._python_dispatch import _get_current_dispatch_mode

    if _get_current_dispatch_mode() is mode:
        mode.__exit__(None, None, None)
