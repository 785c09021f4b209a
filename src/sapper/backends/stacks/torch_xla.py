"""torch_xla: a device of PyTorch whose ops are gathered lazily and compiled by XLA, through PJRT.

The option chooses PJRT's device, ``cpu`` by default; ``tpu``, ``cuda`` and ``neuron`` where they are installed. PJRT_DEVICE, where
it is set, has the last word.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sapper.backends.base import Backend, Executable, Executed, Missing
from sapper.backends.packages import installed, missing_packages, options_of

if TYPE_CHECKING:
    from sapper.backends.computation import Computation

PINNED = ("torch==2.9.0", "torch_xla==2.9.0")


class TorchXla(Backend):
    """The device ``xla``."""

    kind = "device"

    def __init__(self, detail: str | None) -> None:
        options = options_of(detail, known=("cpu", "tpu", "cuda", "neuron"), backend="torch-xla")
        self.name = f"torch-xla:{detail}" if detail else "torch-xla"
        self._pjrt = min(options, default="cpu").upper()

    def missing(self) -> Missing | None:
        return missing_packages(PINNED)

    def versions(self) -> dict[str, str]:
        return installed(PINNED)

    def device(self) -> Any:
        os.environ.setdefault("PJRT_DEVICE", self._pjrt)
        import torch_xla

        return torch_xla.device()

    def prepare(self, computation: Computation) -> Executable:
        return _Run(computation, self)


class _Run:
    """A computation on the device, with what torch_xla's counters say of it."""

    def __init__(self, computation: Computation, backend: TorchXla) -> None:
        self._computation = computation
        self._backend = backend
        self._counted: dict[str, int] | None = None
        self._executions = 0

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        from sapper.backends.on_device import run_on

        device = self._backend.device()
        import torch_xla
        from torch_xla.debug import metrics

        before, ran = _counters(), (metrics.metric_data("ExecuteTime") or (0,))[0]
        found = run_on(device, self._computation, tensors)
        torch_xla.sync(wait=True)
        self._counted = {name: count - before.get(name, 0) for name, count in _counters().items() if count > before.get(name, 0)}
        self._executions = (metrics.metric_data("ExecuteTime") or (0,))[0] - ran
        return found

    def executed(self) -> Executed | None:
        if self._counted is None:
            return None
        from torch_xla import runtime

        ops = sum(count for name, count in self._counted.items() if name.startswith("xla::"))
        fallbacks = tuple(sorted(name for name in self._counted if name.startswith("aten::")))
        facts = {"compilations": str(self._counted.get("UncachedCompile", 0)), "executions": str(self._executions)}
        return Executed(where=f"xla:{runtime.device_type()}", ops=ops, fallbacks=fallbacks, facts=facts)


def _counters() -> dict[str, int]:
    from torch_xla.debug import metrics

    return {name: metrics.counter_value(name) for name in metrics.counter_names()}


def open(detail: str | None = None) -> TorchXla:
    """torch_xla on PJRT's device of ``detail``."""
    return TorchXla(detail)
