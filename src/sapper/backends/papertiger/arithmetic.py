"""How an op computes on the chip: inputs widened to fp64, the chip's own kernel or one rounding, the result in its dtype.

So honest results are as good as a chip's can be and yet not the CPU's bits, whose kernels for fp32, bf16 and fp16 are not used;
only what moves data (and integers) is the same by nature. What the results' dtypes are is asked of PyTorch once for each
combination of dtypes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from sapper.backends.papertiger import kernels, sync_norm
from sapper.backends.papertiger.kernels import NUMBERS, Arithmetic
from sapper.backends.papertiger.op_kinds import MOVES, RANDOM, TRANSCENDENTAL, facts_of
from sapper.backends.papertiger.precision import DTYPES, flushed, rounded, unsteady
from sapper.backends.trees import leaves, mapped, tensors_in

KERNELS = {**kernels.KERNELS, **sync_norm.KERNELS}
WIDE = {
    torch.float32: torch.float64, torch.float16: torch.float64, torch.bfloat16: torch.float64, torch.float8_e4m3fn: torch.float64,
    torch.float8_e5m2: torch.float64, torch.complex64: torch.complex128, torch.complex32: torch.complex128,
}  # fmt: skip


class Call:
    """One op on host views of its tensors: what a fault may look at and change before it runs."""

    def __init__(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        self.func = func
        self.facts = facts_of(func)
        self.base = self.facts.base
        self.args = list(args)
        self.kwargs = dict(kwargs)
        self.outputs: list[torch.Tensor] = []
        """After it ran: what was written or made, as host tensors of the final dtype."""

    def tensors(self) -> list[torch.Tensor]:
        """All tensors among the arguments, in order."""
        return tensors_in((self.args, self.kwargs))

    def written(self) -> list[torch.Tensor]:
        """Arguments that the op writes."""
        found = []
        for at, name in self.facts.written:
            found += tensors_in(self.args[at] if at < len(self.args) else self.kwargs.get(name))
        return found

    def read(self) -> list[torch.Tensor]:
        """Arguments that the op reads: all tensors but those named ``out``."""
        if not self.facts.outs:
            return self.tensors()
        return tensors_in((self.args, [value for name, value in self.kwargs.items() if name not in self.facts.outs]))

    def dtype(self) -> torch.dtype | None:
        """The narrowest floating dtype that it reads; None where it reads none."""
        floats = {one.dtype for one in self.read() if one.dtype.is_floating_point or one.dtype.is_complex}
        return min(floats, key=lambda one: (one.itemsize, str(one))) if floats else None

    def invoke(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """PyTorch's kernel on other arguments.

        A number in a tensor's place is a tensor to most ops; to some only PyTorch's parser makes it one, which has run before.
        """
        try:
            return self.func(*args, **kwargs)
        except RuntimeError as error:
            if "Expected a value of type 'Tensor'" not in str(error):
                raise
        dtype = next((one.dtype for one in tensors_in((args, kwargs))), None)
        wanted = [str(one.type) == "Tensor" for one in self.func._schema.arguments]
        pairs = zip(args, wanted, strict=False)
        made = [torch.scalar_tensor(one, dtype=dtype) if wants and isinstance(one, (bool, int, float)) else one for one, wants in pairs]
        return self.func(*made, **kwargs)


def execute(call: Call, how: Arithmetic, generator: torch.Generator) -> Any:
    """Run an op; written arguments hold the result, fresh ones are returned, as PyTorch's kernels do."""
    if call.base in RANDOM:
        return _random(call, how, generator)
    dtype = call.dtype()
    if dtype is None or dtype not in WIDE or (call.base in MOVES and not _casts(call, how)):
        return _plain(call)
    return _wide(call, _matched(how, dtype, call.base))


def _casts(call: Call, how: Arithmetic) -> bool:
    """Whether a copy goes into another dtype, on a chip whose casts are not the host's."""
    unlike = how.truncate or how.overflow == "saturate"
    return unlike and call.base == "copy" and len({one.dtype for one in call.tensors()}) > 1


def _plain(call: Call) -> Any:
    result = call.invoke(call.args, call.kwargs)
    call.outputs = _distinct([*call.written(), *tensors_in(result)])
    return result


