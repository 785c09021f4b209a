"""prove change: edit after edit in workers, what fails made small, and all of it in a journal."""

from __future__ import annotations

import datetime
import fnmatch
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import sapper
from sapper.errors import BadValue, SapperError
from sapper.programs.opened import open_program
from sapper.prove.call import Call
from sapper.prove.change.apply import Unfit
from sapper.prove.change.edit import ORIGINAL, Edit, Setting, Size
from sapper.prove.change.find import edits_of
from sapper.prove.change.result import FORMAT, NAME, VERSION, ChangeProof, EditResult, Header, Smallest
from sapper.prove.change.shrink import Shrunk, shrunk
from sapper.prove.change.worker import Question, Seen, computation_of
from sapper.prove.isolate import Job, Pool
from sapper.prove.journal import Journal
from sapper.prove.ready import ready
from sapper.prove.repro import Repro, write_repro
from sapper.prove.verdict import RED

DEFAULT_EDITS = 40
REPRO_TRIES, REPRO_S = 150, 90.0
"""Scripts that may be run, and wall time, for the repro of one failure."""
MOST_REPROS = 12
"""Failures that get a repro; the rest are listed."""

Told = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How much is tried."""

    edits: int | None = DEFAULT_EDITS
    """Most edits, the program as it is not counted; None: all."""
    pattern: str | None = None
    """Of ids, as a shell's; several with commas."""
    limit_s: float = 120.0
    """Wall time of one edit on the device, and of its reference."""
    memory_bytes: int | None = None
    shrink: bool = True
    threads: int = 1


def prove_change(setting: Setting, out: Path, *, options: Options, told: Told) -> ChangeProof:
    """Try edits and write ``change.jsonl`` into ``out``; killed at any time, the same call goes on.

    Raises:
        SapperError: The program, the user's edits, the backend or the folder cannot be used.
    """
    ready(setting.on)
    opened = open_program(setting.target, seq=setting.seq, batch=setting.batch, dtype=setting.dtype, seed=setting.seed)
    opened.run()
    every = [ORIGINAL, *edits_of(setting, opened)]
    chosen = _chosen(every, options)
    payload = {"on": setting.on, "threads": options.threads}
    with Pool("sapper.prove.change.worker:setup", payload, limit_s=options.limit_s, memory_bytes=options.memory_bytes) as pool:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        header = Header(
            format=FORMAT, version=VERSION, sapper=sapper.__version__, date=now,
            setting=setting, digest=opened.digest, versions=pool.start()["versions"], edits=tuple(chosen),
            left_out=tuple(one.id for one in every if one not in chosen), dropout_off=opened.dropout_off,
        )  # fmt: skip
        with Journal(out / NAME, msgspec.to_builtins(header)) as journal:
            campaign = _Campaign(setting, options, pool=pool, out=out, told=told)
            for number, edit in enumerate(chosen):
                if edit.id not in journal.done:
                    result = campaign.tried(edit)
                    journal.add(edit.id, msgspec.to_builtins(result))
                    told("prove.change.progress", number=number + 1, of=len(chosen), edit=edit.id, outcome=result.outcome)
            results = tuple(msgspec.convert(journal.done[one.id], EditResult) for one in chosen)
            return ChangeProof(header=msgspec.convert(journal.header, Header), results=results)


def _chosen(every: Sequence[Edit], options: Options) -> list[Edit]:
    original, *found = every
    if options.pattern is not None:
        patterns = [one.strip() for one in options.pattern.split(",")]
        found = [one for one in found if any(fnmatch.fnmatchcase(one.id, pattern) for pattern in patterns)]
        if not found:
            known = ", ".join(sorted({one.family for one in every[1:]}))
            raise BadValue("SP-CHANGE-003", where="--only", pattern=options.pattern, known=known)
    return [original, *(found if options.edits is None else found[: options.edits])]


