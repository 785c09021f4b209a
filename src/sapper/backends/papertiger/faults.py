"""Faults of a personality: which launches each of them meets, and at what stage of a launch it acts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from sapper.backends.papertiger import firings
from sapper.backends.papertiger.arithmetic import Call
from sapper.backends.papertiger.fault_kinds import AFTER, BEFORE, DURING, INSTEAD, UNCOUNTED
from sapper.backends.papertiger.fault_process import ENDING
from sapper.backends.papertiger.kernels import Arithmetic
from sapper.backends.papertiger.personality import Fault
from sapper.backends.papertiger.reach import meant
from sapper.backends.trees import leaves

if TYPE_CHECKING:
    from sapper.backends.papertiger.core import Chip

GRADIENT_KINDS = frozenset({"lost-gradient", "scaled-gradient"})
"""Kinds that act in the backward pass alone, whatever their selector says."""


class Standing:
    """A fault in force: what it has met so far, and what it remembers."""

    def __init__(self, fault: Fault, seed: str, *, at: int) -> None:
        self.fault = fault
        self.at = at
        """Its number in the personality."""
        self.fitted = self.acted = False
        self.patterns = (fault.op,) if isinstance(fault.op, str) else fault.op
        self.seed = seed
        self.met = 0
        self.memory: dict[Any, Any] = {}
        """What a stale cache or an uncleared workspace holds."""

    def meets(self, name: str, call: Call) -> bool:
        """Whether it acts on this launch; counts the launches that its selectors fit."""
        if not self._fits(name, call):
            return False
        self.met += 1
        fault = self.fault
        if (fault.call is not None and self.met != fault.call) or self.met < fault.from_call:
            return False
        if fault.probability < 1 and self.chance("met").random() >= fault.probability:
            return False
        if not self.fitted:
            self.fitted = True
            firings.leave("met", self.at, fault)
        return True

    def acts(self) -> None:
        """Note that it changed something of a launch, once."""
        if not self.acted:
            self.acted = True
            firings.leave("fired", self.at, self.fault)

    def chance(self, purpose: str) -> random.Random:
        """Random numbers that are the same in each run for this fault, launch and purpose."""
        return random.Random(f"{self.seed}/{self.met}/{purpose}")

    def _fits(self, name: str, call: Call) -> bool:
        fault = self.fault
        if not meant(self.patterns, name):
            return False
        phase = "backward" if fault.kind in GRADIENT_KINDS else fault.phase
        if phase != "any" and (phase == "backward") != in_backward():
            return False
        if fault.dtype and str(call.dtype()).removeprefix("torch.") not in fault.dtype:
            return False
        return self._fits_shape(call)

    def _fits_shape(self, call: Call) -> bool:
        fault = self.fault
        if fault.shape is None and not fault.min_numel and fault.remainder is None:
            return True
        tensors = call.tensors()
        if not tensors:
            return False
        first = tensors[0]
        if fault.shape is not None and not (
            first.dim() == len(fault.shape) and all(size in (-1, there) for size, there in zip(fault.shape, first.shape, strict=True))
        ):
            return False
        if first.numel() < fault.min_numel:
            return False
        return fault.remainder is None or (first.dim() > 0 and first.shape[-1] % fault.modulo == fault.remainder)


def in_backward() -> bool:
    """Whether this thread runs the backward pass of autograd."""
    return bool(torch._C._current_graph_task_id() >= 0)


class Faults:
    """All faults of a personality."""

    def __init__(self, faults: Sequence[Fault], *, seed: int) -> None:
        self.standing = [Standing(fault, f"{seed}/{at}", at=at) for at, fault in enumerate(faults)]

    def run(self, call: Call, chip: Chip, *, execute: Callable[[Call, Arithmetic, torch.Generator], Any]) -> Any:
        """Launch an op with the faults that meet it."""
        how, generator = chip.arithmetic, chip.generator
        with chip.lock:
            meeting = [one for one in self.standing if one.meets(call.facts.name, call)] if self.standing else []
        if not any(one.fault.kind in UNCOUNTED for one in meeting):
            chip.counters.launch(f"aten::{call.base}")
        for one in meeting:
            if one.fault.kind in ENDING:
                one.acts()
                ENDING[one.fault.kind](one.fault)
        for one in meeting:
            if one.fault.kind in BEFORE:
                _before(one, call)
            if one.fault.kind in DURING:
                one.acts()
                how = DURING[one.fault.kind](one.fault, call, how)
        run = execute
        for one in meeting:
            if one.fault.kind in INSTEAD:
                run = INSTEAD[one.fault.kind](one, run)
        result = run(call, how, generator)
        for one in meeting:
            if one.fault.kind in AFTER:
                for output in _reached(one.fault, call.outputs):
                    _after(one, call, output)
        return result


def _before(one: Standing, call: Call) -> None:
    given = leaves((call.args, call.kwargs))
    BEFORE[one.fault.kind](one, call)
    if not one.acted and not _alike(given, leaves((call.args, call.kwargs))):
        one.acts()


def _after(one: Standing, call: Call, output: torch.Tensor) -> None:
    given = None if one.acted else output.detach().clone()
    AFTER[one.fault.kind](one, call, output)
    if given is not None and not _alike([given], [output]):
        one.acts()


def _alike(ones: Sequence[Any], others: Sequence[Any]) -> bool:
    """Whether a fault left what a launch reads or writes as it was, tensors bit by bit."""
    if len(ones) != len(others):
        return False
    for one, other in zip(ones, others, strict=True):
        if one is other:
            continue
        if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
            if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor) or one != other:
                return False
        elif one.shape != other.shape or one.dtype != other.dtype or not torch.equal(_bits(one), _bits(other)):
            return False
    return True


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().resolve_conj().resolve_neg().contiguous().flatten().view(torch.uint8)


def _reached(fault: Fault, outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    if fault.output is not None:
        return [*outputs[fault.output : fault.output + 1]]
    return [one for one in outputs if one.dtype.is_floating_point or one.dtype.is_complex]
