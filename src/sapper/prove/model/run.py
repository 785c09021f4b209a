"""The door of ``prove model``: devices op by op as they run, compilers by the graph of the step."""

from __future__ import annotations

from sapper.prove.model.compiled import prove_compiler
from sapper.prove.model.proof import Plan, Told, prove_device, usable
from sapper.prove.model.result import ModelResult
from sapper.prove.model.worker import Setting

__all__ = ["Plan", "Setting", "prove_model"]


def prove_model(plan: Plan, told: Told) -> ModelResult:
    """Prove a training step and write ``model.json`` into the run's folder.

    Args:
        plan: What, on what, and how.
        told: Called with a message code and its values as the proof goes on.

    Raises:
        SapperError: The program, the backend or the folder cannot be used.
    """
    if usable(plan.setting.backend).kind == "compiler":
        return prove_compiler(plan, told)
    return prove_device(plan, told)
