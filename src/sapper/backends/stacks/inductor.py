"""``torch.compile`` with Inductor, on the CPU.

Options, which separate its parts for the sake of blame: ``eager`` stops after Dynamo's capture, ``aot-eager`` after AOTAutograd's
functional graph, ``decomposed`` after Inductor's decompositions; ``nofusion`` makes each op a kernel of its own, ``nopatterns``
leaves graph rewrites out, ``novector`` the vector instructions, ``nocache`` compiles anew; ``dynamic`` compiles for any shape.
"""

from __future__ import annotations

import itertools
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sapper import messages
from sapper.backends.base import Executable, Executed, Missing
from sapper.backends.compiler import Compiler, has_gradients, quiet

if TYPE_CHECKING:
    from sapper.backends.computation import Computation

PATCHES: dict[str, dict[str, Any]] = {
    "nofusion": {"max_fusion_size": 1, "epilogue_fusion": False, "realize_opcount_threshold": 0, "realize_reads_threshold": 0},
    "nopatterns": {"pattern_matcher": False, "use_joint_graph_passes": False, "use_pre_grad_passes": False},
    "novector": {"cpp.simdlen": 0},
    "nocache": {"force_disable_caches": True},
}
"""Option -> what it sets in ``torch._inductor.config``."""
STOPS = {"eager": "eager", "aot-eager": "aot_eager", "decomposed": "aot_eager_decomp_partition"}
"""Option -> the backend of Dynamo that stops there."""


_NUMBERS = itertools.count()


class Inductor(Compiler):
    """Dynamo, AOTAutograd and Inductor's C++ code."""

    stack = "inductor"
    pinned = ("torch==2.13.0",)
    known_options = frozenset({*PATCHES, *STOPS, "dynamic"})

    def missing(self) -> Missing | None:
        import shutil

        lacks = super().missing()
        if lacks or self.options & set(STOPS) or any(map(shutil.which, ("g++", "clang++", "c++"))):
            return lacks
        return Missing(problem=messages.text("doctor.missing.program", program="g++"), remedy="apt-get install g++")

    def prepare(self, computation: Computation) -> Executable:
        import torch
        from sapper.backends.computation import graph_of

        # Dynamo looks into no torch.autograd.grad and would run all of it in eager.
        fn = graph_of(computation, decompose=False) if has_gradients(computation) else _fresh(computation.fn)
        stop = next((STOPS[word] for word in sorted(self.options & set(STOPS))), None)
        patches = {key: value for word in self.options & set(PATCHES) for key, value in PATCHES[word].items()}
        counted = _Counted(stop, patches)
        return _Compiled(torch.compile(fn, backend=counted, dynamic=True if "dynamic" in self.options else None), counted)


def _fresh(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A function of its own code that calls ``fn``.

    Dynamo keeps what it compiled by code, and runs eager after eight versions; by file, line and name of the code it knows which sizes have
    changed, and compiles for any size what it has seen at two (``torch._dynamo.pgo``), which another computation must not bring about.
    """

    def run(*tensors: Any) -> Any:
        return fn(*tensors)

    name = f"run_{next(_NUMBERS)}"
    return types.FunctionType(run.__code__.replace(co_name=name, co_qualname=name), run.__globals__, closure=run.__closure__)


class _Counted:
    """A backend of Dynamo that knows how many graphs it compiled and how often they ran."""

    def __init__(self, stop: str | None, patches: dict[str, Any]) -> None:
        self._stop = stop
        self._patches = patches
        self.graphs = 0
        self.calls = 0
        self.kernels = 0
        self.library_calls = 0

    def __call__(self, graph: Any, inputs: Any) -> Callable[..., Any]:
        from torch._dynamo.backends.registry import lookup_backend
        from torch._dynamo.utils import counters
        from torch._inductor import config, metrics

        before = metrics.generated_kernel_count, counters["inductor"]["extern_calls"]
        with quiet(), config.patch(self._patches):
            compiled: Callable[..., Any] = lookup_backend(self._stop or "inductor")(graph, inputs)
        self.graphs += 1
        self.kernels += metrics.generated_kernel_count - before[0]
        self.library_calls += counters["inductor"]["extern_calls"] - before[1]

        def run(*tensors: Any) -> Any:
            self.calls += 1
            return compiled(*tensors)

        return run


class _Compiled:
    def __init__(self, compiled: Callable[..., Any], counted: _Counted) -> None:
        self._compiled = compiled
        self._counted = counted
        self._breaks: tuple[str, ...] = ()

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        from torch._dynamo.utils import counters

        import torch

        before = dict(counters["graph_break"])
        self._counted.calls = 0
        with torch.no_grad():
            outputs = list(self._compiled(*tensors))
        new = [why for why, count in counters["graph_break"].items() if count > before.get(why, 0)]
        self._breaks = tuple(dict.fromkeys([*self._breaks, *(why.splitlines()[0][:200] for why in new)]))
        return [one.detach() for one in outputs]

    def executed(self) -> Executed | None:
        counted = self._counted
        if not counted.calls and not self._breaks:
            return None
        facts = {"graphs": str(counted.graphs), "kernels": str(counted.kernels), "library calls": str(counted.library_calls)}
        return Executed(where="cpu", ops=counted.kernels + counted.library_calls or None, fallbacks=self._breaks, facts=facts)


def open(detail: str | None = None) -> Inductor:
    """Inductor with the options of ``detail``."""
    return Inductor(detail)
