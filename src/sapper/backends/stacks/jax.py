"""JAX: the exported program, op by op, as a function of JAX arrays, compiled by XLA.

Options: ``highest`` asks for matmuls in full precision (chips other than CPUs run fp32 in less by default), ``noopt`` compiles
without XLA's optimisations, ``eager`` leaves ``jax.jit`` out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sapper.backends.base import Executable, Executed
from sapper.backends.compiler import Compiler, program_of, quiet

if TYPE_CHECKING:
    from sapper.backends.computation import Computation


class Jax(Compiler):
    """Sapper's lowering of core ATen to JAX, and XLA."""

    stack = "jax"
    pinned = ("torch==2.13.0", "jax==0.10.2")
    known_options = frozenset({"highest", "noopt", "eager"})

    def prepare(self, computation: Computation) -> Executable:
        import jax

        from sapper.backends.arrays import array_of
        from sapper.backends.lax import function_of

        jax.config.update("jax_enable_x64", True)  # else every int64 and fp64 becomes 32 bits wide
        with quiet():
            function = function_of(program_of(computation))
            if "eager" in self.options:
                return _Function(function, None, self._precision)
            with jax.default_matmul_precision(self._precision):
                lowered = jax.jit(function).lower(*map(array_of, computation.tensors))
            options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True} if "noopt" in self.options else {}
            return _Function(lowered.compile(compiler_options=options), _instructions(lowered.compile()), self._precision)

    @property
    def _precision(self) -> str:
        return "highest" if "highest" in self.options else "default"


def _instructions(compiled: Any) -> int:
    """Instructions of XLA's entry computation, without parameters and what only bundles."""
    text = compiled.as_text()
    entry = text[text.index("ENTRY") :].partition("\n}")[0].splitlines()[1:]
    return sum(1 for line in entry if " = " in line and not any(word in line for word in (" parameter(", " tuple(", " get-tuple-element(")))


class _Function:
    def __init__(self, function: Callable[..., Any], instructions: int | None, precision: str) -> None:
        self._function = function
        self._instructions = instructions
        self._precision = precision
        self._where: str | None = None

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        import jax

        from sapper.backends.arrays import array_of, tensor_of

        with jax.default_matmul_precision(self._precision):
            found = self._function(*(jax.numpy.asarray(array_of(one)) for one in tensors))
        devices = {str(device) for one in found for device in one.devices()} or {str(jax.devices()[0])}
        self._where = ", ".join(sorted(devices))
        return [tensor_of(one) for one in found]

    def executed(self) -> Executed | None:
        if self._where is None:
            return None
        import jax

        facts = {"platform": jax.devices()[0].platform, "matmul precision": self._precision}
        return Executed(where=self._where, ops=self._instructions, facts=facts)


def open(detail: str | None = None) -> Jax:
    """JAX with the options of ``detail``."""
    return Jax(detail)
