"""The distinct ATen calls of one training step, as the device itself runs it, each with its work and how often it comes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import torch
from sapper.backends.trees import tensors_in
from sapper.capture.rules import Cost
from sapper.capture.trace import SHORT, Class, classify, cost_of
from sapper.programs.program import Program
from sapper.prove.call import Call
from sapper.prove.stored import Unkept

Phase = Literal["forward", "backward", "optimizer"]


@dataclass(kw_only=True)
class Seen:
    """One distinct call, on the tensors that it had when it came first."""

    call: Call
    phase: Phase
    cost: Cost
    priced: bool
    size_bytes: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    count: int = 1

    @property
    def id(self) -> str:
        """Of the call in its phase."""
        return f"{self.phase}:{self.call.id}"


@dataclass
class Watch(TorchDispatchMode):
    """Keeps the first call of each form; views and ops that move nothing are no work."""

    phase: Phase = "forward"
    seen: dict[tuple[Any, ...], Seen] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Ops that no call can be kept of, with the code of the reason."""

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name, class_ = classify(func)
        if class_ != "view" and getattr(func, "namespace", "prim") not in ("prim", "prims", "profiler"):
            self._note(name, class_, func, args, kwargs, out)
        return out

    def _note(self, name: str, class_: Class, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        key = (self.phase, func, *(_form(one) for one in tree_leaves((args, kwargs))))
        if key in self.seen:
            self.seen[key].count += 1
            return
        cost = cost_of(name, class_, args=args, kwargs=kwargs, out=out)
        given, made = tensors_in((args, kwargs)), tensors_in(out)
        size_bytes = _bytes(given, made, cost)
        if not size_bytes:
            return
        try:
            call = Call.of(func, args, kwargs)
        except Unkept as reason:
            self.left_out[func.name()] = reason.code
            return
        self.seen[key] = Seen(
            call=call, phase=self.phase, cost=cost, priced=class_ != "unpriced", size_bytes=size_bytes,
            inputs=_texts(given), outputs=_texts(made),
        )  # fmt: skip


def calls_of(program: Program) -> Watch:
    """What one training step of ``program`` does where it lies: forward, backward, and an AdamW step as PyTorch does it by default."""
    watch = Watch()
    weights = [one for one in program.module.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(weights) if weights else None
    with watch:
        loss = program.loss_of(program.call())
        if optimizer is not None and loss is not None and loss.requires_grad:
            watch.phase = "backward"
            loss.backward()
            watch.phase = "optimizer"
            optimizer.step()
    return watch


def _form(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), tuple(value.stride())
    return repr(value)


def _bytes(given: list[torch.Tensor], made: list[torch.Tensor], cost: Cost) -> float:
    """Read and written, as the op's rule says; an expanded dimension is read once."""
    part = cost.reads or {}
    read = sum(part.get(at, _elements(one)) * one.element_size() for at, one in enumerate(given))
    if cost.writes is not None and made:
        return float(read + cost.writes * made[0].element_size())
    return float(read + sum(one.numel() * one.element_size() for one in made))


def _elements(tensor: torch.Tensor) -> float:
    return float(math.prod(size for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if stride))


def _texts(tensors: list[torch.Tensor]) -> tuple[str, ...]:
    found = tuple(f"{SHORT.get(one.dtype, str(one.dtype)[6:])}[{','.join(map(str, one.shape))}]" for one in tensors)
    return found if len(found) <= 8 else (f"{len(found)} tensors",)
