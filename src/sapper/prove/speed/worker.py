"""What the worker process of a speed run does: it traces the step, measures the roofline, and then times call after call."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from torch.utils._pytree import tree_map

import torch
from sapper import backends
from sapper.backends.base import Unsupported
from sapper.capture.rules import Cost
from sapper.programs.opened import open_program
from sapper.programs.program import DTYPES, Program
from sapper.prove.call import Call
from sapper.prove.judge import judge
from sapper.prove.reference import refer
from sapper.prove.speed import roofline, trace
from sapper.prove.speed.bench import Bench, conditions
from sapper.prove.speed.expect import limit_of
from sapper.prove.speed.result import OpSpeed, Roofline
from sapper.prove.verdict import Outcome, worst

JUDGE_FLOPS = 5e10
"""Work up to which values are judged here: a processor takes some ten seconds for so many in fp64."""
SPREADS = 2
STEPS = 3
"""Whole steps that are timed, after the one that is traced."""
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_bench: Bench | None = None
_traced: tuple[Program, trace.Watch] | None = None
"""The step that this process has traced; a process that takes the place of one that died traces it again."""


def setup(payload: dict[str, Any]) -> dict[str, Any]:
    """Open the backend that ``payload`` names."""
    global _bench
    torch.manual_seed(payload["seed"])
    torch.set_num_threads(payload["threads"])
    _bench = Bench(backends.find(payload["backend"]))
    versions = {name: str(version) for name, version in _bench.backend.versions().items()}  # of PyTorch a str of its own kind
    return {"device": _bench.title, "conditions": conditions(_bench), "versions": versions}


def measure_step(payload: dict[str, Any]) -> dict[str, Any]:
    """Trace one step of the program that ``payload`` opens, time whole steps, and measure the roofline in its dtype."""
    assert _bench is not None
    program, watch = _step(payload)
    dtype = _main_dtype(program)
    step_s = _step_s(program)
    measured = roofline.measured(_bench, dtype, budget_s=payload["roofline_s"])
    seen = sorted(watch.seen.values(), key=lambda one: -one.count * one.size_bytes)
    return {
        "dtype": _NAMES.get(dtype, str(dtype)), "step_s": step_s, "left_out": watch.left_out, "roofline": msgspec.to_builtins(measured),
        "ops": msgspec.to_builtins([_untimed(one, measured) for one in seen]),
    }  # fmt: skip


def measure_op(payload: dict[str, Any]) -> dict[str, Any]:
    """Judge and time one call of the step: ``payload["op"]``, which :func:`measure_step` returned."""
    op = msgspec.convert(payload["op"], OpSpeed)
    seen = {one.id: one for one in _step(payload)[1].seen.values()}
    found = _measured(seen[op.id].call, op, known=payload["known"], limit_s=payload["case_s"])
    return dict(msgspec.to_builtins(found))


def _step(payload: dict[str, Any]) -> tuple[Program, trace.Watch]:
    global _traced
    if _traced is None:
        program = _program(payload)
        _traced = program, trace.calls_of(program)
    return _traced


def _program(payload: dict[str, Any]) -> Program:
    """The target on the device where single ops run; on the CPU for what takes whole graphs."""
    assert _bench is not None
    opened = open_program(
        payload["target"], seq=payload["seq"], batch=payload["batch"], dtype=payload["dtype"], seed=payload["seed"]
    )
    place = _bench.place.place
    program = opened.program
    inputs = tree_map(lambda one: one.to(place) if isinstance(one, torch.Tensor) else one, program.inputs)
    return dataclasses.replace(program, module=program.module.to(place), inputs=inputs)


def _main_dtype(program: Program) -> torch.dtype:
    sizes = Counter[torch.dtype]()
    for parameter in program.module.parameters():
        sizes[parameter.dtype] += parameter.numel()
    return max(sizes, key=lambda dtype: sizes[dtype], default=torch.float32)


def _step_s(program: Program) -> float | None:
    """Seconds of a forward and a backward pass in one piece; a compiler's stack runs no eager step."""
    assert _bench is not None
    if _bench.backend.kind != "device":
        return None
    times = []
    for _ in range(STEPS):
        program.module.zero_grad()
        _bench.place.synchronize()
        start = time.perf_counter()
        loss = program.loss_of(program.call())
        if loss is not None and loss.requires_grad:
            loss.backward()
        _bench.place.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times)[STEPS // 2]


def _untimed(one: trace.Seen, measured: Roofline) -> OpSpeed:
    flops = one.cost.flops if one.priced else 0.0
    bound, roof_s = limit_of(measured, flops=flops, size_bytes=one.size_bytes)
    return OpSpeed(
        id=one.id, op=one.call.op, phase=one.phase, inputs=one.inputs, outputs=one.outputs, count=one.count, kind=one.cost.kind,
        flops=flops, size_bytes=one.size_bytes, priced=one.priced, sizes=_sizes(one.cost, one.call), bound=bound, roof_s=roof_s,
    )  # fmt: skip


def _sizes(cost: Cost, call: Call) -> dict[str, int | bool | str]:
    """What the work follows from, as evidence calls it."""
    shape = cost.attention
    if shape is not None:
        return {
            "batch": int(call.tensors[0].shape[0]), "heads": shape.heads, "kv_heads": shape.kv_heads, "head_dim": shape.qk_dim,
            "query_len": shape.q_len, "kv_len": shape.kv_len, "causal": shape.causal,
            "pass": "backward" if "backward" in call.op else "forward",
        }  # fmt: skip
    return {"m": cost.m, "n": cost.n, "k": cost.k, "groups": cost.groups} if cost.k else {}


def _measured(call: Call, op: OpSpeed, *, known: list[Any] | None, limit_s: float) -> OpSpeed:
    """``op`` judged and timed; a call that fails is not timed, one that is wrong is, and stays red.

    Args:
        call: To run.
        op: What is known of it beforehand.
        known: Outcome, and who found it, where a proof in the same folder has judged this very call.
        limit_s: About how long the timing may take.
    """
    assert _bench is not None
    try:
        if known is not None:
            outcome, judged, ratio = known[0], known[1], None
        else:
            outcome, ratio = _judged(call, worth=op.flops <= JUDGE_FLOPS)
            judged = None if outcome == "skipped" else "now"
        timing = _bench.time(_timed_call(call), limit_s=limit_s)
    except Unsupported as refusal:
        return msgspec.structs.replace(op, outcome="unsupported", judged="now", said=_words(refusal))
    except Exception as error:  # whatever a stack raises is the answer for this call
        _bench.place.forget()
        return msgspec.structs.replace(op, outcome="crash", judged="now", said=_words(error))
    return msgspec.structs.replace(op, outcome=outcome, ratio=ratio, judged=judged, timing=timing)


def _judged(call: Call, *, worth: bool) -> tuple[Outcome, float | None]:
    """Run it once as a proof does, with evidence that the stack executed, and (where ``worth``) hold its values against the truth."""
    assert _bench is not None
    computation = call.computation()
    executable = _bench.backend.prepare(computation)
    got = executable(computation.tensors)
    executed = executable.executed()
    if executed is None:
        return "void", None
    if executed.fallbacks:
        return "fallback", None
    if call.nature != "values" or not worth:
        return "skipped", None
    scores = judge(got, refer(computation, spreads=SPREADS), computation.labels)
    return worst([one.outcome for one in scores]), max((one.ratio for one in scores if one.ratio is not None), default=None)


def _timed_call(call: Call) -> Callable[[], Any]:
    """On a device the bare op, which may change its inputs; on a compiler the computation as it is prepared."""
    assert _bench is not None
    if _bench.backend.kind != "device":
        return _bench.call(call.computation())
    func, (args, kwargs) = call.func, call.bound(_bench.moved(call.tensors), copy=False)
    return lambda: func(*args, **kwargs)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:600]
