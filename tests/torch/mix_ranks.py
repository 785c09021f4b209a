"""Several processes of one job, for tests: forked from a server that has imported PyTorch once, each with a time limit."""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable
from typing import Any

_LIMIT_S = 120.0


def _one(work: Callable[..., Any], rank: int, args: tuple[Any, ...], answer: Any) -> None:
    import torch

    torch.set_num_threads(1)
    try:
        answer.send((True, work(rank, *args)))
    except BaseException:
        answer.send((False, traceback.format_exc()))
        raise SystemExit(1) from None


def ranks(world: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """What ``work(rank, *args)`` returns on each of ``world`` processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "transformers"])
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    processes = [
        context.Process(target=_one, args=(work, rank, args, sender), daemon=True) for rank, (_, sender) in enumerate(pipes)
    ]  # fmt: skip
    try:
        for process in processes:
            process.start()
        answers = []
        for rank, (receiver, _) in enumerate(pipes):
            assert receiver.poll(_LIMIT_S), f"rank {rank} did not answer in {_LIMIT_S:g} s"
            answers.append(receiver.recv())
        faults = [f"rank {rank}:\n{answer}" for rank, (good, answer) in enumerate(answers) if not good]
        assert not faults, "\n".join(faults)
        return [answer for _, answer in answers]
    finally:
        for process in processes:
            process.join(5.0)
            if process.is_alive():
                process.kill()
                process.join()
