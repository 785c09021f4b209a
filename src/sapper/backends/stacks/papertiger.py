"""Papertiger: the emulated chip, ``papertiger``, ``papertiger:NAME`` or ``papertiger:FILE.toml``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sapper.backends.base import Backend, Executable, Executed, Missing
from sapper.backends.papertiger.personality import DEFAULT, load
from sapper.messages import Phrase

if TYPE_CHECKING:
    from sapper.backends.computation import Computation


class Papertiger(Backend):
    """The chip as a device of this process; opening it installs nothing, using it does."""

    kind = "device"
    real = False

    def __init__(self, detail: str | None) -> None:
        self.personality = load(detail or DEFAULT)
        self.name = f"papertiger:{detail}" if detail else "papertiger"

    def missing(self) -> Missing | None:
        from sapper.backends.stacks.torch import without_torch

        without = without_torch()
        if without is not None:
            return without
        from torch.utils import backend_registration

        import torch

        if hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
            self._check_faults()
            return None
        return Missing(problem=str(Phrase("papertiger.old_torch", version=torch.__version__)), remedy="pip install torch==2.13.0")

    def _check_faults(self) -> None:
        from sapper.backends.papertiger.device import LAUNCHED_BY_NAME
        from sapper.backends.papertiger.reach import check, check_absent

        faults = [(f"fault[{at}].op", one.op) for at, one in enumerate(self.personality.faults)]
        named = [(field, (op,) if isinstance(op, str) else op) for field, op in faults]
        where = self.name.partition(":")[2] or self.name
        check(named, LAUNCHED_BY_NAME, where)
        check_absent(self.personality.absent.ops, LAUNCHED_BY_NAME, path=where)

    def versions(self) -> dict[str, str]:
        import sapper
        import torch

        return {"papertiger": sapper.__version__, "torch": str(torch.__version__)}

    def device(self) -> Any:
        import torch
        from sapper.backends import papertiger

        if papertiger.chip().personality is not self.personality:
            papertiger.install(self.personality)
        return torch.device(papertiger.chip().device, 0)

    def launched(self) -> int:
        from sapper.backends.papertiger import chip

        return chip().counters.total()

    def prepare(self, computation: Computation) -> Executable:
        return _Run(computation, self)


class _Run:
    """A computation on the chip, with what its counters say."""

    def __init__(self, computation: Computation, backend: Papertiger) -> None:
        self.computation = computation
        self.backend = backend
        self.ops: int | None = None
        self.elsewhere: tuple[str, ...] = ()

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        from sapper.backends.on_device import run_on
        from sapper.backends.papertiger import chip

        device = self.backend.device()
        before, elsewhere = self.backend.launched(), chip().counters.elsewhere()
        found = run_on(device, self.computation, tensors)
        self.ops = self.backend.launched() - before
        self.elsewhere = tuple(sorted(chip().counters.elsewhere(elsewhere)))
        return found

    def executed(self) -> Executed | None:
        if self.ops is None:
            return None
        return Executed(where=f"{self.backend.personality.device}:0", ops=self.ops, fallbacks=self.elsewhere)


def open(detail: str | None) -> Papertiger:
    """The backend of a personality."""
    return Papertiger(detail)
