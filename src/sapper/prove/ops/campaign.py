"""The campaign: entries in chunks to workers, suspects alone in fresh processes, everything into the journal as it comes."""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from sapper.prove.isolate import Answer, Job, Runner
from sapper.prove.journal import Journal
from sapper.prove.ops.entry import Entry, entry_of
from sapper.prove.verdict import RED, CaseVerdict, Outcome

CHUNK = 12
"""Entries that a worker takes at a time: their cases follow one another, and then once more in another order."""
RAISED_AT_ONCE = 12
"""Entries whose errors are looked at again in one fresh process."""
FRESH_STARTS = 24
"""Fresh processes for the other suspects: one for each entry, unless there are more of them than this."""
MOST_DEATHS = 4
"""Cases of an entry that may end the process before the others of it are left out: each costs a start of the stack."""
MOST_STARTS = 3
"""Attempts at a job that dies where no case was running."""
FROM_OUTSIDE = ("SIGKILL", "SIGTERM")
"""Signals that no stack sends to itself: where the case is right alone, somebody else ended the process."""

_OUTCOMES: dict[str, Outcome] = {"crash": "crash", "hang": "hang", "memory": "memory"}

Observer = Callable[[CaseVerdict, bool], None]
"""Told each verdict as it comes, and whether it is settled."""


