"""The one chip of this process: its name for life, its personality of the moment, what it has executed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from sapper.backends.papertiger.arithmetic import Call
from sapper.backends.papertiger.counters import Counters
from sapper.backends.papertiger.faults import Faults
from sapper.backends.papertiger.kernels import Arithmetic
from sapper.backends.papertiger.memory import LEDGER
from sapper.backends.papertiger.personality import Personality
from sapper.backends.papertiger.reach import meant

DTYPE_NAMES = {str(dtype).removeprefix("torch."): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}


class Chip:
    """State that the dispatcher, the device module and the backend share."""

    def __init__(self) -> None:
        self.device = ""
        """Empty until it is installed."""
        self.watcher: Callable[[str, str, Exception | None], bool] | None = None
        """Told when something is asked for that the chip lacks: kind (``op``, ``dtype``, ``pinned``), name, and what would be
        raised; where it answers True, the chip does it all the same. Kind ``unplayed``: an op that the emulation lacks, and
        perhaps no real chip; raised in any case."""
        self.lock = threading.RLock()
        self.counters = Counters()
        self.generator = torch.Generator()
        self.take_on(Personality(device="papertiger"))

    def take_on(self, personality: Personality) -> None:
        """Behave as ``personality`` from now on, counters and faults begun anew; its device name is not looked at."""
        self.personality = personality
        precision = personality.precision
        self.arithmetic = Arithmetic(
            matmul_input=precision.matmul_input, accumulator=precision.accumulator, chunk=precision.chunk, result=precision.result,
            ulp=precision.transcendental_ulp, flush_denormals=precision.flush_denormals, nan=precision.nan, overflow=precision.overflow,
            truncate=precision.rounding == "toward-zero",
        )  # fmt: skip
        self.faults = Faults(personality.faults, seed=personality.seed)
        self.absent_dtypes = {DTYPE_NAMES[name] for name in personality.absent.dtypes}
        LEDGER.index = min(LEDGER.index, personality.devices - 1)
        LEDGER.capacity_bytes = personality.memory.capacity_bytes
        self.counters.reset()

    def launch(self, call: Call, execute: Callable[[Call, Arithmetic, torch.Generator], Any]) -> Any:
        """Run an op, with whatever the personality does to it, and count it.

        Raises:
            NotImplementedError: PyTorch has no kernel of it for the CPU, by which this chip computes.
        """
        self.counters.ask(f"aten::{call.base}")
        try:
            return self.faults.run(call, self, execute=execute)
        except NotImplementedError as error:
            if "from the 'CPU' backend" not in str(error):
                raise
            unplayed = NotImplementedError(f"the emulated chip cannot run '{call.facts.name}': PyTorch has no kernel of it for the CPU")
            if self.watcher is not None:
                self.watcher("unplayed", call.facts.name, unplayed)
            raise unplayed from None

    def refuse_absent_op(self, name: str) -> None:
        """Raise what the dispatcher raises for an op without a kernel."""
        if not self.personality.absent.ops:
            return
        base = name.partition(".")[0]
        if meant(self.personality.absent.ops, name):
            self._refuse("op", base, NotImplementedError(
                f"Could not run '{name}' with arguments from the '{self.device}' backend. This could be because the operator doesn't "
                "exist for this backend, or was omitted during the selective/custom build process (if using custom build)."
            ))  # fmt: skip

    def refuse_absent_dtypes(self, dtypes: Iterable[torch.dtype]) -> None:
        """Raise what plug-ins raise for tensors of a dtype that the chip lacks."""
        for dtype in dtypes:
            if dtype in self.absent_dtypes:
                self._refuse("dtype", str(dtype), RuntimeError(f"{self.device}: dtype {dtype} is not supported by the device"))

    def refuse_absent_op_dtypes(self, name: str, dtypes: Iterable[torch.dtype]) -> None:
        """Raise what plug-ins raise where an op does not take a dtype."""
        base = name.partition(".")[0]
        lacking = [one for pattern, names in self.personality.absent.op_dtypes.items() if fnmatchcase(base, pattern) for one in names]
        for dtype in {str(one).removeprefix("torch.") for one in dtypes}.intersection(lacking):
            self._refuse("op dtype", f"{base} {dtype}", RuntimeError(f"{self.device}: {base} of {dtype} is not supported by the device"))

    def refuse_absent_in_collectives(self, dtypes: Iterable[torch.dtype]) -> None:
        """Raise what plug-ins raise for a dtype that their collectives do not take."""
        for dtype in dtypes:
            if str(dtype).removeprefix("torch.") in self.personality.collectives.absent_dtypes:
                self._refuse("collective dtype", str(dtype), RuntimeError(f"{self.device}: collectives of {dtype} are not supported"))

    def pins(self) -> bool:
        """Whether the host's memory can be pinned for the chip."""
        return self.personality.memory.pinned or (self.watcher is not None and self.watcher("pinned", "pin_memory", None))

    def _refuse(self, kind: str, name: str, error: Exception) -> None:
        if self.watcher is None or not self.watcher(kind, name, error):
            raise error


CHIP = Chip()
