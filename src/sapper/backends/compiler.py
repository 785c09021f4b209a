"""What stacks that take whole graphs have in common: a pinned environment, options, and the program that they are given."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from sapper.backends.base import Backend, Kind, Missing, Unsupported
from sapper.backends.packages import installed, missing_packages, options_of

if TYPE_CHECKING:
    from sapper.backends.computation import Computation


class Compiler(Backend):
    """A stack that compiles a graph; ``NAME:OPTION+OPTION`` chooses among :attr:`known_options`."""

    kind: Kind = "compiler"
    autograd = False
    stack: ClassVar[str]
    """Its name without a detail."""
    pinned: ClassVar[tuple[str, ...]]
    """Distributions as pip takes them, with the versions that it was run with."""
    known_options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, detail: str | None = None) -> None:
        self.options = options_of(detail, known=self.known_options, backend=self.stack)
        self.name = f"{self.stack}:{detail}" if detail else self.stack

    def missing(self) -> Missing | None:
        return missing_packages(self.pinned)

    def versions(self) -> dict[str, str]:
        return installed(self.pinned)


def has_gradients(computation: Computation) -> bool:
    """Whether some output is a gradient, so that the forward and the backward pass must become one graph, or it is part of such a graph."""
    return computation.of_training or any(label.startswith("grad") for label in computation.labels)


def program_of(computation: Computation) -> Any:
    """The ``torch.export.ExportedProgram`` of a computation, static in its shapes.

    A computation without gradients is exported as its user would export it, composite ops and all. One with gradients is traced
    into one ATen graph first: ``torch.export`` does not look into ``torch.autograd.grad``.

    Raises:
        Unsupported: Values decide what is computed, which no graph can say.
    """
    from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

    import torch
    from sapper.backends.computation import graph_of

    class Program(torch.nn.Module):
        def forward(self, *tensors: Any) -> Any:
            return tuple(computation.fn(*tensors))

    with quiet(), torch.no_grad(), portable():
        module = graph_of(computation) if has_gradients(computation) else Program()
        try:
            return torch.export.export(module, computation.tensors, strict=False)
        except GuardOnDataDependentSymNode as error:
            raise Unsupported(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:250]}") from error


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Keeps ops that only PyTorch's CPU has (fused attention and its gradient, oneDNN's recurrent layers) out of a traced graph."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    import torch

    with torch.backends.mkldnn.flags(enabled=False), sdpa_kernel(SDPBackend.MATH):
        yield


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what exporters warn of while they trace off the user's terminal."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "torch.fx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
