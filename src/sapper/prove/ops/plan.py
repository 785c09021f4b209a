"""From a question to a campaign: the list of entries, the run's folder, and the file's header."""

from __future__ import annotations

import datetime
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import sapper
from sapper.backends import find
from sapper.errors import BadValue, SapperError
from sapper.prove.isolate import Answer, Job, Runner
from sapper.prove.journal import Journal
from sapper.prove.ops.campaign import Campaign, Observer
from sapper.prove.ops.entry import Entry
from sapper.prove.ops.repros import write_repros
from sapper.prove.ops.result import FORMAT, NAME, VERSION, Asked, Header, Ops, collected

SETUP = "sapper.prove.ops.work:setup"
CALLS = "calls"
"""Folder, in the run's, of a workload's recorded calls."""
LISTING_LIMIT_S = 1800.0
"""A training step of a large model on a CPU."""
_LEFT_OUT_SHOWN = 1000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a campaign will do."""

    header: Header
    entries: tuple[Entry, ...]


def check_backend(spec: str) -> None:
    """Refuse a backend that is not there, before anything of it is imported.

    Raises:
        UnknownName: No such backend.
        SapperError: It lacks something.
    """
    lacks = find(spec).missing()
    if lacks is not None:
        raise SapperError("SP-OPS-001", where=f"--on {spec}", problem=lacks.problem, step=lacks.step())


def setup_payload(asked: Asked, folder: Path) -> dict[str, Any]:
    """Of the workers; paths whole, since a worker may stand elsewhere."""
    return {"asked": msgspec.to_builtins(asked), "calls": str((folder / CALLS).resolve())}


def plan(asked: Asked, runner: Runner) -> Plan:
    """Ask a worker which entries there are, and with which versions.

    Raises:
        BadValue: The pattern names no op.
        SapperError: The backend, or the workload, does not come up.
    """
    facts = runner.start()
    function = "sapper.prove.ops.work:listing" if asked.model is None else "sapper.prove.ops.workload:listing"
    listed = _only(runner, Job(id="listing", function=function, limit_s=LISTING_LIMIT_S))
    entries = tuple(msgspec.convert(one, Entry) for one in listed["entries"])
    if asked.pattern is not None:
        patterns = [one.strip() for one in asked.pattern.split(",")]
        entries = tuple(one for one in entries if any(fnmatch.fnmatchcase(one.op.partition("#")[0], pattern) for pattern in patterns))
    if not entries:
        raise BadValue("SP-OPS-002", where="--ops" if asked.pattern else "--dtype", pattern=asked.pattern or ", ".join(asked.dtypes))
    taken = {one.op for one in entries}
    left_out = () if asked.pattern else tuple(sorted(set(listed.get("names", ())) - taken))[:_LEFT_OUT_SHOWN]
    header = Header(
        format=FORMAT, version=VERSION, sapper=sapper.__version__, asked=asked, versions=facts["versions"], kind=facts["kind"],
        real=facts["real"], entries=len(entries), ops=len(taken), left_out=left_out,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    return Plan(header=header, entries=entries)


def carry_out(
    planned: Plan, runner: Runner, *, folder: Path, observer: Observer, entry_done: Callable[[str], None],
    begun: Callable[[Ops], None], repros: int = 0,
) -> Ops:
    """Run the campaign into ``folder``, or go on with the one that is there.

    Args:
        planned: Of :func:`plan`.
        runner: Its workers.
        folder: Of the run.
        observer: Told of verdicts as they come.
        entry_done: Told of each finished entry.
        begun: Told what is known already.
        repros: Findings for which a script is written, the worst first.

    Raises:
        BadFile: The folder holds another question's file.
        SapperError: No worker comes up, or nothing can be written; what is done is kept.
    """
    with Journal(folder / NAME, msgspec.to_builtins(planned.header), key="case") as journal:
        header = msgspec.convert(journal.header, Header)
        begun(collected(header, journal.done))
        Campaign(journal, planned.entries, seed=planned.header.asked.seed, observer=observer, entry_done=entry_done).run(runner)
        write_repros(journal, runner, folder=folder, most=repros)
        return collected(header, journal.done)


def _only(runner: Runner, job: Job) -> Any:
    answers: list[Answer] = list(runner.run([job]))
    if answers[0].status != "done":
        raise SapperError("SP-OPS-003", problem=answers[0].said or answers[0].status)
    return answers[0].value
