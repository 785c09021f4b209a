"""The reference: the truth in fp64 on the very inputs, the trusted peer in the same dtype, and the spread of correct answers.

The truth is never "the CPU's fp32" (whose vectorised ``gelu`` is off by 1e-4): every floating input is widened exactly, and
every dtype that the computation names inside is widened too. The peer and the spread cost as much again and more; they are
computed when the rule asks for them, which it does where the rounding of the output alone does not explain an error.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import torch
from sapper.backends.computation import Computation
from sapper.backends.trees import leaves, tensors_in
from sapper.prove import projected, traits
from sapper.prove.call import Call, Called
from sapper.prove.making import Making
from sapper.prove.signature import signature
from sapper.prove.stepwise import Stepping, Stepwise

WIDE = {
    torch.float32: torch.float64, torch.bfloat16: torch.float64, torch.float16: torch.float64, torch.complex64: torch.complex128,
    torch.complex32: torch.complex128, torch.float8_e4m3fn: torch.float64, torch.float8_e5m2: torch.float64,
}  # fmt: skip
UNIT_ROUNDOFF = {
    torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8, torch.float8_e4m3fn: 2.0**-4,
    torch.float8_e5m2: 2.0**-3, torch.complex64: 2.0**-24, torch.complex128: 2.0**-53, torch.complex32: 2.0**-11,
}  # fmt: skip
"""Half the distance from 1 to the next number above."""
ACCUMULATOR_ROUNDOFF = 2.0**-24
"""Of sums inside an op: a stack that adds bf16 or fp16 products in less than fp32 is imprecise."""
SPREADS = 5
"""Perturbed runs that the spread is taken over."""


class NoReference(Exception):
    """The trusted stack cannot compute it, in fp64 or in the dtypes of the inputs; the text is PyTorch's own."""


class Reference:
    """What the outputs of a correct stack look like."""

    def __init__(
        self,
        *,
        truth: Callable[[], list[torch.Tensor]] | list[torch.Tensor],
        peer: Callable[[], list[torch.Tensor]] | list[torch.Tensor],
        spread: Callable[[], list[list[torch.Tensor]]] | list[list[torch.Tensor]] = (),  # type: ignore[assignment]
        spread_inside: Callable[[], list[list[torch.Tensor]]] = list,
        flushed: Callable[[], list[torch.Tensor] | None] = lambda: None,
        stepwise: Callable[[int, torch.dtype], Stepwise | None] = lambda at, dtype: None,
        making: Callable[[], Making] = Making,
        dtypes: frozenset[torch.dtype] | None = None,
        smallest: float = 0.0,
        decomposed: Callable[[], list[torch.Tensor] | None] = lambda: None,
        trusts_peer: bool = False,
        product: Call | None = None,
    ) -> None:
        self.dtypes = dtypes
        """Floating dtypes that went in or were named; None: not known."""
        self.smallest = smallest
        """The smallest normal number of the dtype of floating inputs; 0 where they are of several dtypes, or there are none."""
        self.trusts_peer = trusts_peer
        """Whether an output that equals the peer's bit by bit is right without more ado: nothing was computed but moved, chosen, or
        added, multiplied and divided as IEEE 754 says."""
        self.product = product
        """A product of matrices whose truth may not be needed."""
        self.stepwise = stepwise
        """An output, by its place, of a stack that rounds to a dtype between the steps of the op that made it; None where that op has
        none."""
        self._spread_inside = spread_inside
        self._truth, self._peer, self._spread, self._flushed, self._making = truth, peer, spread, flushed, making
        self._decomposed = decomposed

    @functools.cached_property
    def truth(self) -> list[torch.Tensor]:
        """fp64 (complex128), or the exact dtype of outputs that are no floats."""
        return self._truth() if callable(self._truth) else self._truth

    @functools.cached_property
    def peer(self) -> list[torch.Tensor]:
        """The same on the CPU in the dtypes of the inputs."""
        return self._peer() if callable(self._peer) else self._peer

    @functools.cached_property
    def spread(self) -> list[list[torch.Tensor]]:
        """For each perturbed run its outputs in fp64, the inputs moved by a unit roundoff each; empty where that excuses nothing."""
        return self._spread() if callable(self._spread) else list(self._spread)

    @functools.cached_property
    def spread_inside(self) -> list[list[torch.Tensor]]:
        """The same by no more than fp32's roundoff: of stacks that round nothing inside an op to less."""
        return self._spread_inside()

    @functools.cached_property
    def flushed(self) -> list[torch.Tensor] | None:
        """The truth if denormal inputs are zero; None where there are none."""
        return self._flushed()

    @functools.cached_property
    def decomposed(self) -> list[torch.Tensor] | None:
        """What PyTorch's own decomposition into elementary ops gives on the CPU in the dtypes of the inputs; None where there is none,
        or no input holds an infinity or NaN."""
        return self._decomposed()

    @functools.cached_property
    def making(self) -> Making:
        """How the outputs were made."""
        return self._making()

    def changed(self, at: int, change: Callable[[torch.Tensor], torch.Tensor]) -> Reference:
        """The same where one output of each run is changed: the truth's, the peer's, and those that the spread is taken over."""

        def in_one(outputs: list[torch.Tensor]) -> list[torch.Tensor]:
            return [change(one) if place == at else one for place, one in enumerate(outputs)]

        return Reference(
            truth=in_one(self.truth), peer=lambda: in_one(self.peer), spread=lambda: [in_one(run) for run in self.spread],
            spread_inside=lambda: [in_one(run) for run in self.spread_inside], making=lambda: self.making, dtypes=self.dtypes,
            smallest=self.smallest, decomposed=lambda: None if self.decomposed is None else in_one(self.decomposed),
            flushed=lambda: None if self.flushed is None else in_one(self.flushed),
        )  # fmt: skip


