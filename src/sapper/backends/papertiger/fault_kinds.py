"""Faults of the arithmetic, by the stage of a launch at which they act.

``BEFORE`` changes what the op is given, ``DURING`` the arithmetic, ``INSTEAD`` replaces the kernel, ``AFTER`` changes an output.
None of them can be told from outside but by what it does to numbers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from sapper.backends.papertiger.arithmetic import Call
from sapper.backends.papertiger.fault_kernels import CANCELLING
from sapper.backends.papertiger.kernels import KERNELS, Arithmetic
from sapper.backends.papertiger.personality import Fault
from sapper.backends.papertiger.precision import rounded
from sapper.backends.trees import mapped

if TYPE_CHECKING:
    from sapper.backends.papertiger.faults import Standing

Run = Callable[[Call, Arithmetic, torch.Generator], Any]


def _amount(fault: Fault, usual: float) -> float:
    return usual if fault.amount is None else fault.amount


# ---- before: what the op is given ----------------------------------------------------------------------------------------


def _each_read(call: Call, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """Replace each tensor that is read and not written."""
    kept = {id(one) for one in call.written()}

    def changed(leaf: Any) -> Any:
        return change(leaf) if isinstance(leaf, torch.Tensor) and id(leaf) not in kept else leaf

    call.args, call.kwargs = mapped(call.args, changed), mapped(call.kwargs, changed)


def _low_precision_input(standing: Standing, call: Call) -> None:
    """Operands are rounded to ``form``, as fp32 is run as bf16 unasked."""
    form = standing.fault.form
    _each_read(call, lambda one: rounded(one.double(), form).to(one.dtype) if one.dtype == torch.float32 else one)


def _missed_nan(_: Standing, call: Call) -> None:
    _each_read(call, lambda one: torch.nan_to_num(one, nan=0.0, posinf=math.inf, neginf=-math.inf) if one.is_floating_point() else one)


def _integer_overflow(_: Standing, call: Call) -> None:
    """64-bit integers are computed in 32 bits."""
    _each_read(call, lambda one: one.to(torch.int32).to(torch.int64) if one.dtype == torch.int64 else one)


def _ignored_strides(_: Standing, call: Call) -> None:
    """A tensor that is not contiguous is read as if it were, as far as its bytes reach."""

    def misread(one: torch.Tensor) -> torch.Tensor:
        reach = one.untyped_storage().nbytes() // max(one.element_size(), 1) - one.storage_offset()
        if one.is_contiguous() or one.numel() > reach:
            return one
        return one.as_strided(one.shape, torch.empty(one.shape, device="meta").stride()).clone()

    _each_read(call, misread)


def _swapped_arguments(_: Standing, call: Call) -> None:
    """The first two tensors change places, where their forms allow it."""
    at = [at for at, one in enumerate(call.args) if isinstance(one, torch.Tensor)][:2]
    if len(at) == 2:
        first, second = (call.args[one] for one in at)
        written = {id(one) for one in call.written()}
        if first.shape == second.shape and first.dtype == second.dtype and not written & {id(first), id(second)}:
            call.args[at[0]], call.args[at[1]] = second, first


def _wrong_constant(standing: Standing, call: Call) -> None:
    """GELU by the other formula, another eps of a norm, else the first real attribute off by a share of ``amount``."""
    if call.base in ("gelu", "gelu_backward"):
        call.kwargs["approximate"] = "none" if call.kwargs.get("approximate") == "tanh" else "tanh"
        return
    for at, argument in enumerate(call.func._schema.arguments):
        value = call.args[at] if at < len(call.args) else call.kwargs.get(argument.name, argument.default_value)
        if not isinstance(value, float) or isinstance(value, bool):
            continue
        wrong = _amount(standing.fault, 1e-3) if argument.name == "eps" else value * (1 + _amount(standing.fault, 1e-3))
        if at < len(call.args):
            call.args[at] = wrong
        elif argument.kwarg_only or at >= len(call.args):
            call.kwargs[argument.name] = wrong
        return


def _stale_attributes(standing: Standing, call: Call) -> None:
    """A compiled kernel is found again by shapes alone: the attributes of its first call stay in it."""
    key = (str(call.func), tuple((one.shape, one.dtype) for one in call.tensors()))
    scalars = (bool, int, float, str)
    first_args, first_kwargs = standing.memory.setdefault(key, (list(call.args), dict(call.kwargs)))
    if len(first_args) == len(call.args):
        pairs = zip(call.args, first_args, strict=True)
        call.args = [old if isinstance(new, scalars) and isinstance(old, scalars) else new for new, old in pairs]
    call.kwargs = {
        name: first_kwargs[name] if isinstance(value, scalars) and isinstance(first_kwargs.get(name), scalars) else value
        for name, value in call.kwargs.items()
    }


def _dropped_tail(standing: Standing, call: Call) -> None:
    """What is left over after whole vectors of ``amount`` is not added."""
    lanes = int(_amount(standing.fault, 8))

    def cut(one: torch.Tensor) -> torch.Tensor:
        if not one.dim() or not one.is_floating_point() or one.shape[-1] % lanes == 0:
            return one
        found = one.clone()
        found[..., one.shape[-1] - one.shape[-1] % lanes :] = 0
        return found

    _each_read(call, cut)


BEFORE: dict[str, Callable[[Standing, Call], None]] = {
    "low-precision-input": _low_precision_input, "missed-nan": _missed_nan, "integer-overflow": _integer_overflow,
    "ignored-strides": _ignored_strides, "swapped-arguments": _swapped_arguments, "wrong-constant": _wrong_constant,
    "stale-attributes": _stale_attributes, "dropped-tail": _dropped_tail,
}  # fmt: skip


# ---- during: the arithmetic ----------------------------------------------------------------------------------------------


def _narrow_accumulation(fault: Fault, call: Call, how: Arithmetic) -> Arithmetic:
    if call.base in KERNELS:
        return dataclasses.replace(how, accumulator=fault.form, chunk=int(_amount(fault, 16)), sequential=True)
    return dataclasses.replace(how, result=fault.form)


def _flush(_fault: Fault, _call: Call, how: Arithmetic) -> Arithmetic:
    return dataclasses.replace(how, flush_denormals=True)


def _truncate(_fault: Fault, _call: Call, how: Arithmetic) -> Arithmetic:
    return dataclasses.replace(how, truncate=True)


def _saturate(_fault: Fault, _call: Call, how: Arithmetic) -> Arithmetic:
    return dataclasses.replace(how, overflow="saturate")


def _no_nan(_fault: Fault, _call: Call, how: Arithmetic) -> Arithmetic:
    return dataclasses.replace(how, nan="zero")


DURING: dict[str, Callable[[Fault, Call, Arithmetic], Arithmetic]] = {
    "narrow-accumulation": _narrow_accumulation, "flush-denormals": _flush, "wrong-rounding": _truncate, "saturation": _saturate,
    "missed-nan": _no_nan,
}  # fmt: skip


# ---- instead: another kernel ---------------------------------------------------------------------------------------------


def _silent_fallback(standing: Standing, _: Run) -> Run:
    """The host's kernel on the very bytes."""

    def run(call: Call, _how: Arithmetic, _generator: torch.Generator) -> Any:
        standing.acts()
        func = _HOST_NAMES.get(call.base, call.func)
        result = func(*call.args, **call.kwargs)
        fresh = [one for one in (result if isinstance(result, (tuple, list)) else [result]) if isinstance(one, torch.Tensor)]
        call.outputs = call.written() or fresh
        return result

    return run