def _distinct(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return list({id(one): one for one in tensors}.values())


@functools.lru_cache(maxsize=256)
def _matched(how: Arithmetic, dtype: torch.dtype, base: str) -> Arithmetic:
    """The arithmetic with what does not concern this dtype or op taken out."""
    fields = {name: getattr(how, name) for name in how.__dataclass_fields__}
    if dtype not in (torch.float32, torch.complex64):
        fields["result"] = "fp32"
    if base not in TRANSCENDENTAL:
        fields["ulp"] = 0.0
    return Arithmetic(**fields)


def _wide(call: Call, how: Arithmetic) -> Any:
    written = call.written()
    outs = {id(one) for one in written} - {id(one) for one in call.read()}
    wides: dict[int, torch.Tensor] = {}

    def widened(value: Any) -> Any:
        if isinstance(value, torch.dtype):
            return WIDE.get(value, value)
        if not isinstance(value, torch.Tensor) or value.dtype not in WIDE:
            return value
        if id(value) not in wides:
            wide = torch.empty(0, dtype=WIDE[value.dtype]) if id(value) in outs else value.to(WIDE[value.dtype])
            wides[id(value)] = flushed(wide, value.dtype) if how.flush_denormals else wide
        return wides[id(value)]

    dtypes = () if call.facts.only_written else _dtypes(call)
    args, kwargs = mapped(call.args, widened), mapped(call.kwargs, widened)
    try:
        result = _kernel(call, args, kwargs, how)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return _plain(call)  # PyTorch has no fp64 kernel, or the user's own mistake, which it words better
    for one in written:
        if id(one) in wides:
            settle_into(one, wides[id(one)], how=how)
    back = {id(wides.get(id(one), one)): one for one in written}
    fresh = iter(dtypes)

    def settled(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or id(leaf) in back:
            return back.get(id(leaf), leaf)
        return settle(leaf, next(fresh), how)

    result = mapped(result, settled)
    call.outputs = _distinct([*written, *tensors_in(result)])
    return result


def _kernel(call: Call, args: Any, kwargs: Any, how: Arithmetic) -> Any:
    kernel = (NUMBERS.get(call.base) if how.nan == "number" else None) or KERNELS.get(call.base)
    if kernel is None:
        return call.invoke(args, kwargs)
    outs = [kwargs.pop(name) for name in call.facts.outs if name in kwargs]
    result = kernel(how, *args, **kwargs)
    if outs or (call.facts.mutable and call.facts.only_written):
        targets = outs or [args[0]]
        for target, one in zip(targets, result if isinstance(result, tuple) else [result], strict=True):
            target.resize_(one.shape) if target.shape != one.shape else None
            target.copy_(one)
        return targets[0] if len(targets) == 1 else tuple(targets)
    return result


def settle(wide: torch.Tensor, dtype: torch.dtype, how: Arithmetic) -> torch.Tensor:
    """fp64 values in the dtype of the result, as the chip rounds them."""
    if wide.dtype not in (torch.float64, torch.complex128) or dtype not in WIDE:
        return wide if wide.dtype == dtype else wide.to(dtype)
    wide = unsteady(wide, how.ulp)
    if how.result != "fp32":
        wide = rounded(wide, how.result)
    if how.truncate:
        wide = rounded(wide, _FORMS[dtype], truncate=True) if dtype in _FORMS else wide
    if how.overflow == "saturate" and dtype.is_floating_point:
        limit = torch.finfo(dtype).max
        wide = torch.where(torch.isfinite(wide), wide.clamp(-limit, limit), wide)
    if how.nan == "zero" and dtype.is_floating_point:
        wide = torch.where(torch.isnan(wide), torch.zeros_like(wide), wide)
    narrow = wide.to(dtype)
    return flushed(narrow, dtype) if how.flush_denormals else narrow


_FORMS: dict[torch.dtype, Any] = {dtype: name for name, dtype in DTYPES.items()} | {torch.complex64: "fp32"}
"""A complex number is rounded by its parts."""


def settle_into(target: torch.Tensor, wide: torch.Tensor, *, how: Arithmetic) -> None:
    """Write what :func:`settle` makes of ``wide``, resized where the op resized it."""
    if target.shape != wide.shape:
        target.resize_(wide.shape)
    target.copy_(settle(wide, target.dtype, how))


_KNOWN_DTYPES: dict[Any, tuple[torch.dtype, ...]] = {}


def _dtypes(call: Call) -> tuple[torch.dtype, ...]:
    """Dtypes of the fresh results, learnt from PyTorch's own kernel once for each combination of dtypes and attributes."""

    def sign(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return (leaf.dtype, leaf.dim() == 0)
        return leaf if isinstance(leaf, (torch.dtype, bool, type(None), str)) else type(leaf)

    key = (call.func, tuple(call.kwargs), tuple(sign(leaf) for leaf in leaves((call.args, call.kwargs))))
    if key not in _KNOWN_DTYPES:
        copies = mapped((call.args, call.kwargs), lambda one: one.clone() if isinstance(one, torch.Tensor) else one)
        given = {id(leaf) for leaf in leaves(copies)}
        try:
            result = call.invoke(*copies)
        except RuntimeError:
            dtype = call.dtype()
            assert dtype is not None
            statistics = call.base in sync_norm.STATISTICS and dtype.itemsize < torch.float32.itemsize
            _KNOWN_DTYPES[key] = (torch.float32 if statistics else dtype,) * 16
        else:
            _KNOWN_DTYPES[key] = tuple(leaf.dtype for leaf in tensors_in(result) if id(leaf) not in given)
    return _KNOWN_DTYPES[key]


def _random(call: Call, how: Arithmetic, generator: torch.Generator) -> Any:
    given = call.kwargs.get("generator")
    if call.base == "native_dropout" and call.dtype() in WIDE:
        call.kwargs["generator"] = generator
        found = KERNELS["native_dropout"](how, *call.args, **call.kwargs)
        call.outputs = tensors_in(found)
        return found
    if call.facts.takes_generator:
        call.kwargs["generator"] = generator if given is None else given
        return _plain(call)
    return _seeded(functools.partial(_plain, call), generator)


def _seeded(fn: Callable[[], Any], generator: torch.Generator) -> Any:
    """Run what knows only the host's generator on the chip's."""
    kept = torch.default_generator.get_state()
    torch.default_generator.set_state(generator.get_state())
    try:
        return fn()
    finally:
        generator.set_state(torch.default_generator.get_state())
        torch.default_generator.set_state(kept)
