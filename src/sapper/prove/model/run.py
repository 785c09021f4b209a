"""The door of ``prove model``: devices op by op as they run, compilers by the graph of the step."""

from __future__ import annotations

from pathlib import Path

from sapper.errors import BadValue
from sapper.prove.model.against import prove_prints
from sapper.prove.model.capsule import Capsule
from sapper.prove.model.compiled import prove_compiler
from sapper.prove.model.proof import Plan, Told, prove_device, usable, write
from sapper.prove.model.result import ModelResult
from sapper.prove.model.trial import tried
from sapper.prove.model.worker import Setting

__all__ = ["Plan", "Setting", "prove_model"]


def prove_model(plan: Plan, told: Told, *, against: Capsule | None = None, path: str | None = None) -> ModelResult:
    """Prove a training step and write ``model.json`` into the run's folder.

    Args:
        plan: What, on what, and how.
        told: Called with a message code and its values as the proof goes on.
        against: A capsule that stands for the trusted machine.
        path: Its file.

    Raises:
        SapperError: The program, the backend or the folder cannot be used.
    """
    folder = Path(plan.setting.folder)
    found = _proved(plan, told, against, path)
    if plan.most_tried and found.findings:
        found = tried(found, plan, folder, told)
        write(found, folder)
    return found


def _proved(plan: Plan, told: Told, against: Capsule | None, path: str | None) -> ModelResult:
    compiler = usable(plan.setting.backend).kind == "compiler"
    if compiler and plan.method != "full":
        raise BadValue("SP-PRM-011", where="--on", backend=plan.setting.backend)
    if plan.method == "fingerprints":
        return prove_prints(plan, told, capsule=against, path=path)
    return prove_compiler(plan, told) if compiler else prove_device(plan, told)