class _Campaign:
    """Asks workers about edits."""

    def __init__(self, setting: Setting, options: Options, *, pool: Pool, out: Path, told: Told) -> None:
        self._setting, self._options, self._pool, self._out, self._told = setting, options, pool, out, told
        self._repros = 0
        self._tainted = False
        """Whether the worker has run what failed, so that the next edit needs a process of its own."""

    def tried(self, edit: Edit) -> EditResult:
        """The verdict on an edit; one that fails is tried alone in a fresh process, and made small."""
        seen, wall_s = self._ask(Question(setting=self._setting, edit=edit), fresh=self._tainted)
        smallest = None
        self._tainted = seen.outcome in RED
        if self._tainted:
            alone, _ = self._ask(Question(setting=self._setting, edit=edit, alone=seen.stage), fresh=True)
            if alone.outcome not in RED and alone.outcome != "skipped":
                seen = msgspec.structs.replace(seen, outcome="stateful")
            if self._options.shrink:
                smallest = self._smallest(edit, seen)
        return EditResult(
            id=edit.id, edit=edit, outcome=seen.outcome, stage=seen.stage, label=seen.label, ratio=seen.ratio, said=seen.said,
            where=seen.where, op=seen.op, outputs=seen.outputs, wall_s=wall_s, smallest=smallest,
        )  # fmt: skip

    def _ask(self, question: Question, *, fresh: bool = False) -> tuple[Seen, float]:
        assert question.edit is not None
        job = Job(
            id=question.edit.id, function="sapper.prove.change.worker:asked", payload=msgspec.to_builtins(question), fresh=fresh
        )  # fmt: skip
        (answer,) = self._pool.run([job])
        told = [one["seen"] for one in answer.parts if "seen" in one]
        if told:
            return msgspec.convert(told[-1], Seen), answer.wall_s
        reached = [one for one in answer.parts if "reached" in one]
        if not reached:  # what ends the reference's process is no fault of the device
            return Seen(outcome="skipped", said=f"{answer.status}: {answer.said}"[:500]), answer.wall_s
        status: Any = "crash" if answer.status in ("raised", "done") else answer.status
        return Seen(outcome=status, stage=reached[-1]["stage"], said=(answer.said or "")[-500:] or None), answer.wall_s

    def _smallest(self, edit: Edit, seen: Seen) -> Smallest:
        fresh = seen.outcome == "stateful"

        def fails(smaller: Edit, size: Size, calls: Path | None = None) -> Seen | None:
            question = Question(setting=self._setting, edit=smaller, size=size, calls=str(calls) if calls else None)
            found, _ = self._ask(question, fresh=fresh)
            outcome = "stateful" if fresh and found.outcome in RED else found.outcome
            return found if outcome == seen.outcome else None

        best = shrunk(edit, self._setting, fails=lambda smaller, size: fails(smaller, size) is not None)
        return Smallest(size=best.size, edit=best.edit, tries=best.tries, repro=self._repro(best, seen, fails))

    def _repro(self, best: Shrunk, seen: Seen, fails: Callable[..., Seen | None]) -> Repro | None:
        """The op at fault where one was found, else the whole of the smallest program."""
        if self._repros >= MOST_REPROS or seen.outcome == "stateful":
            return None
        self._repros += 1
        kept = self._out / "change.calls"
        again = fails(best.edit, best.size, kept)
        name = "".join(one if one.isalnum() else "_" for one in best.edit.id)
        self._told("prove.change.repro", edit=best.edit.id)
        try:
            suspect: Any = (
                Call.load(Path(again.call)) if again is not None and again.call else computation_of(self._setting, best.edit, best.size)
            )
            return write_repro(
                suspect, self._setting.on, outcome=seen.outcome, folder=self._out / "repros", name=f"change_{name}", tries=REPRO_TRIES,
                budget_s=REPRO_S, limit_s=self._options.limit_s, memory_bytes=self._options.memory_bytes,
            )  # fmt: skip
        except (Unfit, SapperError):
            return None
        finally:
            shutil.rmtree(kept, ignore_errors=True)
