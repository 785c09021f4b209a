"""The device: which plug-in brings it, how to wait for it, what it calls itself."""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
from typing import Any, NamedTuple

from sapper.probe.parts.talk import Refusal, first_line, phrase


class DeviceKind(NamedTuple):
    """What is known of a device name of PyTorch."""

    plugins: tuple[str, ...] = ()
    """Modules that bring the device; the first that can be imported is enough."""
    needed: bool = True
    """Whether there is no such device without a plug-in."""
    backends: tuple[str, ...] = ()
    """Backends of torch.distributed, best first."""
    tool: tuple[str, ...] = ()
    """Command that tells driver, clocks and power limit."""


DEVICES: dict[str, DeviceKind] = {
    "cuda": DeviceKind(backends=("nccl",), tool=(
        "nvidia-smi", "--query-gpu=name,driver_version,power.limit,clocks.max.sm,clocks.applications.graphics", "--format=csv",
    )),
    "npu": DeviceKind(plugins=("torch_npu",), backends=("hccl",), tool=("npu-smi", "info")),
    "musa": DeviceKind(plugins=("torch_musa",), backends=("mccl",), tool=("mthreads-gmi",)),
    "mlu": DeviceKind(plugins=("torch_mlu",), backends=("cncl",), tool=("cnmon",)),
    "gcu": DeviceKind(plugins=("torch_gcu",), backends=("eccl",), tool=("efsmi",)),
    "sdaa": DeviceKind(plugins=("torch_sdaa",), backends=("tccl",), tool=("teco-smi",)),
    "xpu": DeviceKind(plugins=("intel_extension_for_pytorch",), needed=False, backends=("xccl", "ccl"), tool=("xpu-smi", "discovery")),
    "hpu": DeviceKind(plugins=("habana_frameworks.torch.core",), backends=("hccl",), tool=("hl-smi",)),
    "xla": DeviceKind(plugins=("torch_xla.core.xla_model",)),
    "cpu": DeviceKind(backends=("gloo",)),
}  # fmt: skip

SETTINGS = (
    "CUDA_", "NCCL_", "HIP_", "ROC", "ASCEND_", "HCCL_", "MUSA_", "MCCL_", "MLU_", "CNCL_", "GCU_", "TOPS_", "ECCL_", "PT_HPU_",
    "XLA_", "PJRT_", "ZE_", "CCL_", "PYTORCH_", "TORCH_", "OMP_", "MKL_", "OPENBLAS_", "GOMP_", "KMP_",
)  # fmt: skip
"""Beginnings of names of environment variables that change what is measured."""


def import_torch() -> Any:
    """PyTorch.

    Raises:
        Refusal: It is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module("torch")
    except ImportError as error:
        raise Refusal(phrase("no_torch", problem=first_line(error))) from error


class Device:
    """One kind of device, addressed by ``name`` and an index."""

    def __init__(self, torch: Any, name: str, *, plugin: str | None = None, index: int = 0) -> None:
        self.torch, self.name, self.index = torch, name, index
        self.kind = DEVICES.get(name, DeviceKind(plugins=("torch_" + name,), needed=False))
        self.plugin = self._import_plugin(plugin)
        self.module: Any = getattr(torch, name, None)
        self._use_index()
        self._check()

    def _import_plugin(self, named: str | None) -> Any:
        problems = []
        for module in (named,) if named else self.kind.plugins:
            try:
                return importlib.import_module(str(module))
            except ImportError as error:
                problems.append(first_line(error))
            except Exception as error:  # a plug-in whose driver is missing raises whatever it likes
                raise Refusal(phrase("plugin_fails", device=self.name, module=module, problem=first_line(error))) from error
        if named or (problems and self.kind.needed):
            raise Refusal(phrase("no_plugin", device=self.name, module=named or self.kind.plugins[0], problem="; ".join(problems)))
        return None

    def _use_index(self) -> None:
        if self.name not in ("cpu", "xla", "hpu") and hasattr(self.module, "set_device"):
            try:
                self.module.set_device(self.index)
            except Exception as error:
                raise Refusal(self._absent(first_line(error))) from error

    def _check(self) -> None:
        """One real addition on the device.

        Raises:
            Refusal: There is no such device here.
        """
        try:
            self.place: Any = self.plugin.xla_device() if self.name == "xla" else self.torch.device(self._address())
            two = self.torch.ones(1, device=self.place) + 1
            self.synchronize()
            if float(two.cpu()[0]) != 2.0:
                raise Refusal(phrase("wrong_sum", device=self.name, sum=float(two.cpu()[0])))
        except Refusal:
            raise
        except Exception as error:
            raise Refusal(self._absent(first_line(error))) from error

    def _absent(self, problem: str) -> str:
        hint = "hint_" + self.name if self.name in DEVICES else "hint_other"
        return phrase("no_device", device=self.name, problem=problem, hint=phrase(hint, device=self.name))

    def _address(self) -> str:
        return self.name if self.name in ("cpu", "hpu") else f"{self.name}:{self.index}"

    def step(self) -> None:
        """Hand over what a lazy device has gathered, so that no work is merged or dropped."""
        if self.name in ("xla", "hpu") and hasattr(self.plugin, "mark_step"):
            self.plugin.mark_step()

    def synchronize(self) -> None:
        """Wait until the device has done all work."""
        self.step()
        if self.name == "xla":
            self.plugin.wait_device_ops()
        elif self.name != "cpu":
            if hasattr(self.module, "synchronize"):
                self.module.synchronize()
            elif hasattr(self.torch, "accelerator"):
                self.torch.accelerator.synchronize()
            else:
                self.torch.ones(1, device=self.place).cpu()

    def forget(self) -> None:
        """Give cached memory back, so that a case that ran out of it does not starve the next."""
        if hasattr(self.module, "empty_cache"):
            self.module.empty_cache()

    def count(self) -> int:
        """How many such devices this machine has."""
        if self.name in ("cpu", "xla"):
            return 1
        try:
            return int(self.module.device_count())
        except Exception:
            return 1

    def title(self) -> str:
        """What the device calls itself."""
        if self.name == "cpu":
            return cpu_name()
        try:
            return str(self.module.get_device_name(self.index) if self.name != "hpu" else self.module.get_device_name())
        except Exception:
            return self.name

    def memory_bytes(self) -> float | None:
        """Memory of the device; None where the plug-in does not say."""
        try:
            if self.name == "cpu":
                return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
            return float(self.module.get_device_properties(self.index).total_memory)
        except Exception:
            return None

    def stack(self) -> str:
        """Software with versions, such as ``torch 2.8.0, torch_npu 2.8.0, python 3.10.12``."""
        parts = ["torch " + str(self.torch.__version__)]
        if self.plugin is not None:
            package = self.plugin.__name__.split(".")[0]
            parts.append("{} {}".format(package, getattr(importlib.import_module(package), "__version__", "?")))
        for label, value in (("cuda", self.torch.version.cuda), ("hip", getattr(self.torch.version, "hip", None))):
            if value:
                parts.append(f"{label} {value}")
        return ", ".join([*parts, "python " + platform.python_version()])

    def tool(self) -> str | None:
        """What the vendor's tool says of driver, clocks and power limit; None without one."""
        if not self.kind.tool:
            return None
        try:
            done = subprocess.run(self.kind.tool, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode("utf-8", "replace")[:3000]


def cpu_name() -> str:
    """The processor as the system names it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.lower().startswith(("model name", "hardware", "cpu model")):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def settings() -> dict[str, str]:
    """Environment variables that change what is measured."""
    return {key: value for key, value in sorted(os.environ.items()) if key.startswith(SETTINGS)}
