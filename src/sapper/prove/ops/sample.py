"""Sample: a function of Python with its arguments, as a computation of its tensors."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

import torch
from sapper.backends.computation import Computation, with_gradients
from sapper.prove.call import draws
from sapper.prove.stored import laid_out

SAMPLED_ON = "cpu"
"""Device that samples are made on; where one is an argument too (``Tensor.to``), it is the device under test that is meant."""


@dataclass(frozen=True, kw_only=True)
class _Slot:
    """Where a tensor stands among the leaves of the arguments; ``at`` None: the device that it runs on."""

    at: int | None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One call of a Python function."""

    name: str
    function: Callable[..., Any]
    leaves: tuple[Any, ...]
    """Of the arguments; tensors and devices as slots."""
    spec: Any
    tensors: tuple[torch.Tensor, ...]
    """On the CPU, strides kept."""
    wrt: tuple[int, ...] = ()
    """Positions of the tensors whose gradients the database asks for."""
    changes: bool = False
    """Whether it writes to its arguments; they then count as outputs."""
    process: Callable[[Any], Any] = field(default=lambda result: result)
    """What makes a result unique where mathematics leaves a choice, such as the sign of an eigenvector."""

    @classmethod
    def of(
        cls, name: str, function: Callable[..., Any], *, args: Sequence[Any], kwargs: Mapping[str, Any], host_integers: bool = False,
        **more: Any,
    ) -> Sample:
        """The call of ``function``; ``host_integers``: its integer tensors stay on the CPU.

        Raises:
            Unkept: A tensor of a layout that has no plain values.
        """
        named = {key: torch.device(value) if key == "device" and value is not None else value for key, value in kwargs.items()}
        leaves, spec = tree_flatten((tuple(args), named))
        tensors: list[torch.Tensor] = []
        wrt: list[int] = []

        def slot(leaf: Any) -> Any:
            if isinstance(leaf, torch.Tensor) and not (host_integers and leaf.dtype == torch.int64):
                if leaf.requires_grad:
                    wrt.append(len(tensors))
                tensors.append(laid_out(leaf))
                return _Slot(at=len(tensors) - 1)
            return _Slot(at=None) if _is_device(leaf) else leaf

        kept = tuple(slot(leaf) for leaf in leaves)
        return cls(name=name, function=function, leaves=kept, spec=spec, tensors=tuple(tensors), wrt=tuple(wrt), **more)

    def with_tensors(self, tensors: Sequence[torch.Tensor]) -> Sample:
        """The same call on other tensors."""
        return replace(self, tensors=tuple(tensors))

    def run(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Outputs where ``tensors`` lie."""
        device = tensors[0].device if tensors else torch.device("cpu")
        given = [one.clone() for one in tensors] if self.changes else list(tensors)

        def fill(leaf: Any) -> Any:
            if not isinstance(leaf, _Slot):
                return leaf
            return device if leaf.at is None else given[leaf.at]

        args, kwargs = tree_unflatten([fill(leaf) for leaf in self.leaves], self.spec)
        found = outputs_of(self.process(self.function(*args, **kwargs)), device)
        return found + [one for one in given if all(one is not other for other in found)] if self.changes else found

    def rehearsed(self) -> Rehearsed:
        """Its forward pass, run once on the CPU.

        A call without tensors (``arange``) gets an empty one, whose device says where to make its own.
        """
        anchor = () if self.tensors else (torch.empty(0),)
        given = [one.clone() for one in (*self.tensors, *anchor)]
        versions = [one._version for one in given]
        with torch.no_grad(), _Draws() as drawn:
            count = len(self.run(given))
        if not self.changes and versions != [one._version for one in given]:
            return replace(self, changes=True).rehearsed()
        labels = tuple("value" if at == 0 else f"value {at}" for at in range(count))
        computation = Computation(
            name=self.name, fn=lambda *tensors: tuple(self.run(tensors)), tensors=(*self.tensors, *anchor), labels=labels
        )
        return Rehearsed(computation=computation, random=drawn.any, wrt=self.wrt)


def _is_device(leaf: Any) -> bool:
    return isinstance(leaf, torch.device) or (isinstance(leaf, str) and leaf == SAMPLED_ON)


class _Draws(TorchDispatchMode):
    """Notices ops that draw random numbers."""

    any = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.any |= draws(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True, kw_only=True)
class Rehearsed:
    """A sample that the CPU has run."""

    computation: Computation
    random: bool
    """Whether it draws random numbers, so that values are not to be compared one by one."""
    wrt: tuple[int, ...]

    def differentiated(self, generator: torch.Generator) -> Computation | None:
        """Forward and backward pass; None where no output has a gradient.

        Args:
            generator: Draws the cotangents.
        """
        forward = self.computation
        with torch.enable_grad():
            leaves = [one.clone().requires_grad_(at in self.wrt) for at, one in enumerate(forward.tensors)]
            values = forward(leaves)
        cotangents = [
            torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one.dtype) if one.requires_grad else None for one in values
        ]
        if not self.wrt or all(one is None for one in cotangents):
            return None
        return with_gradients(forward, wrt=self.wrt, cotangents=cotangents)


def outputs_of(result: Any, device: Any) -> list[torch.Tensor]:
    """The tensors of a result; numbers as tensors of no dimension, other things left out."""
    found = []
    for leaf in tree_leaves(result):
        if isinstance(leaf, torch.Tensor):
            found.append(leaf)
        elif isinstance(leaf, numbers.Number):
            found.append(torch.tensor(leaf, dtype=torch.float64 if isinstance(leaf, float) else None, device=device))
    return found
