"""The processes of a scan: one where the tree is small, else as many as asked for; the result is the same.

Files that give something to others are read before those that take it (:mod:`~sapper.port.order`), each with what is known by
then. Several processes read some files at once, which then know nothing of one another; those are asked again.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from sapper.memory import without_collector
from sapper.port import order
from sapper.port.finding import Unread
from sapper.port.python.index import EMPTY, Index, Ledger, concerning
from sapper.port.rule import Rule
from sapper.port.walk import File
from sapper.port.work import PYTHON, Again, Outcome, Worker

MIN_PARALLEL_BYTES = 6 * 2**20
"""Below this, starting processes costs more than they save."""
_PART_BYTES = 256 * 2**10
_AT_ONCE = 32
"""Files that a process is given to read again."""
_AHEAD = 2
"""Parts of the Python files beyond one for each process that are given out before the first of them is back: no process waits, and what a
file gives is known to most of those that are read after it."""


class New(NamedTuple):
    """A file that is read for the first time, and what it imports, where it is Python."""

    file: File
    imports: tuple[str, ...] = ()


Task = Callable[[Worker, Sequence[Any], Index], list[Any]]
"""What is done with some files, where so much is known of others: a result for each."""

_worker: Worker | None = None


class Crew:
    """Workers of one scan."""

    def __init__(self, worker: Worker, executor: ProcessPoolExecutor | None, jobs: int) -> None:
        self._worker, self._executor, self._jobs = worker, executor, jobs
        self.ledger = Ledger()
        """What the files that were read give to one another."""

    def first(self, files: Sequence[File]) -> list[Outcome]:
        """Each file's outcome, by path."""
        python = [file for file in files if file.language in PYTHON]
        others = [New(file) for file in files if file.language not in PYTHON]
        if self._executor is None:
            with without_collector():  # syntax trees hold no cycles, and looking for some takes a third of the time
                outcomes = _read(self._worker, _givers_first(python, _imports(self._worker, python, EMPTY)), self.ledger)
                outcomes += _first(self._worker, others, EMPTY)
        else:
            outcomes = self._several(python, others)
        return sorted(outcomes, key=lambda outcome: outcome.file.relative)

    def _several(self, python: Sequence[File], others: Sequence[New]) -> list[Outcome]:
        imported = [self._give(_imports, part) for part in _parts(python)]
        imports = [one for told in imported for one in told()]
        outcomes: list[Outcome] = []
        waiting: collections.deque[tuple[Callable[[], list[Outcome]], int]] = collections.deque()
        for part in _parts(_givers_first(python, imports)):
            if len(waiting) >= self._jobs + _AHEAD:
                outcomes += self._heard(*waiting.popleft())
            waiting.append((self._give(_first, part, self.ledger.index), self.ledger.heard))
        rest = [self._give(_first, part) for part in _parts(others)]
        for told, heard in waiting:
            outcomes += self._heard(told, heard)
        return [*outcomes, *(one for told in rest for one in told())]

    def _heard(self, told: Callable[[], list[Outcome]], heard: int) -> list[Outcome]:
        """Outcomes of files that were read when so much was ``heard``, and are heard now."""
        outcomes = told()
        for outcome in outcomes:
            outcome.heard = heard
            _enter(outcome, self.ledger)
        return outcomes

    def again(self, read: Sequence[Again], known: Index) -> list[Outcome]:
        """New outcomes of those files to which others give something else than what they were read with."""
        if self._executor is None:
            with without_collector():
                found = _again(self._worker, read, known)
        else:
            told = [self._give(_again, read[at : at + _AT_ONCE], known) for at in range(0, len(read), _AT_ONCE)]
            found = [one for outcomes in told for one in outcomes()]
        return [outcome for outcome in found if outcome is not None]

    def _give(self, task: Task, items: Sequence[Any], known: Index = EMPTY) -> Callable[[], list[Any]]:
        """Let a process do something with ``items``; what is returned waits for the results."""
        assert self._executor is not None
        # never the ledger's own index, even while it is empty: it grows until the executor gets to pickle it
        known = concerning({name for item in items for name in item.imports}, known) if known else EMPTY
        with contextlib.suppress(BrokenProcessPool):
            return functools.partial(self._results, self._executor.submit(_in_worker, task, items, known), task, items, known)
        return functools.partial(self._alone, task, items, known)

    def _results(self, future: Future[list[Any]], task: Task, items: Sequence[Any], known: Index) -> list[Any]:
        try:
            return future.result()
        except BrokenProcessPool:
            return self._alone(task, items, known)

    def _alone(self, task: Task, items: Sequence[Any], known: Index) -> list[Any]:
        """The same where a process died of one of ``items``: each in a process of its own."""
        return [_alone(task, item, known, self._worker.rules) for item in items]


