"""What happens in a training step, op by op: recorded, altered at one op, and judged on each op's own inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from models import Step
from torch.utils._python_dispatch import TorchDispatchMode

import torch
from sapper.prove.call import Call
from sapper.prove.stored import Unkept

VIEWS = {
    "view", "t", "transpose", "permute", "expand", "detach", "alias", "slice", "select", "unsqueeze", "squeeze", "unbind", "split",
    "split_with_sizes", "as_strided", "_reshape_alias", "_unsafe_view", "lift_fresh", "diagonal", "unfold", "_local_scalar_dense",
    "zeros", "ones", "zeros_like", "ones_like", "full", "full_like", "fill_", "zero_", "arange", "empty", "new_zeros", "new_ones",
}  # fmt: skip
"""Ops that move no values or make constants: no kernel of interest to break."""


@dataclass(frozen=True)
class Ran:
    """One op of a step."""

    index: int
    phase: str
    call: Call
    outputs: tuple[torch.Tensor, ...]
    """As :meth:`Call.run` orders them; those of the program, still to be changed by later ops."""


class Trace(TorchDispatchMode):
    """Calls ``seen`` for each op that computes, after it ran."""

    def __init__(self, seen: Callable[[Ran], None]) -> None:
        super().__init__()
        self.seen, self.phase, self.count = seen, "forward", 0

    def mark(self, phase: str) -> None:
        self.phase = phase

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        try:
            call = Call.of(func, args, kwargs)
        except Unkept:
            return func(*args, **(kwargs or {}))
        got = func(*args, **(kwargs or {}))
        if call.nature == "values" and call.name not in VIEWS:
            index, self.count = self.count, self.count + 1
            self.seen(Ran(index, self.phase, call, tuple(call.outputs(got, args, kwargs or {}))))
        return got


def traced(step: Step, seen: Callable[[Ran], None]) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and loss of a step whose ops are told to ``seen``."""
    mode = Trace(seen)
    with mode:
        return step.run(mode.mark)


def recorded(step: Step) -> list[Ran]:
    """All ops of a step, with copies of their inputs and outputs."""
    kept: list[Ran] = []

    def keep(ran: Ran) -> None:
        kept.append(Ran(ran.index, ran.phase, ran.call.kept(), tuple(one.detach().clone() for one in ran.outputs)))

    traced(step, keep)
    return kept
