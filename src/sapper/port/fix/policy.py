"""What takes CUDA's place in a file: an expression for the device's name, for a function of ``torch.cuda``, for the backend.

Three styles: the project's own helper (:mod:`sapper.port.fix.helper`), ``torch.accelerator``, and a file written into the
project (``data/sapper_device.py.txt``). What a style has no expression for is left, and shown.
"""

from __future__ import annotations

from typing import Literal, Protocol

from sapper.port.fix.change import Expression, Need

Style = Literal["auto", "helper", "accelerator", "file"]
STYLES: tuple[Style, ...] = ("auto", "helper", "accelerator", "file")

HELPER_FILE = "sapper_device"
"""Module that the style ``file`` writes."""

RENAMED = {
    "memory_cached": "memory_reserved",
    "max_memory_cached": "max_memory_reserved",
    "reset_max_memory_allocated": "reset_peak_memory_stats",
    "reset_max_memory_cached": "reset_peak_memory_stats",
}
"""Functions of ``torch.cuda`` whose names PyTorch deprecates, and the name it gives them."""


class Policy(Protocol):
    """What a rewriter asks for. Names are those of ``torch.cuda``, such as ``synchronize``."""

    falls_to_cpu: bool
    """Whether the device's type is ``cpu``, and the backend Gloo, where there is no accelerator."""

    def device_type(self) -> Expression:
        """The device's type as a string: ``cuda``, ``npu``, ..., ``cpu``."""
        ...

    def member(self, name: str) -> Expression | None:
        """What stands for ``torch.cuda.<name>``."""
        ...

    def module(self) -> Expression:
        """What stands for ``torch.cuda`` itself."""
        ...

    def backend(self) -> Expression | None:
        """Name of the backend of collectives."""
        ...

    def on_accelerator(self) -> Expression | None:
        """A function that says whether a tensor is on the accelerator; None where the style has none."""
        ...

    def current(self, *, as_device: bool) -> Expression:
        """What stands for ``torch.cuda.current_device()``; ``as_device`` where a device is wanted and no number."""
        ...


_TORCH = Need("import torch", "torch")

_SINCE_2_6 = {"is_available", "device_count", "current_stream", "set_stream", "synchronize"}
_SINCE_2_9 = {
    "empty_cache", "memory_stats", "memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved",
    "reset_accumulated_memory_stats", "reset_peak_memory_stats",
}  # fmt: skip
_OTHER_NAMES = {"current_device": "current_device_index", "set_device": "set_device_index"}


class Accelerator:
    """``torch.accelerator``, and ``torch.get_device_module()`` for what it lacks."""

    falls_to_cpu = True

    def __init__(self, *, constant: str = "DEVICE_TYPE") -> None:
        self.constant = constant
        """Name of the module-level constant that holds the device's type; free in the file."""

    def device_type(self) -> Expression:
        """A constant of the module: ``current_accelerator()`` is None where there is none, and that means the CPU."""
        choice = 'torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"'
        prelude = Need(f"{self.constant} = {choice}", self.constant, after_torch=True)
        return Expression(self.constant, (_TORCH, prelude), (2, 6))

    def member(self, name: str) -> Expression | None:
        """A function of ``torch.accelerator``, else of the device's own module."""
        if name in _SINCE_2_6:
            return Expression(f"torch.accelerator.{name}", (_TORCH,), (2, 6))
        if name in _SINCE_2_9:
            return Expression(f"torch.accelerator.{name}", (_TORCH,), (2, 9))
        if name in _OTHER_NAMES:
            return Expression(f"torch.accelerator.{_OTHER_NAMES[name]}", (_TORCH,), (2, 7))
        return Expression(f"torch.get_device_module().{name}", (_TORCH,), (2, 5))

    def module(self) -> Expression:
        """The device's own module."""
        return Expression("torch.get_device_module()", (_TORCH,), (2, 5))

    def backend(self) -> Expression | None:
        """As PyTorch knows it for the device's type."""
        device = self.device_type()
        text = f"torch.distributed.get_default_backend_for_device({device.text})"
        return Expression(text, device.needs, (2, 6))

    def on_accelerator(self) -> Expression | None:
        """None: a comparison of the device's type says it."""
        return None

    def current(self, *, as_device: bool) -> Expression:
        """As a device the type alone: PyTorch takes it for the current one of that type, and it is right on the CPU too."""
        return self.device_type() if as_device else Expression("torch.accelerator.current_device_index()", (_TORCH,), (2, 7))


class OwnFile:
    """The helper file that ``fix`` writes."""

    falls_to_cpu = True

    def __init__(self, package: str | None) -> None:
        statement = f"from {package} import {HELPER_FILE}" if package else f"import {HELPER_FILE}"
        self._needs = (Need(statement, HELPER_FILE),)

    def device_type(self) -> Expression:
        """A call of the helper."""
        return self._of("device_type()")

    def member(self, name: str) -> Expression | None:
        """The helper passes on what it does not define."""
        return self._of(name)

    def module(self) -> Expression:
        """The module that stands for ``torch.cuda``."""
        return self._of("device_module()")

    def backend(self) -> Expression | None:
        """A call of the helper."""
        return self._of("backend()")

    def on_accelerator(self) -> Expression | None:
        """A function of the helper."""
        return self._of("is_accelerator")

    def current(self, *, as_device: bool) -> Expression:
        """The helper's, which is the CPU where there is no accelerator."""
        return self._of("current_device()")

    def _of(self, member: str) -> Expression:
        return Expression(f"{HELPER_FILE}.{member}", self._needs)
