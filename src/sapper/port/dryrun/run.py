"""Running the program in watched processes, and reading back what they wrote."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

import sapper
from sapper.errors import BadValue, InputError
from sapper.port.dryrun import processes
from sapper.port.dryrun.inside.begin import environment
from sapper.port.dryrun.session import FILE, Note, Session, Touch, Unit


@dataclass
class Record:
    """Everything that the processes of a run wrote."""

    exit_code: int
    touches: list[Touch] = field(default_factory=list)
    units: dict[str, Unit] = field(default_factory=dict)
    """By file."""
    reached: set[tuple[str, int]] = field(default_factory=set)
    """Path and line of findings that were reached."""
    unlooked: set[str] = field(default_factory=set)
    """Why lines were not looked at, in processes where they were not."""
    unwatched: list[str] = field(default_factory=list)
    """Interpreters that Sapper could not get into, and why."""
    remarks: list[Note] = field(default_factory=list)
    overran: bool = False
    """Whether it was ended because its time was over."""


def run(command: Sequence[str], session: Session, *, quiet: bool, limit_s: float | None) -> Record:
    """Run ``command`` and wait for it.

    Args:
        command: As after ``--`` on the command line.
        session: What the processes are told; its folder is there and empty.
        quiet: Send what the program prints to stderr, where stdout is for the result.
        limit_s: Seconds after which it is ended, with the processes that it started; None: never.

    Raises:
        BadValue: There is no such program.
        InputError: It could not be started.
    """
    folder = Path(session.folder)
    (folder / FILE).write_bytes(msgspec.json.encode(session))
    own = {**os.environ, **environment(str(folder / FILE), str(Path(sapper.__file__).resolve().parent.parent))}
    if importlib.util.find_spec("torch") is not None:
        # `sapper` may be called by its path, its environment not being the active one; its python is the one that has PyTorch.
        own["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), own.get("PATH", os.defpath)])
    program = shutil.which(command[0], path=own.get("PATH"))
    if program is None:
        raise BadValue("SP-TRY-001", where=command[0], program=command[0])
    try:
        child = subprocess.Popen([program, *command[1:]], env=own, stdout=sys.stderr.fileno() if quiet else None)
    except OSError as error:
        raise InputError("SP-TRY-002", where=program, problem=error.strerror or str(error)) from error
    exit_code, overran = processes.wait(child, folder, limit_s=limit_s)
    return _read(folder, exit_code, overran=overran)


def _read(folder: Path, exit_code: int, *, overran: bool) -> Record:
    found = Record(exit_code, overran=overran)
    for path in sorted(folder.glob("*.jsonl")):
        _read_process(path, found)
    unwatched = folder / "unwatched.txt"
    if unwatched.is_file():
        found.unwatched += unwatched.read_text("utf-8").splitlines()
    found.unwatched = sorted(set(found.unwatched))
    return found


def _read_process(path: Path, found: Record) -> None:
    """Add the lines of one process; the last one may be torn where the process was killed."""
    touches: dict[tuple[Any, ...], Touch] = {}
    unit: Unit | None = None
    for line in path.read_bytes().splitlines():
        try:
            record = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        what = record.pop("what")
        if what == "begin":
            unit = msgspec.convert(record, Unit)
        elif what == "touch":
            touch = msgspec.convert(record, Touch)
            touches[touch.kind, touch.symbol, touch.outcome, touch.path, touch.line] = touch
        elif what == "reached":
            found.reached.add((record["path"], record["line"]))
        elif what == "unlooked":
            found.unlooked.add(record["why"])
        elif what == "unwatched":
            found.unwatched.append(record["why"])
        elif what == "remark":
            note = msgspec.convert(record, Note)
            found.remarks += [note] if note not in found.remarks else []
        elif unit is not None and what == "torch":
            unit.torch = record["version"]
        elif unit is not None and what == "ops":
            unit = msgspec.structs.replace(unit, **record)
        elif unit is not None and what == "end":
            unit.ended = True
    found.touches += touches.values()
    if unit is not None:
        found.units[path.name] = unit
