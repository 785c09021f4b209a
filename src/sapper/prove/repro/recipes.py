"""How a script runs a function on a stack, without Sapper: what to import, and the lines that make it ready and call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from sapper.backends import Backend

if TYPE_CHECKING:
    import torch

Options = frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Given:
    """The function that a script is to run on a stack."""

    function: str
    """Its name."""
    inputs: str
    """Name of the list of its inputs."""
    tensors: Sequence[torch.Tensor] = ()
    """The inputs themselves: some stacks take their dtypes another way."""
    may_be_complex: bool = False
    """Whether its result may be complex."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One stack, as a script uses it."""

    imports: tuple[str, ...] = ()
    setup: Callable[[Given], Sequence[str]]
    """Lines after which :attr:`callee` runs a function on the stack."""
    callee: Callable[[str], str]
    """Given the function's name: the expression to call."""
    move: str = ""
    """What brings a tensor to the device, after its name."""
    back: str = ""
    """What brings the result to the CPU."""
    autograd: bool = True
    """Whether gradients may be taken of what :attr:`callee` names."""
    elsewhere: str = ""
    """The expression of a list of what the stack computed on the host, by its own count; empty where it keeps none."""

    @property
    def needs_sapper(self) -> bool:
        """Whether a part of the stack is Sapper's own."""
        return any("sapper" in line for line in self.imports)


def recipe_of(backend: Backend, *, gradients: bool = False) -> Recipe | None:
    """The recipe of a backend: its own, if it has a method ``recipe``, or ours; None where it is out of reach without Sapper.

    Args:
        backend: The stack.
        gradients: Whether the forward and the backward pass are one graph, which some stacks take by another way.
    """
    own = getattr(backend, "recipe", None)
    if own is not None:
        return cast(Recipe, own())
    name, _, detail = backend.name.partition(":")
    options = frozenset(detail.split("+")) - {""}
    from sapper.prove.repro.compilers import COMPILERS

    if name in COMPILERS:
        return COMPILERS[name](options | {"onnx"} if name == "openvino" and gradients else options)
    if name == "papertiger":
        # The emulated chip is ours: no script could reach it otherwise.
        imports = ("from sapper.backends import find, papertiger", f"chip = find({backend.name!r}).device()")
        return _device(imports, "chip", elsewhere="sorted(papertiger.chip().counters.elsewhere())")
    if name == "torch-xla":
        pjrt = min(options, default="cpu").upper()
        imports = (f'import os; os.environ.setdefault("PJRT_DEVICE", "{pjrt}")', "import torch_xla.debug.metrics")
        counted = '[name for name in torch_xla.debug.metrics.counter_names() if name.startswith("aten::")]'
        return _device(imports, "torch_xla.device()", elsewhere=counted)
    if backend.kind == "device":
        type_, index = getattr(backend, "type", name), getattr(backend, "index", "")
        modules = tuple(f"import {module}" for module in getattr(backend, "modules", ()))
        return _device(modules, repr(f"{type_}:{index}" if index else type_))
    return None


def _device(imports: tuple[str, ...], device: str, *, elsewhere: str = "") -> Recipe:
    return Recipe(
        imports=imports, setup=lambda given: (), callee=lambda function: function, move=f".to({device})", back=".cpu()", elsewhere=elsewhere
    )