@contextlib.contextmanager
def workers(files: Sequence[File], rules: Mapping[str, Rule], *, jobs: int | None) -> Iterator[Crew]:
    """The workers for ``files``."""
    if jobs is None:
        jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if sum(file.size_bytes for file in files) < MIN_PARALLEL_BYTES:
            jobs = 1
    if jobs <= 1:
        yield Crew(Worker(rules, alone=True), None, 1)
        return
    with ProcessPoolExecutor(jobs, initializer=_start, initargs=(dict(rules),)) as executor:
        yield Crew(Worker(rules), executor, jobs)


def _givers_first(python: Sequence[File], imports: Sequence[tuple[str, ...]]) -> list[New]:
    told = [(file.relative, imported) for file, imported in zip(python, imports, strict=True)]
    return [New(python[number], imports[number]) for number in order.givers_first(told)]


def _imports(worker: Worker, files: Sequence[File], _known: Index) -> list[tuple[str, ...]]:
    return [worker.imports(file) for file in files]


def _first(worker: Worker, new: Sequence[New], known: Index) -> list[Outcome]:
    return _read(worker, new, Ledger(known))


def _again(worker: Worker, read: Sequence[Again], known: Index) -> list[Outcome | None]:
    return [worker.again(one, known) for one in read]


def _read(worker: Worker, new: Sequence[New], ledger: Ledger) -> list[Outcome]:
    """Read files one after the other, each with what those before it give."""
    outcomes: list[Outcome] = []
    for file, imports in new:
        heard = ledger.heard
        outcome = worker.first(file, imports, ledger.index)
        outcome.heard = heard
        _enter(outcome, ledger)
        outcomes.append(outcome)
    return outcomes


def _enter(outcome: Outcome, ledger: Ledger) -> None:
    if outcome.analysis is not None:
        ledger.add(outcome.analysis.exports, outcome.analysis.carriers)


def _start(rules: dict[str, Rule]) -> None:
    global _worker
    gc.disable()
    _worker = Worker(rules)


def _in_worker(task: Task, items: Sequence[Any], known: Index) -> list[Any]:
    assert _worker is not None
    return task(_worker, items, known)


def _alone(task: Task, item: Any, known: Index, rules: Mapping[str, Rule]) -> Any:
    """What ``task`` gives for an item of a part in which a process died, in a process of its own."""
    with ProcessPoolExecutor(1, initializer=_start, initargs=(dict(rules),)) as executor:
        try:
            return executor.submit(_in_worker, task, [item], known).result()[0]
        except BrokenProcessPool:
            if task is _imports:
                return ()
            return Outcome(file=item.file, unread=[Unread(path=item.file.relative, code="SP-READ-006")])


def _parts(items: Sequence[Any]) -> list[list[Any]]:
    """Neighbours together, about as many bytes in each."""
    parts: list[list[Any]] = []
    size_bytes = _PART_BYTES
    for item in items:
        if size_bytes >= _PART_BYTES:
            parts.append([])
            size_bytes = 0
        parts[-1].append(item)
        size_bytes += (item if isinstance(item, File) else item.file).size_bytes + 2048
    return parts
