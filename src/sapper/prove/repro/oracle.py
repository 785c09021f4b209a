"""Whether a script shows its defect: run inside a worker where many are tried, and in a process of its own where one is verified."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
import linecache
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from sapper.prove.child import in_child, needs_fresh
from sapper.prove.isolate import Answer, Job, Pool
from sapper.prove.judge import judge
from sapper.prove.reference import NoReference, refer
from sapper.prove.repro.script import HANG_LIMIT_S, SHOWS, Check
from sapper.prove.stored import Unkept
from sapper.prove.suspect import Suspect
from sapper.prove.verdict import RED

VERIFY_LIMIT_S = 300.0
"""Wall time of a verifying run: a stack may take a minute to come up and compile."""
_MOST_WORDS = 4000
_FILE = "repro.py"
APART: frozenset[Check] = frozenset({"dies", "repeat", "elsewhere"})
"""Checks that each need a process of their own: it may end, or what ran before may show."""
BY_THE_RULE: frozenset[Check] = frozenset({"largest", "norm", "mean", "exact", "nan", "form"})
"""Checks of values. A script has a short form of the rule, which knows no ties and no flushed numbers; a try is held to the whole of it."""
_WORDS = 6
"""Words of an error by which it is known again."""
_NUMBERS = re.compile(r"^error (\S+) allowed (\S+) ", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a run of a script showed."""

    defect: bool
    kind: str = ""
    """What it is, where one kind of check may see several: the exception's class, the signal's name."""
    ratio: float | None = None
    """Error over what is allowed, where it was measured."""
    allowed: float | None = None
    """The error that is allowed, likewise."""
    words: str = ""
    """What it printed, or why it did not come to its end."""


def tried(payload: dict[str, Any]) -> dict[str, Any]:
    """Run a script inside this process, or in a child of it that has PyTorch at hand and nothing else: what became of it."""
    if not payload["child"]:
        return _here(payload["source"], payload["suspect"])
    became = in_child(lambda: _here(payload["source"], payload["suspect"]))
    if "raised" in became:
        return {"code": 0, "words": became["raised"]}
    return became.get("value") or {"signal": became["signal"], "words": ""}


def _here(source: str, suspect: str | None) -> dict[str, Any]:
    script = ModuleType("__main__")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = _executed(source, script)
    words = out.getvalue()[-_MOST_WORDS:]
    red = code != 1 or suspect is None or _red(Suspect.from_bytes(base64.b64decode(suspect)), getattr(script, "actual", None))
    return {"code": code, "words": words, "red": red}


def _executed(source: str, script: ModuleType) -> int:
    """Run a script as Python would: an exporter may look for the names of a function in its module, or for its source."""
    here = sys.modules["__main__"]
    linecache.cache[_FILE] = (len(source), None, source.splitlines(keepends=True), _FILE)
    sys.modules["__main__"] = script
    try:
        exec(compile(source, _FILE, "exec"), vars(script))
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.modules["__main__"] = here
    return 0


def _red(suspect: Suspect, actual: object) -> bool:
    """Whether the last output of a suspect is a finding by the rule, where the stack gave ``actual``."""
    if not isinstance(actual, torch.Tensor):
        return True  # the script's own word stands
    computation = suspect.computation()
    try:
        reference = refer(computation)
        got = [*(one.detach() for one in reference.peer[:-1]), actual.detach()]
    except NoReference:
        return True
    return judge(got, reference, computation.labels)[-1].outcome in RED


class Oracle:
    """Tries scripts in isolated workers; a context manager.

    Args:
        limit_s: Wall time of a try; a script that takes longer hangs.
        fresh: Each try in a process of its own, for what depends on what ran before.
        memory_bytes: Resident memory of a worker.
    """

    def __init__(self, *, limit_s: float, fresh: bool, memory_bytes: int | None = None) -> None:
        self._fresh = fresh
        self._pool = Pool("sapper.prove.child:setup", {}, limit_s=limit_s, memory_bytes=memory_bytes)
        self.tries = 0

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def shows(self, source: str, check: Check, suspect: Suspect) -> Shown:
        """What the script of ``suspect``, whose defect shows by ``check``, shows in a worker."""
        self.tries += 1
        child = self._fresh or check in APART
        payload = {"source": source, "child": child, "suspect": _packed(suspect) if check in BY_THE_RULE else None}
        fresh = child and needs_fresh(self._pool)
        job = Job(id=str(self.tries), function="sapper.prove.repro.oracle:tried", payload=payload, fresh=fresh)
        (answer,) = self._pool.run([job])
        return read(answer, check)


def _packed(suspect: Suspect) -> str | None:
    """A suspect as text; None where its tensors cannot be stored, or safetensors is not installed, which a proof of ops can do without."""
    try:
        return base64.b64encode(suspect.to_bytes()).decode()
    except (Unkept, ModuleNotFoundError):
        return None


def read(answer: Answer, check: Check) -> Shown:
    """A worker's answer as what the script showed."""
    words = answer.said or ""
    if answer.status == "done" and "signal" in answer.value:
        return Shown(defect=check == "dies", kind=answer.value["signal"], words=answer.value["words"])
    if answer.status == "done":
        shown = _printed(answer.value["code"], answer.value["words"], check)
        return shown if answer.value.get("red", True) else dataclasses.replace(shown, defect=False)
    if answer.status == "crash":
        return Shown(defect=check == "dies", kind=words.splitlines()[0] if words else "", words=words)
    if answer.status in ("hang", "memory"):
        return Shown(defect=check == {"hang": "hangs", "memory": "dies"}[answer.status], kind=answer.status, words=words)
    return Shown(defect=False, words=words)


def _printed(code: int, words: str, check: Check) -> Shown:
    lines = words.splitlines()
    if check == "fails":
        kind = _kind_of(lines[lines.index("actual") + 1 :]) if code == 1 and "actual" in lines else ""
        return Shown(defect=bool(kind) and SHOWS in lines, kind=kind, words=words)
    found = _NUMBERS.search(words)
    allowed = float(found[2]) if found else None
    ratio = None if found is None or allowed is None else float(found[1]) / max(allowed, 1e-300)
    return Shown(defect=code == 1 and SHOWS in words, ratio=ratio, allowed=allowed, words=words)


def _kind_of(raised: Sequence[str]) -> str:
    """An exception's class and the first words of what it says, without the sizes that change while a script shrinks."""
    said = " ".join(raised[1:2])
    return " ".join([raised[0], *re.findall(r"[A-Za-z_]{3,}", said)[:_WORDS]])


def verify(path: Path, check: Check, *, sapper: bool, limit_s: float = VERIFY_LIMIT_S) -> Shown:
    """What the script shows in a fresh process and an empty folder.

    Args:
        path: The script.
        check: How its defect shows.
        sapper: Whether it may import Sapper; else Python is told to look nowhere but where packages are installed.
        limit_s: Wall time; what takes longer hangs.
    """
    flags = [] if sapper else ["-I"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if sapper:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *flags, str(path.resolve())]
        limit_s = max(limit_s, 2 * HANG_LIMIT_S) if check == "hangs" else limit_s
        try:
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=limit_s, check=False, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return Shown(defect=check == "hangs", kind="hang")
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        return Shown(defect=check == "dies", kind=name, words=done.stdout + done.stderr[-2000:])
    if check == "hangs":
        return Shown(defect=done.returncode == 1 and "Timeout" in done.stderr, kind="hang", words=done.stdout + done.stderr[-2000:])
    shown = _printed(done.returncode, done.stdout, check)
    return shown if shown.defect or not done.stderr else Shown(defect=False, words=done.stdout + done.stderr[-2000:])
