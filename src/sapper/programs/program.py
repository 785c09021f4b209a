"""The builder contract: what ``file.py:build`` may return, and how it becomes a module with inputs and a loss.

``build`` takes no arguments, or any of ``batch`` and ``seq``. It returns a module, ``(module, inputs)``,
``(module, inputs, loss)`` or a dict with these keys. Capture runs it on fake tensors, which have shapes and no data; prove on
real ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.autograd.grad_mode import _unsafe_preserve_version_counter

import torch
from sapper.errors import BadFile, BadValue
from sapper.programs import faults

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "fp64": torch.float64}
"""Dtypes that weights and inputs can be cast to."""
KEYS = ("module", "inputs", "loss", "name", "seq", "tokens", "tp_plan")
_KINDS: dict[str, Any] = {"loss": Callable, "name": str, "seq": Integral, "tokens": Integral, "tp_plan": dict}
"""What a builder may leave out, by what it has to be otherwise."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A module with what it is called with."""

    module: Any
    inputs: Any
    """A tensor, a tuple of positional or a dict of keyword arguments."""
    loss: Callable[..., Any] | None = None
    name: str = ""
    seq: int | None = None
    """Tokens of a sample."""
    tokens: int | None = None
    """Tokens that a sample counts as in tokens/s."""
    tp_plan: dict[str, str] | None = None

    def call(self) -> Any:
        """The forward pass."""
        if isinstance(self.inputs, dict):
            return self.module(**self.inputs)
        if isinstance(self.inputs, (tuple, list)):
            return self.module(*self.inputs)
        return self.module(self.inputs)

    def loss_of(self, output: Any) -> Any:
        """The scalar that is differentiated: the builder's loss, the output's own, or the mean of its values.

        Raises:
            BadFile: The builder's loss returns something else.
        """
        if self.loss is not None:
            wants_inputs = len(inspect.signature(self.loss).parameters) > 1
            found = self.loss(output, self.inputs) if wants_inputs else self.loss(output)
            return found if isinstance(found, torch.Tensor) else self._told(found)
        own = own_loss(output)
        if own is not None:
            return own
        values = [tensor for tensor in tensors_in(output) if tensor.is_floating_point() or tensor.is_complex()]
        if not values:
            return None
        if len(values) == 1 and values[0].dim() == 0:
            return values[0]
        return sum(value.abs().mean() if value.is_complex() else value.float().mean() for value in values)


    def _told(self, found: Any) -> Any:
        """The loss among other things that the builder's loss tells."""
        own = own_loss(found)
        if own is None:
            raise BadFile("SP-PROG-020", where=self.name or getattr(self.loss, "__name__", "loss"))
        return own


def own_loss(output: Any) -> Any:
    """The loss in what a module returns: ``loss``, by key or attribute, or a scalar that comes first or alone; None: there is none."""
    own = output.get("loss") if isinstance(output, dict) else getattr(output, "loss", None)
    if own is None:
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        own = first if isinstance(first, torch.Tensor) and first.dim() == 0 and first.is_floating_point() else None
    return own if isinstance(own, torch.Tensor) else None


def tensors_in(value: Any) -> list[Any]:
    """The tensors inside nested tuples, lists and mappings."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict) or (hasattr(value, "values") and callable(value.values)):
        return [tensor for item in value.values() for tensor in tensors_in(item)]
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same nested tuples, lists and mappings with each tensor changed."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: mapped(item, change) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(item, change) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(mapped(item, change) for item in value)
    return value


def is_ordered(tensor: Any) -> bool:
    """Whether it holds integers that never fall from one to the next: positions, offsets of bags, boundaries of sequences."""
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool or not tensor.dim() or tensor.shape[-1] < 2:
        return False
    return bool((tensor[..., 1:] >= tensor[..., :-1]).all())


@contextlib.contextmanager
def buffers_kept(module: Any) -> Iterator[None]:
    """What runs change of a module's buffers (running means, counters) is as it was afterwards."""
    held = [
        (inner, name, one, one.detach().clone(), _version(one))
        for inner in module.modules() for name, one in inner._buffers.items() if one is not None
    ]  # fmt: skip
    try:
        yield
    finally:
        for inner, name, one, before, version in held:
            inner._buffers[name] = one
            # Writes to ``data`` and those of batch norm move no version; sparse tensors and those on meta cannot be compared.
            comparable = one.layout is torch.strided and not one.is_meta
            if not torch.equal(one, before) if comparable else _version(one) != version:
                _restore(one, before)


def _restore(tensor: Any, before: Any) -> None:
    """Write back, unseen by a backward pass that is still to come."""
    if tensor.is_inference():
        tensor.data.copy_(before)
        return
    with torch.no_grad(), _unsafe_preserve_version_counter(tensor):  # what is written to ``data`` of a sparse tensor does not reach it
        if tensor.shape != before.shape:  # an observer's extremes are empty until its first batch
            tensor.resize_(before.shape)
        tensor.copy_(before)


def _version(tensor: Any) -> int | None:
    """Count of its changes in place; None of an inference tensor, which has none."""
    return None if tensor.is_inference() else tensor._version