def _host_convolution_backward(grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *args: Any) -> Any:
    *geometry, mask = args
    return torch.ops.aten.convolution_backward.default(grad, x, weight, [grad.shape[1]] if mask[2] else None, *geometry, mask)


_HOST_NAMES: dict[str, Any] = {
    "convolution_overrideable": torch.ops.aten.convolution.default, "convolution_backward_overrideable": _host_convolution_backward,
}  # fmt: skip
"""The host's kernel where PyTorch has another name for a device's."""
UNCOUNTED = frozenset({"silent-fallback"})
"""Kinds whose launch is none of the chip."""


def _cancellation(standing: Standing, usual: Run) -> Run:
    def run(call: Call, how: Arithmetic, generator: torch.Generator) -> Any:
        kernel = CANCELLING.get(call.base)
        if kernel is None:
            return usual(call, how, generator)
        result = usual(call, how, generator)
        standing.acts()
        kernel(call)
        return result

    return run


def _stale_output(standing: Standing, usual: Run) -> Run:
    """Every second launch (every ``amount``-th) of the same shapes gives what the one before gave."""
    every = int(_amount(standing.fault, 2))

    def run(call: Call, how: Arithmetic, generator: torch.Generator) -> Any:
        key = (str(call.func), tuple((one.shape, one.dtype) for one in call.tensors()))
        count, kept = standing.memory.get(key, (0, None))
        result = usual(call, how, generator)
        if kept is not None and count % every == every - 1:
            standing.acts()
            for output, old in zip(call.outputs, kept, strict=False):
                output.copy_(old)
        standing.memory[key] = (count + 1, [one.clone() for one in call.outputs])
        return result

    return run


