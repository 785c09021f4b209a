"""The inside of the worker for stacks that take graphs: the whole step, ops in company, windows of the graph."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

import torch
from sapper.backends import Backend, find
from sapper.backends.base import Unsupported
from sapper.prove.call import Call
from sapper.prove.judge import judge
from sapper.prove.model.graph import StepGraph
from sapper.prove.model.local import judged
from sapper.prove.model.records import record_of
from sapper.prove.model.result import OpRecord
from sapper.prove.model.step import TrainingStep
from sapper.prove.model.worker import Setting
from sapper.prove.reference import NoReference, refer
from sapper.prove.stored import to_bytes
from sapper.prove.verdict import RED

OUTPUTS = "model.first.safetensors"
WHOLE_OPS = frozenset({"inductor"})
"""Stacks that get ops as they are dispatched; the others take PyTorch's core ATen ops."""


class WholeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the stack made of the whole step; tensors are in a file."""

    cpu_s: float = 0.0
    """Of the second call, when it has compiled."""
    where: str | None = None
    ops: int | None = None
    fallbacks: tuple[str, ...] = ()
    unsupported: str | None = None
    """The stack's words where it refuses the step."""
    again: str | None = None
    """Label of an output that differs from call to call; None where none does."""


class CompanyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Verdicts of ops that were compiled together."""

    records: tuple[OpRecord, ...] = ()
    skipped: dict[str, int] = {}
    failed: str | None = None
    """What the stack raised for the company as a whole; ask again for fewer."""
    unsupported: bool = False


class WindowAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a window of the graph is wrong, and which of its results is worst."""

    wrong: bool = False
    name: str | None = None
    ratio: float | None = None
    outcome: str = "ok"
    said: str | None = None


class Kinds(msgspec.Struct, frozen=True, kw_only=True):
    """The graph in outline: nodes of one kind together."""

    nodes: int
    kinds: tuple[tuple[int, ...], ...]


def outline(payload: dict[str, Any]) -> dict[str, Any]:
    """The kinds of the step's graph, in the order of their first node."""
    graph = _graph(msgspec.json.encode(payload))[1]
    found: dict[str, list[int]] = {}
    for at in range(len(graph.nodes)):
        kind = graph.kind(at)
        if kind is not None:
            found.setdefault(kind, []).append(at)
    answer: dict[str, Any] = msgspec.to_builtins(Kinds(nodes=len(graph.nodes), kinds=tuple(map(tuple, found.values()))))
    return answer


def whole(payload: dict[str, Any]) -> dict[str, Any]:
    """The step on the stack, twice."""
    setting = msgspec.convert(payload, Setting)
    step = TrainingStep(opened=setting.opened(), functional=True)
    computation = step.computation()
    try:
        executable = find(setting.backend).prepare(computation)
        outputs = executable(computation.tensors)
        (Path(setting.folder) / OUTPUTS).write_bytes(
            to_bytes(outputs, {"names": msgspec.json.encode(list(computation.labels)).decode()})
        )
        started_s = time.process_time()
        again = executable(computation.tensors)
        cpu_s = time.process_time() - started_s
    except Unsupported as error:
        return _plain(WholeAnswer(unsupported=str(error)[:300]))
    differs = next(
        (label for label, one, two in zip(computation.labels, outputs, again, strict=True) if not _same(one, two)), None
    )
    executed = executable.executed()
    return _plain(
        WholeAnswer(
            cpu_s=cpu_s, where=executed.where if executed else None, ops=executed.ops if executed else None,
            fallbacks=executed.fallbacks if executed else (), again=differs,
        )
    )


def company(payload: dict[str, Any]) -> dict[str, Any]:
    """Verdicts of one node of each kind given, and of the other nodes of these kinds through the same compiled graph."""
    backend, graph = _graph(msgspec.json.encode(payload["setting"]))
    kinds: list[list[int]] = payload["kinds"]
    try:
        computation = graph.company([kind[0] for kind in kinds])
        executable = backend.prepare(computation)
        records: list[OpRecord] = []
        skipped: dict[str, int] = {}
        for turn in range(max(map(len, kinds))):
            positions = [kind[turn] if turn < len(kind) else kind[0] for kind in kinds]
            tensors = [one for at in positions for one in graph.tensors_of(at)] or list(computation.tensors)
            got = executable(tensors)
            fresh = [turn < len(kind) for kind in kinds]
            _judge(graph, positions, fresh, got=got, records=records, skipped=skipped)
    except Unsupported as error:
        return _plain(CompanyAnswer(failed=str(error)[:300], unsupported=True))
    except Exception as error:
        return _plain(CompanyAnswer(failed=f"{type(error).__name__}: {error}"[:500]))
    folder = Path(payload["setting"]["folder"])
    for record in records:
        call = graph.call(record.index) if record.outcome in RED else None
        if call is not None:
            _kept(call, folder, record.index)
    return _plain(CompanyAnswer(records=tuple(records), skipped=skipped))