def load_builder(target: str) -> tuple[Callable[..., Any], str]:
    """The builder that ``file.py:name`` names, and the file.

    Raises:
        BadFile: No such file, or it raises when it is run.
        BadValue: It has no such function.
    """
    path, colon, attribute = target.rpartition(":")
    if not colon or not path.endswith(".py"):
        path, attribute = target, "build"
    if not os.path.isfile(path):
        raise BadFile("SP-FILE-001", where=path)
    folder = str(Path(path).resolve().parent)
    spec = importlib.util.spec_from_file_location(f"_sapper_program_{Path(path).stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look it up
    sys.path.insert(0, folder)
    try:
        with faults.of_the_user(path, "SP-PROG-003"):
            spec.loader.exec_module(module)
    finally:
        sys.path.remove(folder)
    builder = getattr(module, attribute, None)
    if not callable(builder):
        names = [name for name, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == spec.name]
        raise BadValue("SP-PROG-004", where=path, name=attribute, known=", ".join(sorted(names)) or "-")
    return builder, path


def build(builder: Callable[..., Any], path: str, *, batch: int | None, seq: int | None) -> Program:
    """Run the builder, on the kind of tensors that is in force.

    Raises:
        BadFile: It raises, or returns something else than the contract says.
        BadValue: ``seq`` is given and the builder does not take it.
    """
    takes = inspect.signature(builder).parameters
    needed = [name for name in _required(builder) if name not in ("batch", "seq")]
    if needed:
        raise BadFile("SP-PROG-005", where=path, names=", ".join(needed))
    given: dict[str, Any] = {}
    if "batch" in takes and batch is not None:
        given["batch"] = batch
    if "seq" in takes and seq is not None:
        given["seq"] = seq
    elif "seq" in takes and takes["seq"].default is inspect.Parameter.empty:
        raise BadValue("SP-PROG-007", where="--seq")
    elif seq is not None and "seq" not in takes:
        raise BadValue("SP-PROG-006", where="--seq", path=path)
    with faults.of_the_user(path, "SP-PROG-008"):
        result = _built(builder, given)
    program = _program(result, path)
    length = program.seq if program.seq is not None else given.get("seq", _default(takes, "seq"))
    return dataclasses.replace(program, seq=length)


def _built(builder: Callable[..., Any], given: dict[str, Any]) -> Any:
    """What the builder returns; one that looks at values (rates by ``linspace``, say) runs once more on real tensors, which
    takes the memory of its weights. Only their shapes are used."""
    try:
        return builder(**given)
    except faults.DATA_DEPENDENT:  # raised by fake tensors only
        with unset_fake_temporarily():
            return builder(**given)


def _required(function: Callable[..., Any]) -> list[str]:
    """Parameters without a default."""
    parameters = inspect.signature(function).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.default is one.empty and one.kind not in variadic]


def takes_batch(builder: Callable[..., Any]) -> bool:
    """Whether the builder makes its inputs at the batch that it is asked for."""
    return "batch" in inspect.signature(builder).parameters


def _default(takes: Any, name: str) -> int | None:
    value = takes[name].default if name in takes else None
    return value if isinstance(value, int) else None


def _program(result: Any, path: str) -> Program:
    if isinstance(result, dict):
        unknown = sorted(set(map(str, result)) - set(KEYS))
        if unknown or "module" not in result:
            raise BadFile("SP-PROG-010", where=path, unknown=", ".join(unknown) or "-", known=", ".join(KEYS))
        parts = dict(result)
    elif isinstance(result, tuple) and 2 <= len(result) <= 3:
        parts = dict(zip(("module", "inputs", "loss"), result, strict=False))
    else:
        parts = {"module": result}
    if not isinstance(parts["module"], torch.nn.Module):
        raise BadFile("SP-PROG-009", where=path, found=type(parts["module"]).__name__)
    if "inputs" not in parts:
        parts["inputs"] = _no_inputs(parts["module"], path)
    if not isinstance(parts["inputs"], (torch.Tensor, tuple, list, dict)):
        raise BadFile("SP-PROG-011", where=path, names=f"inputs: {type(parts['inputs']).__name__}")
    for key, wanted in _KINDS.items():
        value = parts.get(key)
        if value is None:
            continue
        if not isinstance(value, wanted) or (wanted is Integral and isinstance(value, bool)):
            name = "int" if wanted is Integral else wanted.__name__
            raise BadFile("SP-PROG-023", where=path, key=key, found=type(value).__name__, wanted=name)
        if wanted is Integral:  # NumPy's integers too
            parts[key] = int(value)
    return Program(**{key: value for key, value in parts.items() if value is not None})


def _no_inputs(module: Any, path: str) -> Any:
    needed = _required(module.forward)
    if needed:
        raise BadFile("SP-PROG-011", where=path, names=", ".join(needed))
    return ()


def at_batch(program: Program, batch: int) -> Program | None:
    """The same program with its inputs at another batch, which is the leading dim that all of them share; None where they
    share none."""
    sizes = {tensor.shape[0] for tensor in tensors_in(program.inputs) if tensor.dim()}
    if len(sizes) != 1:
        return None
    def resized(one: Any) -> Any:
        return torch.zeros((batch, *one.shape[1:]), dtype=one.dtype, device=one.device) if one.dim() else one

    return dataclasses.replace(program, inputs=mapped(program.inputs, resized))


def batch_of(program: Program) -> int | None:
    """The leading dim that all inputs share."""
    sizes = {int(tensor.shape[0]) for tensor in tensors_in(program.inputs) if tensor.dim()}
    return sizes.pop() if len(sizes) == 1 else None