INSTEAD: dict[str, Callable[[Standing, Run], Run]] = {
    "silent-fallback": _silent_fallback, "cancellation": _cancellation, "stale-output": _stale_output,
}  # fmt: skip


# ---- after: an output ----------------------------------------------------------------------------------------------------


def _wrong_kernel(standing: Standing, _: Call, output: torch.Tensor) -> None:
    """Elements lie beside their place along the last dim."""
    if output.dim() and output.shape[-1] > 1:
        output.copy_(output.roll(int(_amount(standing.fault, 1)), -1))
    else:
        output.mul_(1.5)


def _tile_edge(standing: Standing, _: Call, output: torch.Tensor) -> None:
    """Where a last tile of ``amount`` is not full, its last row or column is its neighbour's."""
    tile = int(_amount(standing.fault, 32))
    for dim in (-1, -2):
        if output.dim() >= -dim and output.shape[dim] > 1 and output.shape[dim] % tile:
            last = output.shape[dim] - 1
            output.narrow(dim, last, 1).copy_(output.narrow(dim, last - 1, 1).clone())
            return


def _nondeterminism(standing: Standing, _: Call, output: torch.Tensor) -> None:
    """Noise of ``amount`` in relation to each value, another in each run."""
    generator = standing.memory.setdefault("generator", torch.Generator())
    if not standing.memory.get("seeded"):
        generator.seed()
        standing.memory["seeded"] = True
    noise = torch.randn(output.shape, generator=generator, dtype=torch.float64)
    output.copy_(output.to(torch.complex128 if output.is_complex() else torch.float64) * (1 + noise * _amount(standing.fault, 1e-4)))


def _lost_gradient(_: Standing, __: Call, output: torch.Tensor) -> None:
    output.zero_()


def _scaled(usual: float) -> Callable[[Standing, Call, torch.Tensor], None]:
    def scale(standing: Standing, _: Call, output: torch.Tensor) -> None:
        output.mul_(_amount(standing.fault, usual))

    return scale


def _bias(standing: Standing, _: Call, output: torch.Tensor) -> None:
    wide = output.to(torch.complex128 if output.is_complex() else torch.float64)
    output.copy_(wide * (1 + _amount(standing.fault, 1e-3)))


def _bad_element(standing: Standing, _: Call, output: torch.Tensor) -> None:
    """One element is off by ``amount`` times the root mean square of all."""
    if not output.numel():
        return
    at = standing.chance("element").randrange(output.numel())
    place = torch.unravel_index(torch.tensor(at), output.shape) if output.dim() else ()
    rms = float(output.abs().double().square().mean().sqrt()) or 1.0
    output[place] += _amount(standing.fault, 1.0) * rms


def _uninitialised(_: Standing, call: Call, output: torch.Tensor) -> None:
    """Where a sum has no terms, nothing is written."""
    if output.numel() and any(one.numel() == 0 for one in call.read()):
        output.fill_(-1.7014118e38 if output.dtype == torch.float32 else math.nan)


def _leftover(standing: Standing, call: Call, output: torch.Tensor) -> None:
    """A workspace is not cleared: what an earlier launch of another shape left is added."""
    key = (str(call.func), output.dtype)
    before = standing.memory.get(key)
    own = output.detach().clone()
    if before is not None and before.shape != output.shape and output.numel() and output.is_contiguous():
        count = min(output.numel(), before.numel(), 64)
        output.view(-1)[:count] += before.reshape(-1)[:count]
    standing.memory[key] = own


AFTER: dict[str, Callable[[Standing, Call, torch.Tensor], None]] = {
    "wrong-kernel": _wrong_kernel, "tile-edge": _tile_edge, "nondeterminism": _nondeterminism, "lost-gradient": _lost_gradient,
    "scaled-gradient": _scaled(0.5), "bias": _bias, "bad-element": _bad_element, "uninitialised": _uninitialised, "leftover": _leftover,
}  # fmt: skip
