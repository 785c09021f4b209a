"""A few processes on this machine, each with a seat; they are forked, so that none imports PyTorch once more."""

from __future__ import annotations

import functools
import multiprocessing
import os
import queue
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

import torch
from sapper.errors import BadValue, SapperError
from sapper.mix.run.comm import Comm, GlooComm

LONGEST_S = 300.0


def world(size: int, task: Callable[[Comm], Any], *, beside: Callable[[], Any], limit_s: float = LONGEST_S) -> tuple[list[Any], Any]:
    """What ``task`` returns on each of ``size`` processes, by rank, and what ``beside`` returns in one more.

    This process computes no gradients itself: PyTorch's autograd does not survive a fork.

    Args:
        size: Processes.
        task: Run by each, with communication among all of them. What it returns is pickled.
        beside: Run by one more.
        limit_s: For all of it.

    Raises:
        BadValue: A process failed or did not answer in time; what it said is in the message.
    """
    context: Any = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    with tempfile.TemporaryDirectory() as folder:
        answers = context.Queue()
        joined = functools.partial(_joined, task, size, os.path.join(folder, "store"))
        works = [*(functools.partial(joined, rank) for rank in range(size)), beside]
        workers = [context.Process(target=_work, args=(at, work, answers), daemon=True) for at, work in enumerate(works)]
        for worker in workers:
            worker.start()
        try:
            *found, there = _collected(answers, len(works), deadline_s=time.monotonic() + limit_s)
            return found, there
        finally:
            for worker in workers:
                worker.join(timeout=1.0)
                worker.kill()
                worker.join()


def _collected(answers: Any, size: int, *, deadline_s: float) -> list[Any]:
    found: dict[int, Any] = {}
    while len(found) < size:
        try:
            rank, problem, value = answers.get(timeout=max(deadline_s - time.monotonic(), 0.01))
        except queue.Empty:
            late = ", ".join(str(rank) for rank in range(size) if rank not in found)
            raise BadValue("SP-MIX-282", where="sapper mix check", ranks=late) from None
        if problem is not None:
            raise BadValue("SP-MIX-281", where="sapper mix check", rank=rank, problem=problem)
        found[rank] = value
    return [found[rank] for rank in range(size)]


def _joined(task: Callable[[Comm], Any], size: int, store: str, rank: int) -> Any:
    return task(GlooComm(dist.FileStore(store, size), rank=rank, size=size, timeout_s=LONGEST_S))


def _work(rank: int, work: Callable[[], Any], answers: Any) -> None:
    torch.set_num_threads(1)
    try:
        answers.put((rank, None, work()))
    except SapperError as error:
        answers.put((rank, error.render(), None))
    except Exception as error:
        answers.put((rank, f"{type(error).__name__}: {error}", None))
