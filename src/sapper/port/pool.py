"""The processes of a scan: one where the tree is small, else as many as asked for; the result is the same."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from sapper.port import order
from sapper.port.finding import Unread
from sapper.port.python.index import Index, Ledger
from sapper.port.rule import Rule
from sapper.port.walk import File
from sapper.port.work import Again, Outcome, Worker

T = TypeVar("T", File, tuple[Again, Index])
"""What a process is given to do: a file for the first time, or again with what is known."""

MIN_PARALLEL_BYTES = 6 * 2**20
"""Below this, starting processes costs more than they save."""
_CHUNK_BYTES = 512 * 2**10
_AT_ONCE = 32
"""Files that a process is given to read again."""

_worker: Worker | None = None


class Crew:
    """Workers of one scan."""

    def __init__(self, worker: Worker, executor: ProcessPoolExecutor | None) -> None:
        self._worker, self._executor = worker, executor

    def first(self, files: Sequence[File]) -> list[Outcome]:
        """Each file's outcome, in the order of ``files``.

        One process reads files that give before those that take, each with what is known by then. Several read them as they
        come and know nothing of one another, so that more is read again.
        """
        if self._executor is None:
            with _without_collector():
                return self._givers_first(files)
        return [outcome for outcome in self._each(_chunks(files), _first) if outcome is not None]

    def again(self, read: Sequence[Again], known: Index) -> list[Outcome]:
        """New outcomes of those files to which others give something else than what they were read with."""
        if self._executor is None:
            with _without_collector():
                found = [self._worker.again(one, known) for one in read]
        else:
            chunks = [[(one, known) for one in read[at : at + _AT_ONCE]] for at in range(0, len(read), _AT_ONCE)]
            found = self._each(chunks, _again)
        return [outcome for outcome in found if outcome is not None]

    def _givers_first(self, files: Sequence[File]) -> list[Outcome]:
        ledger = Ledger()
        outcomes: dict[int, Outcome] = {}
        for number in order.givers_first([(file.relative, self._worker.imports(file)) for file in files]):
            outcome = outcomes[number] = self._worker.first(files[number], ledger.index)
            if outcome.analysis is not None:
                ledger.add(outcome.analysis.exports, outcome.analysis.carriers)
        return [outcomes[number] for number in range(len(files))]

    def _each(self, chunks: Sequence[Sequence[T]], task: Callable[[Worker, T], Outcome | None]) -> list[Outcome | None]:
        assert self._executor is not None
        futures = [self._executor.submit(_in_worker, chunk, task) for chunk in chunks]
        outcomes: list[Outcome | None] = []
        for chunk, future in zip(chunks, futures, strict=True):
            try:
                outcomes += future.result()
            except BrokenProcessPool:
                outcomes += [_alone(one, self._worker.rules, task) for one in chunk]
        return outcomes


@contextlib.contextmanager
def workers(files: Sequence[File], rules: Mapping[str, Rule], *, jobs: int | None) -> Iterator[Crew]:
    """The workers for ``files``."""
    worker = Worker(rules)
    if jobs is None:
        jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if sum(file.size_bytes for file in files) < MIN_PARALLEL_BYTES:
            jobs = 1
    if jobs <= 1:
        yield Crew(worker, None)
        return
    with ProcessPoolExecutor(jobs, initializer=_start, initargs=(dict(rules),)) as executor:
        yield Crew(worker, executor)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Syntax trees hold no cycles, and looking for some in them takes a third of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _first(worker: Worker, file: File) -> Outcome:
    return worker.first(file)


def _again(worker: Worker, read: tuple[Again, Index]) -> Outcome | None:
    return worker.again(*read)


def _start(rules: dict[str, Rule]) -> None:
    global _worker
    gc.disable()
    _worker = Worker(rules)


def _in_worker(chunk: Sequence[T], task: Callable[[Worker, T], Outcome | None]) -> list[Outcome | None]:
    assert _worker is not None
    return [task(_worker, one) for one in chunk]


def _alone(one: T, rules: Mapping[str, Rule], task: Callable[[Worker, T], Outcome | None]) -> Outcome | None:
    """A file of a chunk in which a process died, in a process of its own."""
    with ProcessPoolExecutor(1, initializer=_start, initargs=(dict(rules),)) as executor:
        try:
            return executor.submit(_in_worker, [one], task).result()[0]
        except BrokenProcessPool:
            file = one if isinstance(one, File) else one[0].file
            return Outcome(file=file, unread=[Unread(path=file.relative, code="SP-READ-006")])


def _chunks(files: Sequence[File]) -> list[list[File]]:
    """Neighbours together, about as many bytes in each."""
    chunks: list[list[File]] = []
    size_bytes = _CHUNK_BYTES
    for file in files:
        if size_bytes >= _CHUNK_BYTES:
            chunks.append([])
            size_bytes = 0
        chunks[-1].append(file)
        size_bytes += file.size_bytes + 2048
    return chunks
