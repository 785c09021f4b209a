"""Trying a device in a child process: a plug-in without its driver may raise, or end whatever process imports it."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from sapper.backends.devices import AUTOLOAD_VARIABLE

LIMIT_S = 180.0
"""Time that a first import and a first kernel may take: some stacks compile their kernels then."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """How far a child came."""

    stage: str
    """``torch`` or ``plugin`` (imported), ``device`` (computed on), ``done``."""
    module: str | None = None
    """The plug-in's module, at stage ``plugin``."""
    problem: str | None = None
    """What ended it; None where it is done."""
    versions: dict[str, str] = field(default_factory=dict)
    name: str | None = None
    """What the device calls itself."""


@functools.cache
def try_device(kind: str, index: str, *, modules: tuple[str, ...]) -> Trial:
    """Import and compute in a child process; the answer is kept for this process."""
    child = Path(__file__).with_name("_trial_child.py")
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(child), kind, index, *modules], env=os.environ | {AUTOLOAD_VARIABLE: "0"}, text=True,
            capture_output=True, errors="replace", stdin=subprocess.DEVNULL, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        out = late.stdout.decode("utf-8", "replace") if isinstance(late.stdout, bytes) else late.stdout or ""
        return _read(out, ended=f"no answer within {LIMIT_S:g} s")
    return _read(done.stdout, ended=_ended(done.returncode, done.stderr))


def _ended(code: int, said: str) -> str:
    last = (said.strip().splitlines() or [""])[-1][:300]
    if code < 0:
        try:
            how = signal.Signals(-code).name
        except ValueError:
            how = f"signal {-code}"
        return f"ended by {how}" + (f": {last}" if last else "")
    return f"ended with {code}" + (f": {last}" if last else "")


def _read(out: str, *, ended: str) -> Trial:
    """The child's lines; a plug-in may print between them."""
    stage, module = "start", None
    for line in out.splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue
        if not isinstance(said, dict):
            continue
        if "problem" in said:
            return Trial(stage=stage, module=module, problem=f"{said['raised']}: {said['problem']}")
        if said.get("stage") == "done":
            return Trial(stage="done", versions=said["versions"], name=said["name"])
        stage, module = str(said.get("stage", stage)), said.get("module")
    return Trial(stage=stage, module=module, problem=ended)
