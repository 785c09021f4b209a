"""What the workers of a campaign do: list the ops, sweep through them, look at one alone."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

import torch
from sapper.backends import Backend, find
from sapper.prove.ops import opinfo
from sapper.prove.ops.cases import Draft, drafts_of
from sapper.prove.ops.entry import Entry
from sapper.prove.ops.examine import Ran, Runner, same_bits
from sapper.prove.ops.result import Asked
from sapper.prove.verdict import GREEN, RED, CaseVerdict

UNSTEADY_SHARE = 0.1
"""Of its error, that a wrong result may change from run to run and still be called wrong and not nondeterministic."""
REPEATS = 5
"""Runs of a suspect in a process of its own."""


class _Worker:
    """State of the worker process."""

    backend: Backend
    asked: Asked
    calls: Path


def repro(payload: dict[str, Any]) -> dict[str, Any]:
    """A script that shows a finding alone."""
    from sapper.prove.repro import write_repro

    entry = msgspec.convert(payload["entry"], Entry)
    for draft in _drafts(entry, only=[payload["case"]]):
        case = draft.make()
        if case is not None and not isinstance(case, CaseVerdict):
            made = write_repro(
                case.computation, _Worker.asked.backend, outcome=payload["outcome"], folder=Path(payload["folder"]),
                name=payload["name"], labels=payload["labels"], budget_s=payload["budget_s"],
            )  # fmt: skip
            return {"path": made.path, "reproduced": made.reproduced, "reason": made.reason}
    return {"path": None, "reproduced": False, "reason": "prove.repro.no_case"}


def worker() -> type[_Worker]:
    """The state of this process."""
    return _Worker


def setup(payload: dict[str, Any]) -> dict[str, Any]:
    """Open the backend; its versions and kind."""
    torch.set_num_threads(1)
    _Worker.asked = msgspec.convert(payload["asked"], Asked)
    _Worker.calls = Path(payload["calls"])
    _Worker.backend = find(_Worker.asked.backend)
    if _Worker.backend.kind == "device":
        _Worker.backend.device()
    if _Worker.asked.model is None:
        opinfo.database()  # takes seconds, which no case should be charged with
    versions = {name: str(version) for name, version in _Worker.backend.versions().items()}
    return {"versions": versions, "kind": _Worker.backend.kind, "real": _Worker.backend.real}


def listing(payload: dict[str, Any]) -> dict[str, Any]:
    """All entries of the database that the question takes in."""
    asked = _Worker.asked
    return {"entries": msgspec.to_builtins(opinfo.entries(asked.dtypes, asked.phases)), "names": sorted(opinfo.database())}


def sweep(payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every case once, in order; then those that were right once more, shuffled: what depends on its predecessors shows.

    The payload has ``entries``; ``done``: outcomes by id of cases that are judged already, of which the green ones run again
    without being judged; ``closed``: entries of which no case is to run any more.
    """
    done: dict[str, str] = payload["done"]
    kept: list[tuple[Runner, list[torch.Tensor]]] = []
    for entry in msgspec.convert(payload["entries"], list[Entry]):
        for draft in _drafts(entry):
            if draft.id in done and done[draft.id] not in GREEN:
                continue
            if entry.id in payload["closed"]:
                if draft.id not in done:
                    yield {"verdict": msgspec.to_builtins(_given_up(entry, draft.id))}
                continue
            yield {"begin": draft.id, "stage": "reference"}
            case = draft.make()
            if isinstance(case, CaseVerdict):
                yield {"verdict": msgspec.to_builtins(case)}
            elif case is not None:
                yield {"begin": draft.id, "stage": "device"}
                runner = Runner(case, _Worker.backend)
                ran = runner.run()
                green = draft.id in done
                if not green:
                    yield {"begin": draft.id, "stage": "reference"}
                    verdict = runner.judged(ran)
                    green = verdict.outcome in GREEN
                    yield {"verdict": msgspec.to_builtins(verdict), "equals_peer": runner.equals_peer(ran)}
                if green and ran.outputs is not None and not case.random and not case.uninitialised:
                    kept.append((runner, ran.outputs))
            yield {"end": draft.id}
    yield from _second_pass(kept)
    for one in payload["entries"]:
        yield {"entry": msgspec.convert(one, Entry).id}


