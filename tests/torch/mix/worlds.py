"""Worlds of processes that run many jobs one after the other, since starting processes takes longer than the jobs."""

from __future__ import annotations

import multiprocessing
import queue
import traceback
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

import torch
from sapper.mix.plan import MixPlan, Pipeline, Stage
from sapper.mix.run.comm import Comm, GlooComm

LIMIT_S = 120.0


def stage(first: int, last: int, **more: Any) -> Stage:
    return Stage(group=more.pop("group", "a"), first=first, last=last, **more)


def plan(*pipelines: Pipeline, layers: int = 4, seq: int = 16, precision: str = "fp64", wire: Any = "fp64", **more: Any) -> MixPlan:
    return MixPlan(
        model="m", model_digest="0", cluster="c", cluster_digest="1", layers=layers, seq_len=seq,
        global_batch=sum(one.sequences for one in pipelines), pipelines=pipelines, precision=precision, wire=wire, **more,
    )  # fmt: skip


class Place:
    """One process of a world."""

    def __init__(self, rank: int, store: Any) -> None:
        self.rank, self._store, self._count = rank, store, 0

    def join(self, size: int) -> Comm | None:
        """Communication among the first ``size`` processes; None for the others. All processes call it equally often."""
        self._count += 1
        if self.rank >= size:
            return None
        store = dist.PrefixStore(f"job {self._count}", self._store)
        return GlooComm(store, rank=self.rank, size=size, timeout_s=LIMIT_S)


def world(size: int, task: Callable[[Place], Any], *, folder: Path, lost: Collection[int] = ()) -> list[Any]:
    """``task`` (a function of a module) on ``size`` processes, and what each returns by rank, but for those that get ``lost``.

    The processes are forked from one that has imported everything, once for all worlds, and has used no autograd, which does not
    survive a fork.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transformers", "sapper.mix.run.runner"])
    answers: Any = context.Queue()
    store = str(folder / "store")
    workers = [context.Process(target=_work, args=(rank, size, store, task, answers), daemon=True) for rank in range(size)]
    for one in workers:
        one.start()
    try:
        found: dict[int, Any] = {}
        while len(found) < size - len(lost):
            rank, fine, value = answers.get(timeout=LIMIT_S)
            assert fine, f"rank {rank}: {value}"
            found[rank] = value
        return [found[rank] for rank in sorted(found)]
    except queue.Empty:
        raise AssertionError("a process did not answer in time") from None
    finally:
        for one in workers:
            one.join(timeout=1)
            one.kill()
            one.join()


def _work(rank: int, size: int, store: str, task: Callable[[Place], Any], answers: Any) -> None:
    torch.set_num_threads(1)
    try:
        answers.put((rank, True, task(Place(rank, dist.FileStore(store, size)))))
    except BaseException:
        answers.put((rank, False, traceback.format_exc()))


def differences(weights: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> float:
    """The largest difference of any element of any weight."""
    return max((float((one.detach() - truth[name]).abs().max()) for name, one in weights.items()), default=0.0)


def cut(
    *edges: int, replicas: Sequence[int] = (), micro_batch: int = 1, micro_batches: int = 1, copies: int = 1, group: str = "a"
) -> Pipeline:
    """A pipeline whose stages end where ``edges`` say."""
    counts = replicas or [1] * len(edges)
    stages = tuple(
        stage(first, last, replicas=count, group=group) for first, last, count in zip((0, *edges[:-1]), edges, counts, strict=True)
    )
    return Pipeline(stages=stages, micro_batch=micro_batch, micro_batches=micro_batches, copies=copies)
