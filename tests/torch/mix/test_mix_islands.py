"""A job over islands that share no communication library gives the numbers of one device, and refuses members that do not belong."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any

import pytest
from test_mix_run import job, truth
from worlds import Place, cut, differences, plan, stage, world

from sapper.mix.emulate.job import free_port
from sapper.mix.plan import MixPlan, Pipeline
from sapper.mix.run.runner import Runner
from sapper.mix.run.start import join
from sapper.mix.wire import Disagreement, Limits, PeerLost

LIMITS = Limits(meet_s=60.0, message_s=60.0, silent_s=30.0)


def across(*, wire: str = "fp64") -> MixPlan:
    """A pipeline from island a (two replicas) to island b, and a copy of all of it in island c of two."""
    first = Pipeline(stages=(stage(0, 3, replicas=2), stage(3, 6, group="b")), micro_batch=2, micro_batches=3)
    return plan(first, cut(6, micro_batch=1, micro_batches=2, copies=2, group="c"), wire=wire)


JOBS = {"exact wire": job(across(), "llama"), "tied": job(across(), "gpt2"), "bf16 wire": job(across(wire="bf16"), "llama")}


def compared(ports: list[int], truths: dict[str, Any], place: Place) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for (name, one), port in zip(JOBS.items(), ports, strict=False):
        comm = join(one.plan, place.rank, at=("127.0.0.1", port), model="m", limits=LIMITS)
        runner = Runner(one, comm)
        losses, weights = truths[name]
        off = max(abs(runner.step().loss - loss) for loss in losses)
        found[name] = (off, differences(runner.stage.masters, weights))
        comm.close()
    try:
        join(JOBS["tied"].plan, place.rank, at=("127.0.0.1", ports[-1]), model="other" if place.rank == 3 else "m", limits=LIMITS)
    except Disagreement as error:
        found["refused"] = str(error)
    return found


def left(port: int, place: Place) -> dict[str, Any]:
    """What each sees of rank 4, which goes without a word after the first step."""
    one = JOBS["exact wire"]
    comm = join(one.plan, place.rank, at=("127.0.0.1", port), model="m", limits=LIMITS)
    runner = Runner(one, comm)
    runner.step()
    if place.rank == 4:
        return {"gone": True}  # and the process ends
    began = time.monotonic()
    try:
        runner.step()
    except PeerLost as error:
        comm.close()
        return {"lost": error.rank, "took_s": time.monotonic() - began}
    return {}


@pytest.mark.slow
def test_islands_give_the_numbers_of_one_device(tmp_path: Path) -> None:
    truths = {name: truth(one) for name, one in JOBS.items()}
    ports = [free_port() for _ in range(len(JOBS) + 1)]

    found = world(5, functools.partial(compared, ports, truths), folder=tmp_path)

    for one in found:
        assert max(one["exact wire"]) <= 1e-12 and max(one["tied"]) <= 1e-12, one
        assert 1e-12 < one["bf16 wire"][0] < 1e-2, one
        assert "rank 3 has model other, rank 0, 1, 2, 4 has m" in one["refused"]


@pytest.mark.slow
def test_who_is_gone_is_known_on_every_island(tmp_path: Path) -> None:
    found = world(5, functools.partial(left, free_port()), folder=tmp_path)

    assert all("lost" in one and one["took_s"] < LIMITS.silent_s for one in found[:4]), found
