"""What takes CUDA's place in a file: an expression for the device's name, for a function of ``torch.cuda``, for the backend.

Three styles: the project's own helper (:mod:`sapper.port.fix.helper`), ``torch.accelerator``, and a file written into the
project (``data/sapper_device.py.txt``). What a style has no expression for is left, and shown.
"""

from __future__ import annotations

import ast
import functools
from typing import Literal, NamedTuple, Protocol

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
    answers: frozenset[str]
    """Names of ``torch.cuda`` that it answers for itself where a vendor's module has none."""

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

_DEVICE_TYPE = """\
if hasattr(torch, "accelerator"):  # PyTorch 2.6 and newer
    {name} = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
    {name} = "cpu" if {name} == "mps" else {name}  # torch.mps has few of the functions of torch.cuda
else:
    {name} = "cuda" if torch.cuda.is_available() else "cpu"  # sapper: keep SP-PORT-101, SP-PORT-201"""
"""``current_accelerator()`` names the device of the build even where there is none, so it is asked only where there is one."""

_DEVICE_MODULE = '{name} = torch.cuda if {type} == "cpu" else getattr(torch, {type})  # sapper: keep SP-PORT-180'
"""Functions of ``torch.cuda`` answer on the CPU as they did; what stands for them elsewhere is there in every PyTorch, where
``torch.accelerator`` got its memory functions in 2.9 and has neither seeds nor streams nor names."""

_BACKEND = """\
{name} = {{"cuda": "nccl", "cpu": "gloo"}}.get({type})  # sapper: keep SP-PORT-212, SP-PORT-401
{name} = {name} or torch.distributed.get_default_backend_for_device({type})"""


class Constants(NamedTuple):
    """Names of module-level constants that the style ``accelerator`` writes; free in the file."""

    device_type: str = "DEVICE_TYPE"
    device_module: str = "DEVICE_MODULE"
    backend: str = "DISTRIBUTED_BACKEND"


PLAIN = Constants()
PREFIXED = Constants(*(f"SAPPER_{name}" for name in PLAIN))
"""For a file that has a name of ``PLAIN`` for something else."""


class Accelerator:
    """Constants at the top of the file, from ``torch.accelerator`` where PyTorch has it."""

    falls_to_cpu = True
    answers: frozenset[str] = frozenset()

    def __init__(self, *, constants: Constants = PLAIN) -> None:
        self._names = constants

    def device_type(self) -> Expression:
        """A constant of the module, ``cpu`` where there is no accelerator."""
        name = self._names.device_type
        return Expression(name, (_TORCH, Need(_DEVICE_TYPE.format(name=name), name, after_torch=True)))

    def member(self, name: str) -> Expression | None:
        """A function of the device's own module."""
        module = self.module()
        return Expression(f"{module.text}.{name}", module.needs)

    def module(self) -> Expression:
        """The device's own module; ``torch.cuda`` where there is no accelerator."""
        return self._constant(self._names.device_module, _DEVICE_MODULE)

    def backend(self) -> Expression | None:
        """As PyTorch knows it for the device's type."""
        return self._constant(self._names.backend, _BACKEND)

    def on_accelerator(self) -> Expression | None:
        """None: a comparison of the device's type says it."""
        return None

    def current(self, *, as_device: bool) -> Expression:
        """As a device the type alone: PyTorch takes it for the current one of that type, and it is right on the CPU too."""
        module = self.module()
        return self.device_type() if as_device else Expression(f"{module.text}.current_device()", module.needs)

    def needs(self) -> list[Need]:
        """The statements of all constants."""
        found = (self.device_type(), self.module(), self._constant(self._names.backend, _BACKEND))
        return [expression.needs[-1] for expression in found]

    def _constant(self, name: str, template: str) -> Expression:
        """One that rests on the device's type."""
        device = self.device_type()
        need = Need(template.format(name=name, type=device.text), name, after_torch=True)
        return Expression(name, (*device.needs, need))


@functools.cache
def written() -> frozenset[str]:
    """Syntax of the statements that define the constants, by which a later run knows them."""
    needs = [need for names in (PLAIN, PREFIXED) for need in Accelerator(constants=names).needs()]
    return frozenset(ast.dump(node) for need in needs for node in ast.parse(need.statement).body)


class OwnFile:
    """The helper file that ``fix`` writes."""

    falls_to_cpu = True
    answers = frozenset({"init", "ipc_collect", "memory_summary"})

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
