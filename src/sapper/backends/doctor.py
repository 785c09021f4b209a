"""Doctor: runs a real computation on each stack, in a process of its own, so that a stack that dies or hangs costs itself only."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

import sapper
from sapper import messages
from sapper.backends.checkup import Checkup, State
from sapper.backends.discover import names

LIMIT_S = 600.0
"""Time that the check of one stack may take; compilers of C++ take minutes on a busy machine."""
SURVEY_LIMIT_S = 60.0
"""Time that finding out whether one stack is there may take: a plug-in is tried in a process of its own."""
TRIED = ("cpu", "inductor", "onnxruntime", "openvino", "jax", "torch-xla", "iree", "tvm", "tinygrad")
"""Stacks that Sapper's authors ran on real hardware: each on x86-64 processors and on nothing else."""
EMULATED = ("papertiger",)


def checkups(asked: Sequence[str] = (), *, with_precision: bool = True, limit_s: float = LIMIT_S) -> Iterator[Checkup]:
    """The check of each stack of ``asked`` (all that are known where empty), in order, as it ends."""
    for found in list(_survey(asked or names())):
        checked = found if found.state != "passed" else _check(found.name, with_precision=with_precision, limit_s=limit_s)
        yield msgspec.structs.replace(checked, tried=tried_on(checked.name))


def tried_on(name: str) -> str | None:
    """The hardware that Sapper's authors ran a stack on; None: on no real device."""
    stem, _, detail = name.partition(":")
    if stem == "torch":
        stem = detail.partition(":")[0] or "cpu"
    details = set(detail.split("+"))
    if stem in EMULATED:
        return "emulated"
    on_others = details & {"cuda", "tensorrt", "rocm", "cann", "coreml", "openvino", "qnn", "dml", "gpu", "npu"}
    return "x86-64" if stem in TRIED and not on_others else None


def _survey(asked: Sequence[str]) -> Iterator[Checkup]:
    """What is there and what is missing; a stack that ends the process is named, and the rest is asked in the next one."""
    left = list(asked)
    while left:
        child = _run("survey", left, limit_s=SURVEY_LIMIT_S * len(left))
        yield from child.found
        left = left[len(child.found) :]
        if left:
            yield _ended(left.pop(0), child, child.wall_s)


def _check(name: str, *, with_precision: bool, limit_s: float) -> Checkup:
    child = _run("check" if with_precision else "quick", [name], limit_s=limit_s)
    return child.found[0] if child.found else _ended(name, child, limit_s)


def _ended(name: str, child: _Child, limit_s: float) -> Checkup:
    """The check of a stack whose process gave no answer."""
    state: State = "hang" if child.status is None else "crash"
    problem = messages.text("doctor.problem.hang", limit_s=f"{limit_s:.0f}")
    remedy = None
    if child.status is not None:
        problem = messages.text("doctor.problem.crash", how=_how(child.status), said=child.said or "-")
        if "TORCH_DEVICE_BACKEND_AUTOLOAD" in child.said:
            remedy = "export TORCH_DEVICE_BACKEND_AUTOLOAD=0"
    return Checkup(name=name, state=state, problem=problem, remedy=remedy, wall_s=child.wall_s)


def _how(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-status).name
    return f"exit {status}"


@dataclass(frozen=True, kw_only=True)
class _Child:
    """What a process left."""

    found: list[Checkup]
    status: int | None
    """As of ``subprocess``; None where it was stopped at its time limit."""
    said: str
    """Its last words."""
    wall_s: float


def _run(what: str, asked: Sequence[str], *, limit_s: float) -> _Child:
    root = str(Path(sapper.__file__).parent.parent)
    environment = dict(os.environ, SAPPER_LANG=messages.language())
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sapper-doctor-", ignore_cleanup_errors=True) as folder:
        answers, talk = Path(folder) / "found.jsonl", Path(folder) / "said.txt"
        answers.touch()
        with talk.open("wb") as out:
            child = subprocess.Popen(
                [sys.executable, "-m", "sapper.backends.examine", what, str(answers), *asked], stdin=subprocess.DEVNULL, stdout=out,
                stderr=out, env=environment, start_new_session=True,
            )  # fmt: skip
            status: int | None = None
            try:
                status = child.wait(limit_s)
            except subprocess.TimeoutExpired:
                pass
            finally:
                if status is None:
                    _stop(child)
        said = [line.strip() for line in talk.read_text("utf-8", "replace").splitlines() if line.strip()]
        whole = answers.read_bytes().rpartition(b"\n")[0]
        found = [msgspec.json.decode(line, type=Checkup) for line in whole.splitlines()]
    return _Child(found=found, status=status, said=said[-1][:300] if said else "", wall_s=time.monotonic() - began_s)


def _stop(child: subprocess.Popen[bytes]) -> None:
    """The process with the compilers that it started."""
    with contextlib.suppress(ProcessLookupError):
        if platform.system() == "Windows":
            child.kill()
        else:
            os.killpg(child.pid, signal.SIGKILL)
    child.wait()
