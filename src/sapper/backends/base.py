"""The protocol that every software stack offers, and what it says about itself."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sapper.messages import Phrase

if TYPE_CHECKING:
    from sapper.backends.computation import Computation

Kind = Literal["device", "compiler"]
"""``device``: single PyTorch ops run on its tensors, as they are called. ``compiler``: it takes a whole graph."""


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Why a stack cannot be used here."""

    problem: str
    """What is missing or broken, in one line: a package, a driver, a device; the stack's own words where it has some."""
    remedy: str | None = None
    """The command that mends it; None where no command does."""

    def step(self) -> Phrase:
        """What to do next."""
        return Phrase("doctor.step.command", command=self.remedy) if self.remedy else Phrase("doctor.step.vendor")


@dataclass(frozen=True, kw_only=True)
class Executed:
    """Evidence that the stack itself computed; a result without any is void, however right it looks."""

    where: str
    """Device and provider, such as ``npu:0`` or ``CPUExecutionProvider``."""
    ops: int | None = None
    """Kernels or graph nodes that the stack says it ran; None where it keeps no count."""
    fallbacks: tuple[str, ...] = ()
    """Ops that ran elsewhere than on the device, as ``aten::name``."""
    facts: dict[str, str] = field(default_factory=dict)
    """What else the stack says: partitions, providers, cache hits."""


class Executable(Protocol):
    """A computation made ready for a stack."""

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        """Run on tensors of the CPU; outputs come back on the CPU, in the computation's order, waited for."""

    def executed(self) -> Executed | None:
        """Evidence of the last call; None where the stack gives none."""


class Backend(abc.ABC):
    """One software stack, perhaps with a detail such as a device index or a precision hint."""

    name: str
    """As on the command line, detail included."""
    kind: Kind
    real: bool = True
    """Whether it stands for what users run; False for an emulated chip."""
    autograd: bool = True
    """Whether PyTorch's autograd runs through it; else training is proved by one graph of forward and backward."""

    @abc.abstractmethod
    def missing(self) -> Missing | None:
        """Why it cannot be used here, found without importing what could end the process; None where it can."""

    @abc.abstractmethod
    def versions(self) -> dict[str, str]:
        """Packages, drivers and devices with their versions; to be called only when nothing is missing."""

    @abc.abstractmethod
    def prepare(self, computation: Computation) -> Executable:
        """Make ``computation`` ready: move it, trace it, compile it.

        Raises:
            Unsupported: The stack refuses it, by name.
        """

    def launched(self) -> int | None:
        """How many kernels the device itself has counted since some moment; None where it keeps no count of its own."""
        return None

    def device(self) -> Any:
        """The ``torch.device`` on which single ops run, its plugin imported; only of kind ``device``."""
        raise TypeError(f"{self.name} takes whole graphs")


class Unsupported(Exception):
    """A stack refuses a computation: an op, a dtype or a form that it does not have. The text is the stack's own."""