def described(payload: dict[str, Any]) -> dict[str, Any]:
    """The record of a node whose verdict lies elsewhere; its call is kept where that verdict is a finding."""
    _, graph = _graph(msgspec.json.encode(payload["setting"]))
    at = payload["at"]
    call, place = graph.call(at), graph.places[at]
    assert call is not None
    if payload["red"]:
        _kept(call, Path(payload["setting"]["folder"]), at)
    return _plain(record_of(call, index=at, phase=place.phase, path=place.path))


def _kept(call: Call, folder: Path, at: int) -> None:
    call.save(folder / f"model.first.{at}.call.safetensors")


def window(payload: dict[str, Any]) -> dict[str, Any]:
    """Whether nodes ``low`` to ``high`` together are wrong."""
    backend, graph = _graph(msgspec.json.encode(payload["setting"]))
    computation = graph.window(payload["low"], payload["high"])
    if not computation.labels:
        return _plain(WindowAnswer())
    try:
        got = backend.prepare(computation)(computation.tensors)
    except Exception as error:
        return _plain(WindowAnswer(outcome="unsupported", said=f"{type(error).__name__}: {error}"[:300]))
    try:
        scores = judge(got, refer(computation), computation.labels)
    except NoReference as error:
        return _plain(WindowAnswer(outcome="skipped", said=str(error)[:300]))
    red = [one for one in scores if one.outcome in RED]
    if not red:
        return _plain(WindowAnswer())
    worst = max(red, key=lambda one: one.ratio or float("inf"))
    return _plain(WindowAnswer(wrong=True, name=worst.label, ratio=worst.ratio, outcome=worst.outcome))


def region(payload: dict[str, Any]) -> list[list[Any]]:
    """Index, op, phase and path of the nodes of a window that its worst result depends on."""
    _, graph = _graph(msgspec.json.encode(payload["setting"]))
    positions = graph.ancestors(payload["name"], payload["low"], payload["high"])
    return [[at, _name(graph.nodes[at].target), graph.places[at].phase, graph.places[at].path] for at in positions]


def _judge(
    graph: StepGraph, positions: Sequence[int], fresh: Sequence[bool], *, got: Sequence[torch.Tensor], records: list[OpRecord],
    skipped: dict[str, int],
) -> None:
    start = 0
    for at, new in zip(positions, fresh, strict=True):
        call = graph.call(at)
        assert call is not None
        count = len(call.labels)
        outputs, start = list(got[start : start + count]), start + count
        if not new or call.nature == "uninitialised":
            continue
        if call.nature == "random":
            skipped["random"] = skipped.get("random", 0) + 1
            continue
        scores, why = judged(call, outputs)
        if why is not None:
            skipped[why] = skipped.get(why, 0) + 1
            continue
        place = graph.places[at]
        records.append(record_of(call, scores, index=at, phase=place.phase, path=place.path))


def decomposes(backend: str) -> bool:
    """Whether a stack gets core ATen ops."""
    return backend.partition(":")[0] not in WHOLE_OPS


@functools.lru_cache(maxsize=1)
def _graph(setting: bytes) -> tuple[Backend, StepGraph]:
    given = msgspec.json.decode(setting, type=Setting)
    torch.set_num_threads(given.threads)
    step = TrainingStep(opened=given.opened(), functional=True)
    return find(given.backend), StepGraph(step, decompose=decomposes(given.backend))


def _same(one: torch.Tensor, two: torch.Tensor) -> bool:
    return bool(one.shape == two.shape and one.dtype == two.dtype and torch.equal(one.nan_to_num(), two.nan_to_num()))


def _name(target: Any) -> str:
    return str(target.name()) if isinstance(target, torch._ops.OpOverload) else str(getattr(target, "__name__", target))


def _plain(answer: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(answer)
    return found
