"""The processes of a scan: one where the tree is small, else as many as asked for; the result is the same."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from sapper.port.finding import Unread
from sapper.port.rule import Rule
from sapper.port.walk import File
from sapper.port.work import Outcome, Told, Worker

MIN_PARALLEL_BYTES = 6 * 2**20
"""Below this, starting processes costs more than they save."""
_CHUNK_BYTES = 512 * 2**10

_worker: Worker | None = None


class Crew:
    """Workers of one scan."""

    def __init__(self, worker: Worker, executor: ProcessPoolExecutor | None) -> None:
        self._worker, self._executor = worker, executor

    def first(self, files: Sequence[File]) -> list[Outcome]:
        """Each file's outcome, in the order of ``files``."""
        return [outcome for outcome in self._each(files, None) if outcome is not None]

    def again(self, files: Sequence[File], told: Told) -> list[Outcome]:
        """The outcomes of those ``files`` to which the others give something, in the order of ``files``."""
        return [outcome for outcome in self._each(files, told) if outcome is not None]

    def _each(self, files: Sequence[File], told: Told | None) -> list[Outcome | None]:
        if self._executor is None:
            with _without_collector():
                return [_outcome(self._worker, file, told) for file in files]
        chunks = _chunks(files)
        futures = [self._executor.submit(_in_worker, chunk, told) for chunk in chunks]
        outcomes: list[Outcome | None] = []
        for chunk, future in zip(chunks, futures, strict=True):
            try:
                outcomes += future.result()
            except BrokenProcessPool:
                outcomes += [_alone(file, self._worker.rules, told) for file in chunk]
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


def _outcome(worker: Worker, file: File, told: Told | None) -> Outcome | None:
    return worker.first(file) if told is None else worker.again(file, told)


def _start(rules: dict[str, Rule]) -> None:
    global _worker
    gc.disable()
    _worker = Worker(rules)


def _in_worker(files: Sequence[File], told: Told | None) -> list[Outcome | None]:
    assert _worker is not None
    return [_outcome(_worker, file, told) for file in files]


def _alone(file: File, rules: Mapping[str, Rule], told: Told | None) -> Outcome | None:
    """A file of a chunk in which a process died, in a process of its own."""
    with ProcessPoolExecutor(1, initializer=_start, initargs=(dict(rules),)) as executor:
        try:
            return executor.submit(_in_worker, [file], told).result()[0]
        except BrokenProcessPool:
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