class Jitter:
    """Moves what an op of a computation hands on to the next by a roundoff, each element by a random sign.

    Two correct stacks differ by as much after every op; where a later one cancels (``x - tanh(x)``), that is all that is left.
    """

    def __init__(self, roundoff: float, seed: int) -> None:
        self.roundoff = roundoff
        self._generator = torch.Generator().manual_seed(seed)

    def moved(self, func: Any, outputs: Any) -> Any:
        """What an op returned, moved where it made it itself; what it wrote into, a running mean say, stays the argument that it is."""
        written = signature(func).returns_written
        if all(written):  # also of what returns nothing
            return outputs
        if len(written) == 1:
            return tree_map(self._one, outputs)
        return tuple(one if kept else tree_map(self._one, one) for kept, one in zip(written, outputs, strict=True))

    def _one(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or value.dtype not in (torch.float64, torch.complex128):
            return value
        sign = torch.randint(0, 2, value.shape, generator=self._generator) * 2 - 1
        return value * (1 + sign * self.roundoff)


class Watch(Protocol):
    """Whoever takes account of the ops of a run in fp64."""

    def note(self, func: Any, *, args: Sequence[Any], kwargs: dict[str, Any], outputs: Any) -> None:
        """One op that ran, its arguments and outputs."""


class Widened(TorchDispatchMode):
    """Runs every op in fp64: widens the dtypes that ops name, and low-precision tensors that go in or come out."""

    def __init__(self, watch: Watch | None = None, jitter: Jitter | None = None) -> None:
        super().__init__()
        self.watch, self.jitter = watch, jitter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(_wide, args), tree_map(_wide, kwargs or {})
        taken_args, taken_kwargs = as_taken(func, args, kwargs=kwargs)
        outputs = tree_map(_wide, func(*taken_args, **taken_kwargs))
        if taken_args is not args:
            _write_back(func, signature(func).bound(args, kwargs), signature(func).bound(taken_args, taken_kwargs))
        if self.watch is not None:
            self.watch.note(func, args=args, kwargs=kwargs, outputs=outputs)
        if self.jitter is not None and _kind(func, args, kwargs) != "exact":
            outputs = self.jitter.moved(func, outputs)
        return outputs


_IN_FP32 = {
    "aten::fake_quantize_per_channel_affine_cachemask": ("scale",),
    "aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams": ("scale",),
    "aten::_fake_quantize_learnable_per_channel_affine": ("scale", "zero_point"),
    "aten::_fake_quantize_learnable_per_channel_affine_backward": ("grad", "self", "scale", "zero_point"),
    "aten::_fake_quantize_learnable_per_tensor_affine_backward": ("grad", "self", "scale", "zero_point"),
    "aten::_fused_moving_avg_obs_fq_helper": ("self", "running_min", "running_max", "scale"),
}
"""Arguments that an op takes in fp32 alone, whatever the dtype of its values."""


def as_taken(func: Any, args: Any, *, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Arguments in fp64, but for those that the op takes in fp32 alone."""
    names = _IN_FP32.get(func.name())
    if names is None:
        return args, kwargs

    def taken(name: str, value: Any) -> Any:
        return value.to(torch.float32) if name in names and isinstance(value, torch.Tensor) and value.is_floating_point() else value

    known = signature(func).names
    return (
        tuple([taken(name, value) for name, value in zip(known, args, strict=False)]),
        {name: taken(name, value) for name, value in kwargs.items()},
    )


def _write_back(func: Any, given: dict[str, Any], taken: dict[str, Any]) -> None:
    """What an op wrote into an argument in fp32, to the argument in fp64; an observer gives its own a size when it first runs."""
    for name in signature(func).written:
        if given[name] is not taken[name]:
            given[name].resize_(taken[name].shape).copy_(taken[name])


def _kind(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> traits.Kind:
    tensors = tensors_in((args, kwargs))
    return traits.kind_of(func.name(), traits.bound(func, args, kwargs), tensors)


def _wide(value: Any) -> Any:
    if isinstance(value, torch.dtype):
        return WIDE.get(value, value)
    return widen(value) if isinstance(value, torch.Tensor) else value


def widen(tensor: torch.Tensor) -> torch.Tensor:
    """The same values in fp64 (complex128); other dtypes as they are."""
    return tensor.to(WIDE[tensor.dtype]) if tensor.dtype in WIDE else tensor


def refer(
    computation: Computation, tensors: Sequence[torch.Tensor] | None = None, *, spreads: int = SPREADS, seed: int = 0
) -> Reference:
    """Truth, peer and spread, each when asked, on ``tensors`` (the computation's own where None), all on the CPU.

    The tensors must keep their values as long as the reference is used.

    Raises:
        NoReference: PyTorch cannot compute it in fp64 or in the dtypes of the inputs; now, or when the judge asks for either.
    """
    run = _Run(computation, computation.tensors if tensors is None else tuple(tensors), spreads=spreads, seed=seed)
    more: dict[str, Any] = {"making": run.making, "dtypes": run.dtypes(), "spread": run.spread, "flushed": run.flushed}
    more |= {"smallest": run.smallest(), "decomposed": run.decomposed}
    more |= {"spread_inside": functools.partial(run.spread, inside=True), "stepwise": run.stepwise}
    kind = run.kind()
    if kind == "exact":
        peer = run.narrow()
        return Reference(truth=lambda: run.widened(peer), peer=peer, trusts_peer=True, **more)
    if kind == "arithmetic":
        return Reference(truth=run.first_truth, peer=run.narrow(), trusts_peer=True, **more)
    if run.call is not None and projected.is_product(run.call):
        return Reference(truth=run.first_truth, peer=run.narrow, product=run.call, **more)
    return Reference(truth=run.first_truth(), peer=run.narrow, **more)


def kind_of(call: Call) -> traits.Kind:
    """How an op makes its result; the copy into another dtype is exact in none but the same."""
    if call.name == "_to_copy":
        return "other"
    return traits.kind_of(call.op, traits.bound(call.func, call.args, call.kwargs), call.tensors)


class _Run:
    """A computation on some inputs, in their dtypes and in fp64."""

    def __init__(self, computation: Computation, given: tuple[torch.Tensor, ...], *, spreads: int, seed: int) -> None:
        self.computation, self.given, self.spreads, self.seed = computation, given, spreads, seed
        self.call = computation.call if isinstance(computation, Called) else None
        self.noted = Making()
        self.outputs: list[torch.Tensor] = []

    @functools.cached_property
    def wide(self) -> list[torch.Tensor]:
        return [widen(one) for one in self.given]

    def true(
        self, inputs: Sequence[torch.Tensor], watch: Watch | None = None, jitter: Jitter | None = None
    ) -> list[torch.Tensor]:
        """Outputs in fp64."""
        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            if self.call is not None:
                return [widen(one) for one in self._wide_call(inputs).run()]
            with Widened(watch, jitter):
                return self.computation([one.clone() for one in inputs])
        except Exception as error:
            raise NoReference(f"fp64: {type(error).__name__}: {error}") from error
        finally:
            torch.set_default_dtype(default)

    def _wide_call(self, inputs: Sequence[torch.Tensor]) -> Call:
        """The one op on inputs in fp64."""
        assert self.call is not None
        wide = self.call.in_dtypes(WIDE).with_tensors(inputs)
        if self.call.op not in _IN_FP32:
            return wide
        args, kwargs = wide.bound(wide.tensors, copy=False)
        return Call.of(wide.func, *as_taken(wide.func, args, kwargs=kwargs))

    def kind(self) -> traits.Kind:
        """Of the one op that it is."""
        return "other" if self.call is None else kind_of(self.call)

    def widened(self, outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The truth of an op that computes nothing: what it gives in any dtype."""
        self.outputs = [widen(one) for one in outputs]
        return self.outputs

    def first_truth(self) -> list[torch.Tensor]:
        """Outputs in fp64 for the inputs as they are, with a note of how they were made."""
        self.outputs = self.true(self.wide, self.noted)
        return self.outputs

    def narrow(self) -> list[torch.Tensor]:
        """Outputs in the dtypes of the inputs."""
        try:
            return self.computation([one.clone() for one in self.given] if self.call is None else self.given)
        except Exception as error:
            raise NoReference(f"CPU: {type(error).__name__}: {error}") from error

    def spread(self, *, inside: bool = False) -> list[list[torch.Tensor]]:
        """Outputs in fp64 for moved inputs and values between ops; ``inside``: by no more than fp32's roundoff."""
        making = self.making()
        if making.exact:
            return []
        simple = inside or making.simple
        between = max((_roundoff(one.dtype, simple=simple) for one in self.given if one.dtype in UNIT_ROUNDOFF), default=None)
        outputs = []
        for run in range(self.spreads):
            moved = _moved(self.given, self.wide, simple=simple, seed=self.seed, run=run)
            outputs.append(self.true(moved, jitter=None if between is None else Jitter(between, self.seed + run)))
        return outputs

    def making(self) -> Making:
        """How the outputs were made."""
        if self.call is not None and not self.noted.ops:
            self._note(self.call, self.noted)
        return self.noted

    def _note(self, call: Call, watch: Watch) -> None:
        """Tell of the one op that the computation is, with the truth as its outputs."""
        call = call.in_dtypes(WIDE)
        args, kwargs = call.bound(self.wide[: len(call.tensors)], copy=False)
        watch.note(call.func, args=args, kwargs=kwargs, outputs=list(self.outputs))

    def decomposed(self) -> list[torch.Tensor] | None:
        """Outputs of PyTorch's own decomposition; None where it cannot be traced, or fails.

        Also where all inputs are finite: there an overflow on the way is a fault, whoever has it.
        """
        from sapper.prove.suspect import Untraceable, suspect_of

        if all(bool(torch.isfinite(one).all()) for one in self.wide):
            return None
        asked = dataclasses.replace(self.computation, tensors=tuple(one.clone() for one in self.given))
        try:
            return suspect_of(asked, decompose="elementary").computation()()
        except (Untraceable, RuntimeError, TypeError, ValueError, NotImplementedError):
            return None

    def smallest(self) -> float:
        """The smallest normal number of the floating inputs' dtype, of a whole graph at most fp32's, in which it may compute; 0 where
        they have not one."""
        dtypes = {one.dtype for one in self.given if one.dtype in UNIT_ROUNDOFF}
        if len(dtypes) != 1:
            return 0.0
        smallest = float(torch.finfo(dtypes.pop()).tiny)
        return smallest if self.call is not None else min(smallest, float(torch.finfo(torch.float32).tiny))

    def flushed(self) -> list[torch.Tensor] | None:
        """Outputs in fp64 for inputs whose denormals are zero; None where there are none."""
        inputs, any_denormal = [], False
        for narrow, one in zip(self.given, self.wide, strict=True):
            if narrow.dtype.is_floating_point and narrow.dtype in UNIT_ROUNDOFF:
                denormal = (one != 0) & (one.abs() < torch.finfo(narrow.dtype).tiny)
                any_denormal |= bool(denormal.any())
                one = one.masked_fill(denormal, 0.0)
            inputs.append(one)
        return self.true(inputs) if any_denormal else None

    def stepwise(self, at: int, dtype: torch.dtype) -> Stepwise | None:
        """The output at a place where the op that made it rounds to ``dtype`` between its steps; None where no such op made it."""
        number = self.making().stepped.get(id(self.outputs[at]))
        if number is None:
            return None
        stepping = Stepping(number, dtype)
        if self.call is None:
            self.true(self.wide, stepping)
        else:
            self._note(self.call, stepping)
        return stepping.found

    def dtypes(self) -> frozenset[torch.dtype] | None:
        """Floating dtypes that went in or are named; None where others may appear inside."""
        if self.call is None:
            return None
        named = (one for one in leaves([list(self.call.args), dict(self.call.kwargs)]) if isinstance(one, torch.dtype))
        return frozenset(one for one in (*(tensor.dtype for tensor in self.given), *named) if one in UNIT_ROUNDOFF)


def _moved(
    given: Sequence[torch.Tensor], wide: Sequence[torch.Tensor], *, simple: bool, seed: int, run: int
) -> list[torch.Tensor]:
    """Each floating value moved up or down by its dtype's unit roundoff, or the accumulator's where nothing inside may be rounded lower.

    Each element by a random sign. The second run takes the signs of the first, turned round in every other input: so a difference of
    two inputs sees them moved both apart and together.
    """
    generator = torch.Generator().manual_seed(seed + max(run - 1, 0))
    moved = []
    for at, (narrow, one) in enumerate(zip(given, wide, strict=True)):
        if narrow.dtype not in UNIT_ROUNDOFF:
            moved.append(one.clone())
            continue
        roundoff = _roundoff(narrow.dtype, simple=simple)
        sign = torch.randint(0, 2, one.shape, generator=generator) * 2 - 1
        moved.append(one * (1 + sign * (-roundoff if run == 1 and at % 2 else roundoff)))
    return moved


def _roundoff(dtype: torch.dtype, *, simple: bool) -> float:
    """By how much a correct stack may move a value of a dtype; the accumulator's share where nothing inside may be rounded lower."""
    return min(UNIT_ROUNDOFF[dtype], ACCUMULATOR_ROUNDOFF) if simple else UNIT_ROUNDOFF[dtype]