class Campaign:
    """Works off entries.

    Args:
        journal: What is done already is not done again.
        entries: All that the question takes in.
        seed: Of the order.
        observer: Told of verdicts.
        entry_done: Told of each entry that is finished.
    """

    def __init__(
        self, journal: Journal, entries: Sequence[Entry], *, seed: int, observer: Observer, entry_done: Callable[[str], None]
    ) -> None:
        self._journal, self._observer, self._entry_done = journal, observer, entry_done
        self._entries = {one.id: one for one in entries}
        self._jobs: deque[Job] = deque()
        self._running: dict[str, Job] = {}
        self._in_hand: dict[str, tuple[str, str]] = {}
        """Job -> the case that it has begun and not ended, and who computes: ``device`` or ``reference``."""
        self._deaths: Counter[str] = Counter()
        """Of cases, by entry."""
        self._suspects: dict[str, dict[str, None]] = {}
        """Entry -> cases that are to be looked at alone, in order."""
        self._number = 0
        order = [one for one in self._entries if f"{one}/*" not in journal.done]
        random.Random(seed).shuffle(order)
        for at in range(0, len(order), CHUNK):
            self._sweep(order[at : at + CHUNK])
        for line in journal.done.values():
            if line.get("suspect"):
                self._suspects.setdefault(entry_of(line["case"]), {})[line["case"]] = None

    def run(self, runner: Runner) -> None:
        """Until nothing is left.

        Raises:
            SapperError: No worker comes up, or the journal cannot be written; what is done is kept.
        """
        while self._jobs or self._suspects:
            for answer in runner.run(self._next(), self._part):
                self._answered(answer)

    def _next(self) -> Iterator[Job]:
        """Jobs as workers fall idle; suspects wait until the sweep is through, when all of an entry are known."""
        while self._jobs or self._suspects:
            if not self._jobs:
                if self._running:
                    return  # they may find more suspects of these entries
                self._look_again()
            job = self._jobs.popleft()
            self._running[job.id] = job
            yield job

    def _job(self, function: str, payload: dict[str, Any], *, fresh: bool = False, tried: int = 0) -> None:
        self._number += 1
        name = f"{self._number}.{tried}"
        self._jobs.append(Job(id=name, function=f"sapper.prove.ops.work:{function}", payload=payload, fresh=fresh))

    def _sweep(self, entries: Sequence[str], *, tried: int = 0) -> None:
        """A chunk, without what is known of it."""
        prefixes = tuple(f"{one}/" for one in entries)
        done = {
            name: line["outcome"] if not line.get("suspect") else "suspect"
            for name, line in self._journal.done.items()
            if name.startswith(prefixes) and "outcome" in line
        }
        closed = [one for one in entries if self._deaths[one] >= MOST_DEATHS]
        payload = {"entries": [msgspec.to_builtins(self._entries[one]) for one in entries], "done": done, "closed": closed}
        self._job("sweep", payload, tried=tried)

    def _look_again(self) -> None:
        """Jobs for the suspects: each entry alone, or several together where there are too many or the stack only raised errors."""
        raised: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        for entry, cases in self._suspects.items():
            item = {"entry": msgspec.to_builtins(self._entries[entry]), "cases": list(cases)}
            only_raised = all(self._journal.done[one].get("suspect") == "raised" for one in cases)
            (raised if only_raised else others).append(item)
        for items, at_once in ((others, math.ceil(len(others) / FRESH_STARTS)), (raised, RAISED_AT_ONCE)):
            for at in range(0, len(items), at_once or 1):
                self._job("alone", {"suspects": items[at : at + at_once]}, fresh=True)
        self._suspects.clear()

    # ---- what workers say ----------------------------------------------------------------------------------------------

    def _part(self, job: str, part: dict[str, Any]) -> None:
        if "begin" in part:
            self._in_hand[job] = part["begin"], part["stage"]
        elif "verdict" in part:
            self._found(msgspec.convert(part["verdict"], CaseVerdict), equals_peer=part.get("equals_peer"))
        elif "later" in part:
            self._suspect(msgspec.convert(part["later"], CaseVerdict), "later")
        elif "alone" in part:
            self._settle(msgspec.convert(part["alone"], CaseVerdict), steady=part["steady"])
        elif "entry" in part:
            self._journal.add(f"{part['entry']}/*", {"entry": part["entry"]})
            self._entry_done(part["entry"])
        if "begin" not in part:
            self._in_hand.pop(job, None)

    def _found(self, verdict: CaseVerdict, *, equals_peer: bool | None) -> None:
        if verdict.outcome in RED and verdict.outcome != "fallback":
            self._suspect(verdict, "raised" if verdict.outcome == "crash" else "values")
        else:
            self._write(verdict, equals_peer=equals_peer)

    def _suspect(self, verdict: CaseVerdict, why: str) -> None:
        """Written down as such, so that a campaign that is ended now looks at it when it goes on."""
        self._write(verdict, suspect=why)
        self._suspects.setdefault(entry_of(verdict.case), {})[verdict.case] = None

    def _write(self, verdict: CaseVerdict, *, suspect: str | None = None, equals_peer: bool | None = None) -> None:
        line = msgspec.to_builtins(verdict)
        del line["case"]
        if suspect:
            line["suspect"] = suspect
        if equals_peer is not None:
            line["equals_peer"] = equals_peer
        self._journal.add(verdict.case, line)
        self._observer(verdict, suspect is None)

    def _settle(self, alone: CaseVerdict, *, steady: bool) -> None:
        """The verdict of a suspect, by how it came out alone."""
        line = self._journal.done[alone.case]
        first, why = msgspec.convert(line, CaseVerdict), line["suspect"]
        if not steady:
            seen = first if first.scores else alone
            final = msgspec.structs.replace(seen, outcome="nondeterministic", reason="prove.ops.reason.unsteady")
        elif alone.outcome in RED or first.outcome in ("hang", "memory") or _from_outside(first, why):
            final = alone
        else:
            reason = "prove.ops.reason.died_after" if why == "died" else "prove.ops.reason.wrong_after"
            final = msgspec.structs.replace(first, outcome="stateful", reason=reason, values={"outcome": first.outcome})
        self._write(final)

    # ---- jobs that end -------------------------------------------------------------------------------------------------

    def _answered(self, answer: Answer) -> None:
        job = self._running.pop(answer.id)
        case, stage = self._in_hand.pop(answer.id, (None, ""))
        if answer.status == "done":
            return
        if answer.status == "raised" or case is None:
            self._failed(job, answer, case)
            return
        entry = self._entries[entry_of(case)]
        self._deaths[entry.id] += 1
        verdict = CaseVerdict(
            case=case, op=entry.op.partition("#")[0], outcome=_OUTCOMES[answer.status], dtype=entry.dtype, phase=entry.phase,
            said=answer.said, wall_s=answer.wall_s,
        )  # fmt: skip
        if stage == "reference":
            # By itself, if the suspect is looked at alone; after other ops it may be a wound that the device gave.
            known = self._journal.done.get(case, {})
            killed = _from_outside(verdict, "died") and self._deaths[entry.id] == 1  # once more: it was somebody else's doing
            if job.function.endswith(":alone") or not (known.get("outcome") or killed):
                self._write(msgspec.structs.replace(verdict, outcome="skipped", reason="prove.ops.reason.reference_died"))
        if job.function.endswith(":alone"):
            if stage == "device":
                self._write(verdict)
            self._rest(job)
            return
        if stage == "device":
            self._suspect(verdict, "died")
        self._sweep([msgspec.convert(one, Entry).id for one in job.payload["entries"]])

    def _rest(self, job: Job) -> None:
        """Suspects of a job that died before their turn."""
        for item in job.payload["suspects"]:
            cases = [one for one in item["cases"] if self._journal.done[one].get("suspect")]
            if cases:
                self._job("alone", {"suspects": [{**item, "cases": cases}]}, fresh=True)

    def _failed(self, job: Job, answer: Answer, case: str | None) -> None:
        """A job that ended where no case was running, or by an error of the work itself: once more, then given up entry by entry."""
        tried = int(job.id.partition(".")[2]) + 1
        if job.function.endswith(":alone"):
            for item in job.payload["suspects"]:
                for one in item["cases"]:
                    if self._journal.done[one].get("suspect"):
                        first = msgspec.convert(self._journal.done[one], CaseVerdict)
                        self._write(msgspec.structs.replace(first, reason="prove.ops.reason.not_repeated", said=first.said or answer.said))
            return
        entries = [msgspec.convert(one, Entry).id for one in job.payload["entries"]]
        if tried < MOST_STARTS or len(entries) > 1:
            halves = [entries] if tried < MOST_STARTS else [[one] for one in entries]
            for one in halves:
                self._sweep(one, tried=tried if len(halves) == 1 else 0)
            return
        entry = self._entries[entries[0]]
        self._write(CaseVerdict(
            case=case or entry.case("samples"), op=entry.op.partition("#")[0], outcome="skipped", dtype=entry.dtype, phase=entry.phase,
            reason="prove.ops.reason.job_failed", said=answer.said,
        ))  # fmt: skip
        self._journal.add(f"{entry.id}/*", {"entry": entry.id})
        self._entry_done(entry.id)


def _from_outside(first: CaseVerdict, why: str) -> bool:
    return why == "died" and (first.said or "").startswith(FROM_OUTSIDE)
