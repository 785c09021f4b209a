"""Running a computation on a device of PyTorch, and the evidence that the device did it."""

from __future__ import annotations

import functools
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

import torch
from sapper.backends.base import Executed, Unsupported
from sapper.backends.computation import Computation
from sapper.backends.trees import tensors_in

REFUSALS = ("could not run", "not implemented", "not support", "unsupported", "not currently implemented")
"""Words by which stacks say that they lack an op or a dtype."""
FALLBACK_WORDS = ("fall back to run on the cpu", "fallback to cpu", "fall back to cpu", "falling back to cpu", "will be executed on cpu")
"""Words by which plug-ins say that an op runs on the host."""
KEYS = {"cuda": "CUDA", "xpu": "XPU", "mps": "MPS", "hpu": "HPU", "xla": "XLA", "cpu": "CPU", "mtia": "MTIA"}
"""Dispatch keys of the device types that PyTorch has itself; a plug-in's is PrivateUse1."""
GENERAL = ("CompositeExplicitAutograd", "CompositeImplicitAutograd")
"""Kernels of PyTorch that call other ops, and so need none of the device."""


class DeviceRun:
    """A computation on a device."""

    def __init__(self, computation: Computation, device: torch.device) -> None:
        self.computation = computation
        self.device = device
        self._executed: Executed | None = None

    def __call__(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        with warnings.catch_warnings(record=True) as said, Dispatched(self.device) as dispatched:
            warnings.simplefilter("always")
            found = run_on(self.device, self.computation, tensors)
        spoken = {str(one.message).strip().splitlines()[0][:200] for one in said if spoke_of_fallback(str(one.message))}
        bare = dispatched.without_kernel()
        named = {name for one in spoken for name in re.findall(r"aten::\w+(?:\.\w+)?", one)}
        facts = {"said": " | ".join(sorted(spoken))} if spoken else {}
        if bare:
            facts["without kernel"] = " ".join(sorted(bare))
        self._executed = Executed(
            where=str(self.device), ops=sum(dispatched.seen.values()),
            fallbacks=tuple(sorted({*bare, *named} if spoken else ())), facts=facts,
        )  # fmt: skip
        return found

    def executed(self) -> Executed | None:
        """Evidence of the last call."""
        return self._executed


def run_on(device: Any, computation: Computation, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Run a computation on a device; its outputs on the CPU, waited for.

    Raises:
        Unsupported: The device refuses an op or a dtype.
    """
    try:
        found = computation([one.to(device) for one in tensors])
        return [one.detach().cpu() for one in found]
    except RuntimeError as error:
        if refuses(error):
            raise Unsupported(str(error).partition("\n\n")[0]) from error
        raise


def refuses(error: RuntimeError) -> bool:
    """Whether an error says that the stack lacks an op or a dtype; else it is a failure."""
    said = str(error).lower()
    return isinstance(error, NotImplementedError) or any(words in said for words in REFUSALS)


def spoke_of_fallback(said: str) -> bool:
    """Whether a warning says that an op ran on the host."""
    said = said.lower()
    return any(words in said for words in FALLBACK_WORDS)


DESCRIBING = frozenset({
    "as_strided_", "empty_like", "new_empty", "new_empty_strided", "resize_", "resize_as_", "set_", "squeeze_", "swapaxes_", "swapdims_",
    "t_", "transpose_", "unsqueeze_",
})  # fmt: skip
"""Ops that change a tensor's description, or make one, and compute no value."""


def must_launch(func: Any, given: Sequence[torch.Tensor], *, returned: Any, device: str) -> bool:
    """Whether an op that has run must have run a kernel on the device: it made or changed values there from values there.

    Args:
        func: The ``OpOverload``.
        given: Tensors among its arguments.
        returned: What it gave.
        device: Type of the device.
    """
    name = func._schema.name.partition("::")[2]
    if func.is_view or name in DESCRIBING or not given:
        return False
    if any(one.device.type != device and (one.dim() or "copy" in name) for one in given):
        return False  # a transfer, or an op that takes tensors of the host too
    storages = set() if func._schema.is_mutable else {one.untyped_storage()._cdata for one in given}
    made = (one for one in tensors_in(returned) if one.device.type == device and one.numel())
    return any(one.untyped_storage()._cdata not in storages for one in made)


class Dispatched(TorchDispatchMode):
    """Notes which ops go to a device."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.type = device.type
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        out = result[0] if isinstance(result, (tuple, list)) and result else result
        if isinstance(out, torch.Tensor) and out.device.type == self.type:
            self.seen[func.name()] += 1
        return result

    def without_kernel(self) -> list[str]:
        """Ops for which the device has no kernel, so that the dispatcher's fallback took them: often the host."""
        key = KEYS.get(self.type, "PrivateUse1")
        return [name for name in self.seen if not _has_kernel(name, key)]


@functools.cache
def _has_kernel(name: str, key: str) -> bool:
    """Whether any form of an op has a kernel for a key: PyTorch calls the form with ``out`` for the others."""
    space, _, base = name.partition(".")[0].partition("::")
    packet = getattr(getattr(torch.ops, space), base)
    forms = [f"{space}::{base}.{one}" if one != "default" else f"{space}::{base}" for one in packet.overloads()]
    has = torch._C._dispatch_has_kernel_for_dispatch_key
    known = [form for form in forms if form in _all_ops()]  # overloads of TorchScript are not the dispatcher's
    return any(has(form, key) for form in known) or any(has(name, general) for general in GENERAL)


@functools.cache
def _all_ops() -> frozenset[str]:
    return frozenset(torch._C._dispatch_get_all_op_names())
