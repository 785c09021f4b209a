"""Any device of PyTorch by its name: ``npu``, ``cuda:1``, ``torch:npu``, ``torch:mychip@torch_mychip``.

A vendor's plug-in is imported when the device is used. Whether it can be is tried in a process of its own first, since a
plug-in without its driver may break or end the process that imports it.
"""

from __future__ import annotations

import importlib
import re
from typing import TYPE_CHECKING, Any

from sapper.backends.base import Backend, Executable, Missing
from sapper.backends.devices import AUTOLOAD_VARIABLE, DeviceType, device_types, installed
from sapper.backends.trial import Trial, try_device
from sapper.errors import BadValue
from sapper.messages import Phrase

if TYPE_CHECKING:
    from sapper.backends.computation import Computation

_SPEC = re.compile(r"(?P<kind>[a-z][a-z0-9_]*)(?::(?P<index>\d+))?(?:@(?P<module>[A-Za-z_][\w.]*))?")
DEFAULT = "cpu"


class TorchDevice(Backend):
    """One device of PyTorch."""

    kind = "device"

    def __init__(self, detail: str | None, *, name: str) -> None:
        found = _SPEC.fullmatch(detail or DEFAULT)
        if found is None:
            raise BadValue("SP-DEVICE-001", where="--on", value=detail)
        self.name = name
        self.type: str = found["kind"]
        self.index: str = found["index"] or ""
        self.entry: DeviceType | None = device_types().get(self.type)
        self.modules = (found["module"],) if found["module"] else self._known_modules()

    def _known_modules(self) -> tuple[str, ...]:
        """The one that is installed of those that bring the device, else the first."""
        known = self.entry.modules if self.entry else ()
        return next(((one,) for one in known if installed(one)), known[:1])

    def missing(self) -> Missing | None:
        without = without_torch()
        if without is not None or self.type == "cpu":
            return without
        for module in self.modules:
            if not installed(module):
                problem = str(Phrase("device.no_module", module=module, device=self.type))
                return Missing(problem=problem, remedy=self.entry.install if self.entry else None)
        trial = self._trial()
        return None if trial.problem is None else Missing(problem=str(self._problem(trial)))

    def _problem(self, trial: Trial) -> Phrase:
        if trial.stage == "plugin":
            return Phrase("device.plugin", module=trial.module, problem=trial.problem, variable=AUTOLOAD_VARIABLE)
        return Phrase("device.torch" if trial.stage in ("start", "torch") else "device.none", device=self.type, problem=trial.problem)

    def _trial(self) -> Trial:
        return try_device(self.type, self.index, modules=self.modules)

    def versions(self) -> dict[str, str]:
        if self.type == "cpu":
            import torch

            return {"torch": str(torch.__version__), "device": str(torch.backends.cpu.get_cpu_capability())}
        trial = self._trial()
        return trial.versions | ({"device": trial.name} if trial.name else {})

    def device(self) -> Any:
        import torch

        for module in self.modules:
            importlib.import_module(module)
        return torch.device(f"{self.type}:{self.index}" if self.index else self.type)

    def prepare(self, computation: Computation) -> Executable:
        from sapper.backends.on_device import DeviceRun

        return DeviceRun(computation, self.device())


def without_torch() -> Missing | None:
    """What is missing where PyTorch is not installed."""
    if not installed("torch"):
        return Missing(problem=str(Phrase("device.no_torch")), remedy="pip install torch")
    return None


def open(detail: str | None, *, name: str | None = None) -> TorchDevice:
    """The backend of a device; ``name`` is what the user called it by, where that is not ``torch:DETAIL``."""
    return TorchDevice(detail, name=name or (f"torch:{detail}" if detail else "torch"))
