"""The processes of a scan: one where the tree is small, else as many as asked for; the result is the same."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from sapper.port.finding import Unread
from sapper.port.rule import Rule
from sapper.port.walk import File
from sapper.port.work import Outcome, Worker

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
        if self._executor is None:
            return [self._worker.first(file) for file in files]
        chunks = _chunks(files)
        futures = [self._executor.submit(_first, chunk) for chunk in chunks]
        outcomes: list[Outcome] = []
        for chunk, future in zip(chunks, futures, strict=True):
            try:
                outcomes += future.result()
            except BrokenProcessPool:
                outcomes += [_alone(file, self._worker.rules) for file in chunk]
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


def _start(rules: dict[str, Rule]) -> None:
    global _worker
    _worker = Worker(rules)


def _first(files: Sequence[File]) -> list[Outcome]:
    assert _worker is not None
    return [_worker.first(file) for file in files]


def _alone(file: File, rules: Mapping[str, Rule]) -> Outcome:
    """A file of a chunk in which a process died, in a process of its own."""
    with ProcessPoolExecutor(1, initializer=_start, initargs=(dict(rules),)) as executor:
        try:
            return executor.submit(_first, [file]).result()[0]
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
