"""A speed run from the outside: one worker at a time on a quiet machine, and whatever an op does to it costs that op alone."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from sapper import __version__
from sapper.chips.schema import Chip
from sapper.errors import SapperError
from sapper.prove.isolate import Answer, Job, Pool
from sapper.prove.speed import expect
from sapper.prove.speed.result import FORMAT, VERSION, Judged, OpSpeed, Roofline, Speed
from sapper.prove.verdict import Outcome

WORKER = "sapper.prove.speed.worker"
CASE_S = 0.5
ROOFLINE_CASES = 20.0
"""The roofline has the time of so many calls."""
LIMIT_S = 180.0
"""What tracing the step and one call may take before it counts as hanging."""

Progress = Callable[[OpSpeed, int, int], None]
"""Told of each op as it is done: the op, how many are done, of how many."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is to be measured, on what."""

    backend: str
    target: str
    dtype: str = "keep"
    seq: int | None = None
    batch: int | None = None
    seed: int = 0
    threads: int = 1
    case_s: float = CASE_S

    def payload(self) -> dict[str, Any]:
        """As the workers read it."""
        return {**dataclasses.asdict(self), "roofline_s": ROOFLINE_CASES * self.case_s}


def speed_of(
    question: Question, *, real: bool, chip_of: Callable[[str], Chip | None], known: Mapping[str, tuple[Outcome, Judged]] | None = None,
    progress: Progress = lambda *_: None,
) -> Speed:  # fmt: skip
    """Measure the distinct calls of one training step of a workload.

    Args:
        question: What, on what.
        real: Whether the backend stands for what users run.
        chip_of: The catalogue's chip of a device that calls itself so, where it is known.
        known: Call id -> what a proof in the same folder has found, and which; all others are judged now.
        progress: Told of each op.

    Raises:
        SapperError: The backend does not start, or the step does not run on it.
    """
    setup = {"backend": question.backend, "seed": question.seed, "threads": question.threads}
    with Pool(f"{WORKER}:setup", setup, workers=1, limit_s=LIMIT_S) as pool:
        started = pool.start()
        step = _step(pool, question)
        found = {op.id: op for op in msgspec.convert(step["ops"], list[OpSpeed])}
        jobs = (_job(op, question, (known or {}).get(op.call_id)) for op in found.values())
        for done, answer in enumerate(pool.run(jobs), 1):
            op = found[answer.id] = _answered(found[answer.id], answer)
            progress(op, done, len(found))
    return _speed(question, started, step, list(found.values()), real=real, chip=chip_of(started["device"]))


def _step(pool: Pool, question: Question) -> dict[str, Any]:
    (answer,) = pool.run([Job(id="step", function=f"{WORKER}:measure_step", payload=question.payload())])
    if answer.status != "done":
        said = (answer.said or answer.status).splitlines()[0]
        raise SapperError("SP-SPEED-001", where=question.target, target=question.target, backend=question.backend, said=said)
    return dict(answer.value)


def _job(op: OpSpeed, question: Question, known: tuple[Outcome, Judged] | None) -> Job:
    payload = {**question.payload(), "op": msgspec.to_builtins(op), "known": known}
    return Job(id=op.id, function=f"{WORKER}:measure_op", payload=payload)


def _answered(op: OpSpeed, answer: Answer) -> OpSpeed:
    """What a worker found, or what became of it."""
    if answer.status == "done":
        return msgspec.convert(answer.value, OpSpeed)
    outcome: Outcome = "crash" if answer.status == "raised" else answer.status
    return msgspec.structs.replace(op, outcome=outcome, judged="now", said=answer.said)


def _speed(
    question: Question, started: Mapping[str, Any], step: Mapping[str, Any], found: list[OpSpeed], *, real: bool, chip: Chip | None
) -> Speed:
    dtype = step["dtype"]
    catalogue = expect.catalogue_roofline(chip, dtype) if chip is not None else None
    total_s = sum(one.count * one.timing.median_s for one in found if one.timing) or None
    ops = [_told(one, chip, catalogue, dtype=dtype, total_s=total_s) for one in found]
    return Speed(
        format=FORMAT, version=VERSION, sapper=__version__, date=datetime.date.today().isoformat(), backend=question.backend, real=real,
        versions=dict(started["versions"]), device=started["device"], target=question.target, dtype=dtype, seed=question.seed,
        chip=chip.id if chip is not None else None, conditions=dict(started["conditions"]),
        measured=msgspec.convert(step["roofline"], Roofline), catalogue=catalogue, step_s=step["step_s"],
        ops=tuple(sorted(ops, key=lambda one: -(one.step_share or 0.0))), not_covered=dict(step["left_out"]),
    )  # fmt: skip


def _told(op: OpSpeed, chip: Chip | None, catalogue: Roofline | None, *, dtype: str, total_s: float | None) -> OpSpeed:
    """``op`` with what the catalogue and predict say of it, and its share of the step."""
    share = op.count * op.timing.median_s / total_s if op.timing and total_s else None
    least_s = expect.limit_of(catalogue, flops=op.flops, size_bytes=op.size_bytes)[1] if catalogue is not None else None
    predicted = expect.predicted(op, chip, dtype) if chip is not None else None
    return msgspec.structs.replace(op, step_share=share, catalogue_s=least_s, predicted=predicted)
