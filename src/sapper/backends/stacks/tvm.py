"""TVM: the exported program through Relax's PyTorch frontend, compiled by LLVM for the CPU.

Option ``zero`` adds the optimisation pipeline of that name (fusion and scheduling) before the build.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sapper.backends.base import Executable, Executed, Unsupported
from sapper.backends.compiler import Compiler, program_of, quiet

if TYPE_CHECKING:
    from sapper.backends.computation import Computation


class Tvm(Compiler):
    """Relax's frontend, TVM's compiler and its virtual machine."""

    stack = "tvm"
    pinned = ("torch==2.13.0", "apache-tvm==0.27.0.post1")
    known_options = frozenset({"zero"})

    def prepare(self, computation: Computation) -> Executable:
        import tvm
        from tvm import relax
        from tvm.relax.frontend.torch import from_exported_program

        program = program_of(computation)
        with quiet():
            try:
                module = from_exported_program(program)
            except Exception as error:
                if "Unsupported" in str(error) or isinstance(error, NotImplementedError):
                    raise Unsupported(str(error).strip().splitlines()[-1][:300]) from error
                raise
            if "zero" in self.options:
                module = relax.get_pipeline("zero")(module)
            built = tvm.compile(module, target="llvm")
        return _Machine(built)


class _Machine:
    def __init__(self, built: Any) -> None:
        import tvm
        from tvm import relax

        self._built = built
        self._main = relax.VirtualMachine(built, tvm.cpu())["main"]
        self._ran = False

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        import tvm

        import torch

        aligned = [one.detach().clone(memory_format=torch.contiguous_format) for one in tensors]  # TVM refuses what lies off 64 bytes
        found = self._main(*map(tvm.runtime.from_dlpack, aligned))
        self._ran = True
        return [torch.from_dlpack(one).clone() for one in found]

    def executed(self) -> Executed | None:
        if not self._ran:
            return None
        functions = [name for name in self._globals() if name != "main" and not name.startswith("vm.builtin")]
        return Executed(where="llvm", ops=len(functions), facts={"functions": ", ".join(functions)[:300]})

    def _globals(self) -> list[str]:
        line = next((line for line in self._built.stats().splitlines() if "Globals" in line), "[]")
        return [name.strip() for name in line[line.rindex("[") + 1 : line.rindex("]")].split(",") if name.strip()]


def open(detail: str | None = None) -> Tvm:
    """TVM with the options of ``detail``."""
    return Tvm(detail)
