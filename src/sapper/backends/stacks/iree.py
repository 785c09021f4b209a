"""IREE: the exported program through iree-turbine, ahead of time into a module of native code, on the local CPU.

Options: ``host`` compiles for this processor instead of a generic one, ``noopt`` at level O0.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sapper.backends.base import Executable, Executed, Unsupported
from sapper.backends.compiler import Compiler, program_of, quiet

if TYPE_CHECKING:
    from sapper.backends.computation import Computation

FLAGS = {"host": "--iree-llvmcpu-target-cpu=host", "noopt": "--iree-opt-level=O0"}


class Iree(Compiler):
    """iree-turbine, IREE's compiler and its runtime."""

    stack = "iree"
    pinned = ("torch==2.13.0", "iree-base-compiler==3.13.0", "iree-base-runtime==3.13.0", "iree-turbine==3.9.0")
    known_options = frozenset(FLAGS)

    def prepare(self, computation: Computation) -> Executable:
        import iree.compiler
        from iree.turbine import aot
        from iree.turbine.aot.decompositions import current_aot_decompositions

        program = program_of(computation)
        with quiet():
            program = program.run_decompositions(current_aot_decompositions())  # as aot.export does to a module
            module = str(aot.export(program).mlir_module).encode()
        flags = [FLAGS[word] for word in sorted(self.options)]
        if "host" not in self.options:
            flags.append("--iree-llvmcpu-target-cpu=generic")  # the default, said aloud so that the compiler does not warn
        with tempfile.TemporaryDirectory(prefix="sapper-iree-") as folder:
            statistics = Path(folder) / "statistics.json"
            flags += ["--iree-scheduling-dump-statistics-format=json", f"--iree-scheduling-dump-statistics-file={statistics}"]
            try:
                compiled = iree.compiler.compile_str(module, target_backends=["llvm-cpu"], extra_args=flags)
            except iree.compiler.CompilerToolError as error:
                raise _refusal(error) from error
            dispatches = _dispatches(statistics)
        return _Module(compiled, dispatches)


def _refusal(error: BaseException) -> BaseException:
    """:class:`Unsupported` where an op of PyTorch has no lowering; else the compiler's own error."""
    lines = [line for line in str(error).splitlines() if "error:" in line]
    first = next((line for line in lines if "failed to legalize operation 'torch." in line), None)
    return Unsupported(first.partition("error:")[2].strip()[:300]) if first else error


def _dispatches(path: Path) -> int | None:
    """Dispatches of the program, as the compiler's statistics count them."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return int(found["stream-aggregate"]["execution"]["dispatch-count"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Module:
    def __init__(self, compiled: bytes, dispatches: int | None) -> None:
        import iree.runtime

        self._config = iree.runtime.Config("local-task")
        self._size_bytes = len(compiled)
        self._dispatches = dispatches
        self._module = iree.runtime.load_vm_module(
            iree.runtime.VmModule.copy_buffer(self._config.vm_instance, compiled), self._config
        )
        self._ran = False

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        from sapper.backends.arrays import array_of, tensor_of

        found = self._module.main(*map(array_of, tensors))
        self._ran = True
        values = found if isinstance(found, (tuple, list)) else [found]
        return [tensor_of(one.to_host() if hasattr(one, "to_host") else one) for one in values]

    def executed(self) -> Executed | None:
        if not self._ran:
            return None
        facts = {"driver": "local-task", "module": f"{self._size_bytes} bytes"}
        return Executed(where="llvm-cpu", ops=self._dispatches, facts=facts)


def open(detail: str | None = None) -> Iree:
    """IREE with the options of ``detail``."""
    return Iree(detail)
