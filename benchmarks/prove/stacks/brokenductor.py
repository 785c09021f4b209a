"""Inductor with the fault that PyTorch ships for tests: its C++ code for ``relu`` is wrong (``accuracy``) or does not compile."""

from __future__ import annotations

from sapper.backends.base import Executable
from sapper.backends.computation import Computation
from sapper.backends.stacks.inductor import Inductor
from sapper.prove.blame import evaluators
from sapper.prove.blame.evaluators import Evaluator


class Brokenductor(Inductor):
    """``brokenductor:accuracy`` or ``brokenductor:compile_error``."""

    writes_code = True
    plain = ()

    def __init__(self, detail: str | None) -> None:
        super().__init__(None)
        self.name, self.bug = f"brokenductor:{detail}", detail

    def prepare(self, computation: Computation) -> Executable:
        from torch._inductor import config

        config.cpp.inject_relu_bug_TESTING_ONLY = self.bug
        config.force_disable_caches = True
        return super().prepare(computation)

    def evaluator(self) -> Evaluator:
        """Inductor's own decompositions, which have no such fault."""
        return evaluators.decomposed()


def open(detail: str | None = None) -> Brokenductor:
    """Inductor with a bug."""
    return Brokenductor(detail)