def _given_up(entry: Entry, case: str) -> CaseVerdict:
    op, reason = entry.op.partition("#")[0], "prove.ops.reason.given_up"
    return CaseVerdict(case=case, op=op, outcome="skipped", dtype=entry.dtype, phase=entry.phase, reason=reason)


def _second_pass(kept: list[tuple[Runner, list[torch.Tensor]]]) -> Iterator[dict[str, Any]]:
    random.Random(_Worker.asked.seed).shuffle(kept)
    for runner, first in kept:
        yield {"begin": runner.case.id, "stage": "device"}
        again = _dirtied(runner, first)
        if not _alike(again, first):
            verdict = runner.judged(again)
            if verdict.outcome in RED:
                yield {"later": msgspec.to_builtins(verdict)}


def alone(payload: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Suspects of one entry or several, in a process that has run nothing else; each several times."""
    for item in payload["suspects"]:
        entry = msgspec.convert(item["entry"], Entry)
        for draft in _drafts(entry, only=item["cases"]):
            yield {"begin": draft.id, "stage": "reference"}
            case = draft.make()
            if isinstance(case, CaseVerdict):
                yield {"alone": msgspec.to_builtins(case), "steady": True}
            elif case is not None:
                yield {"begin": draft.id, "stage": "device"}
                runner = Runner(case, _Worker.backend)
                first = runner.run()
                verdict = runner.judged(first)
                yield {"alone": msgspec.to_builtins(verdict), "steady": _steady(runner, first, verdict)}


def _steady(runner: Runner, first: Ran, verdict: CaseVerdict) -> bool:
    """Whether it comes out alike each time: red or not, and where red, wrong in the same way.

    Sums in another order each time do not make a result unsteady: they are within what a correct stack does.
    """
    if first.outputs is None or runner.case.random or runner.case.uninitialised:
        return True
    error_l2 = max((one.error_l2 or 0.0 for one in verdict.scores), default=0.0)
    for _ in range(REPEATS - 1):
        again = _dirtied(runner, first.outputs)
        if _alike(again, first.outputs):
            continue
        if (runner.judged(again).outcome in RED) != (verdict.outcome in RED):
            return False
        if verdict.outcome in RED and again.outputs is not None and _apart(again.outputs, first.outputs) > UNSTEADY_SHARE * error_l2:
            return False
    return True


def _apart(ones: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> float:
    """Largest relative distance of two runs, as the L2 norm of an output has it."""
    found = 0.0
    for one, other in zip(ones, others, strict=False):
        if one.shape != other.shape or one.dtype != other.dtype:
            return float("inf")
        wide = [torch.nan_to_num(part).to(torch.complex128 if part.is_complex() else torch.float64) for part in (one, other)]
        found = max(found, float((wide[0] - wide[1]).norm() / wide[1].norm().clamp_min(1e-300)))
    return found


def _drafts(entry: Entry, only: Sequence[str] | None = None) -> Iterator[Draft]:
    asked = _Worker.asked
    return drafts_of(
        entry, most=asked.samples, seed=asked.seed, with_edges=asked.edges, values_too="forward" not in asked.phases,
        calls=_Worker.calls, only=only,
    )  # fmt: skip


def _alike(ran: Ran, first: Sequence[torch.Tensor]) -> bool:
    if ran.outputs is None or len(ran.outputs) != len(first):
        return False
    return all(same_bits(one, other) for one, other in zip(ran.outputs, first, strict=True))


def _dirtied(runner: Runner, like: Sequence[torch.Tensor]) -> Ran:
    """A run on a heap that holds other values where a kernel forgets to write."""
    if _Worker.backend.kind == "device":
        with contextlib.suppress(Exception):
            device = _Worker.backend.device()
            rubbish = [torch.full_like(one, float("nan") if one.is_floating_point() else 77).to(device) for one in like]
            del rubbish
    return runner.run()
