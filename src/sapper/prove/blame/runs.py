"""The counter-runs, as jobs of a worker: each loads the suspect, runs it one way, and says how far it is from the truth."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from sapper.backends import Backend, find
from sapper.backends.base import Unsupported
from sapper.backends.computation import Computation
from sapper.prove.blame import coarse, evaluators
from sapper.prove.blame.distance import BEYOND, roundings
from sapper.prove.call import UNINITIALISED, draws
from sapper.prove.child import in_child
from sapper.prove.judge import judge, order
from sapper.prove.reference import NoReference, Reference, refer
from sapper.prove.repro import edits
from sapper.prove.suspect import Step, Suspect, Untraceable, op_name, suspect_of
from sapper.prove.verdict import GREEN, worst
from sapper.prove.worker import is_out_of_memory

PARTS_MOST = 8
"""Ops up to which a graph is run op by op."""


def reference(payload: dict[str, Any]) -> dict[str, Any]:
    """What the trusted stack says about itself: its own error, the spread, and another algorithm's truth."""
    return in_child(lambda: _reference(_loaded(payload)))


def alone(payload: dict[str, Any]) -> dict[str, Any]:
    """The suspect on a stack, twice."""
    return in_child(lambda: _alone(_loaded(payload), _stack(payload), keep=Path(payload["suspect"]).with_suffix(".got")))


def after(payload: dict[str, Any]) -> dict[str, Any]:
    """The suspect on a stack after other calls of the same shapes."""
    return in_child(lambda: _after(_loaded(payload), _stack(payload)))


def decomposed(payload: dict[str, Any]) -> dict[str, Any]:
    """The suspect in elementary ops on the same stack."""
    return in_child(lambda: _decomposed(_loaded(payload), _stack(payload)))


def parts(payload: dict[str, Any]) -> dict[str, Any]:
    """The suspect op by op on the same stack, each on the inputs that the CPU has for it."""
    return in_child(lambda: _parts(_loaded(payload), _stack(payload)))


def parts_apart(payload: dict[str, Any]) -> dict[str, Any]:
    """The suspect op by op, each in a process of its own."""
    return in_child(lambda: _parts(_loaded(payload), _stack(payload), apart=True))


def coarsely_read(payload: dict[str, Any]) -> dict[str, Any]:
    """What the stack gave, judged as products of operands in coarser formats."""
    return in_child(lambda: _coarsely_read(_loaded(payload), kept=Path(payload["suspect"]).with_suffix(".got")))


def exported(payload: dict[str, Any]) -> dict[str, Any]:
    """The graph that the stack's exporter writes, in a reference evaluator."""
    return in_child(lambda: _exported(_loaded(payload), _stack(payload), kept=Path(payload["suspect"]).with_suffix(".got")))


def _loaded(payload: dict[str, Any]) -> Suspect:
    torch.set_num_threads(1)
    return Suspect.from_bytes(Path(payload["suspect"]).read_bytes())


def _stack(payload: dict[str, Any]) -> Backend:
    """The backend, its device known to PyTorch: autograd can use no device that comes after the first gradients of a process."""
    backend = find(payload["backend"])
    if backend.kind == "device":
        with contextlib.suppress(Exception):  # what it raises it will raise again where that is noted
            backend.device()
    return backend


def _reference(suspect: Suspect) -> dict[str, Any]:
    computation = suspect.computation()
    try:
        known = refer(computation)
        peer = known.peer
    except NoReference as error:
        return {"fails": str(error)}
    dtypes = [one.dtype for one in peer]
    found = {
        "peer": roundings(peer, known.truth, dtypes=dtypes),
        "spread": max((roundings(run, known.truth, dtypes=dtypes) for run in known.spread), default=0.0),
    }
    other = _elementary(suspect)
    found["draws"] = any(draws(step.func, step.args, step.kwargs) for step in suspect.steps)
    found["reads_unwritten"] = _reads_unwritten(suspect)
    found["order"] = order(known.making.terms)
    if other is not None and _is_other(suspect):
        found["other_truth"] = roundings(refer(other).truth, known.truth, dtypes=dtypes)
        found["other_algorithm"] = roundings(other(), known.truth, dtypes=dtypes)
    return found


def _reads_unwritten(suspect: Suspect) -> bool:
    """Whether results depend on memory that the program allocates and never writes, by filling it with one number and another."""
    if not any(_allocates(step) for step in suspect.steps):
        return False
    runs = []
    for number in (0, 3):
        steps = tuple(dataclasses.replace(step, func=_Filled(step.func, number)) if _allocates(step) else step for step in suspect.steps)
        runs.append(dataclasses.replace(suspect, steps=steps).forward(suspect.inputs))
    return not all(torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in zip(*runs, strict=True))


def _allocates(step: Step) -> bool:
    return op_name(step.func).partition("::")[2].partition(".")[0] in UNINITIALISED


class _Filled:
    """An op that allocates, and fills what it gives."""

    def __init__(self, func: Any, number: int) -> None:
        self._func, self._number, self._schema = func, number, func._schema

    def __call__(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        found: torch.Tensor = self._func(*args, **kwargs)
        return found.fill_(self._number)


def _elementary(suspect: Suspect) -> Computation | None:
    """The same in elementary ops; None where PyTorch cannot trace it or its decomposition fails."""
    try:
        found = suspect_of(suspect.computation(), decompose="elementary").computation()
        found()
    except (Untraceable, RuntimeError, TypeError, ValueError):
        return None
    return found


def _is_other(suspect: Suspect) -> bool:
    """Whether there was anything to decompose: the same op is no other algorithm."""
    whole = suspect_of(suspect.computation(), composite=False)
    return bool(suspect.wrt) or suspect_of(suspect.computation(), decompose="elementary").ops() != whole.ops()


def _alone(suspect: Suspect, backend: Backend, *, keep: Path) -> dict[str, Any]:
    """Two runs; the outputs of the first are kept, once, for the counter-run of the exported graph to be compared with."""
    computation = suspect.computation()
    known = refer(computation)
    other = _elementary(suspect)
    other_truth = refer(other).truth if other is not None else None
    runs = _runs(computation, backend, known, times=2, other_truth=other_truth, keep=None if keep.exists() else keep)
    return {"runs": list(runs)}


def _runs(
    computation: Computation,
    backend: Backend,
    known: Reference,
    *,
    times: int,
    other_truth: Sequence[torch.Tensor] | None = None,
    keep: Path | None = None,
) -> Iterator[dict[str, Any]]:
    try:
        ready = backend.prepare(computation)
    except Unsupported as error:
        yield {"outcome": "unsupported", "said": str(error), "stage": "prepare"}
        return
    except Exception as error:
        yield _raised(error, "prepare")
        return
    for _ in range(times):
        try:
            got = ready([one.clone() for one in computation.tensors])
        except Unsupported as error:
            yield {"outcome": "unsupported", "said": str(error), "stage": "run"}
            return
        except Exception as error:
            yield _raised(error, "run")
            return
        if keep is not None:
            torch.save(list(got), keep)
            keep = None
        yield _judged(got, known, computation, other_truth)


def _raised(error: Exception, stage: str) -> dict[str, Any]:
    outcome = "memory" if is_out_of_memory(error) else "crash"
    return {"outcome": outcome, "said": f"{type(error).__name__}: {error}"[:1000], "stage": stage}


def _judged(
    got: Sequence[torch.Tensor], known: Reference, computation: Computation, other_truth: Sequence[torch.Tensor] | None
) -> dict[str, Any]:
    scores = judge(got, known, computation.labels)
    guilty = max(scores, key=lambda one: one.ratio or 0.0, default=None)
    found: dict[str, Any] = {"outcome": worst([one.outcome for one in scores]), "ratio": guilty.ratio if guilty else None}
    if len(got) == len(known.truth) and all(one.shape == true.shape for one, true in zip(got, known.truth, strict=True)):
        dtypes = [one.dtype for one in known.peer]
        found["roundings"] = roundings(got, known.truth, dtypes=dtypes)
        found["from_peer"] = roundings(got, known.peer, dtypes=dtypes)
        found["flushes"] = any(map(_flushes, got, known.peer))
        if other_truth is not None:
            found["from_other_truth"] = roundings(got, other_truth, dtypes=dtypes)
    return found


def _flushes(got: torch.Tensor, peer: torch.Tensor) -> bool:
    """Whether zeros stand where the CPU has denormal numbers."""
    if not peer.dtype.is_floating_point:
        return False
    denormal = (peer != 0) & (peer.abs() < torch.finfo(peer.dtype).tiny)
    return bool((denormal & (got == 0)).any())


def _after(suspect: Suspect, backend: Backend) -> dict[str, Any]:
    for other in (*suspect.before, *edits.neighbours(suspect)):
        computation = other.computation()
        known = refer(computation)
        for _ in _runs(computation, backend, known, times=1):
            pass
    computation = dataclasses.replace(suspect, before=()).computation()
    return {"runs": list(_runs(computation, backend, refer(computation), times=1))}


def _decomposed(suspect: Suspect, backend: Backend) -> dict[str, Any]:
    computation = _elementary(suspect)
    if computation is None:
        return {"runs": []}
    return {"runs": list(_runs(computation, backend, refer(suspect.computation()), times=1))}


def _parts(suspect: Suspect, backend: Backend, *, apart: bool = False) -> dict[str, Any]:
    from sapper.prove.repro.cuts import single_steps

    plain = suspect_of(dataclasses.replace(suspect.computation(), differentiated=None), composite=False)
    if not 1 < len(plain.steps) <= PARTS_MOST:
        return {"runs": []}
    found: list[dict[str, Any]] = []
    for one in single_steps(plain):
        if apart:
            became = in_child(functools.partial(_once, one, backend))
            found += became.get("value", [{"outcome": "crash" if "signal" in became else "void"}])
        else:
            found += _once(one, backend)
    return {"runs": found}


def _once(suspect: Suspect, backend: Backend) -> list[dict[str, Any]]:
    computation = suspect.computation()
    return list(_runs(computation, backend, refer(computation), times=1))


def _coarsely_read(suspect: Suspect, *, kept: Path) -> dict[str, Any]:
    """The format that explains what the stack gave; no spread, since an operand that is moved may be read as another number."""
    if not kept.exists():
        return {"runs": []}
    got, whole, parts = torch.load(kept), suspect.computation(), _elementary(suspect)
    for one in (whole,) if parts is None else (whole, parts):  # products inside of one op, too
        for form, computation in coarse.readings(one):
            found = _judged(got, refer(computation, spreads=0), computation, None)
            if found["outcome"] in GREEN:
                return {"runs": [found], "form": form.name}
    return {"runs": []}


def _exported(suspect: Suspect, backend: Backend, *, kept: Path) -> dict[str, Any]:
    computation = suspect.computation()
    known = refer(computation)
    evaluate = evaluators.of(backend, computation)
    if evaluate is None:
        return {"runs": []}
    try:
        graph = evaluate.export(computation)
    except Unsupported as error:
        return {"runs": [], "export_fails": str(error)[:1000]}
    except Exception as error:
        return {"runs": [], "export_fails": f"{type(error).__name__}: {error}"[:1000]}
    try:
        got = evaluate.run(graph, computation)
    except Exception as error:  # an evaluator that lacks an op says nothing about the exporter
        return {"runs": [], "by": evaluate.name, "said": f"{type(error).__name__}: {error}"[:300]}
    found = _judged(got, known, computation, None)
    if kept.exists():
        stack = torch.load(kept)
        same_form = len(stack) == len(got) and all(one.shape == other.shape for one, other in zip(stack, got, strict=True))
        dtypes = [one.dtype for one in known.peer]
        found["from_stack"] = roundings(stack, got, dtypes=dtypes) if same_form else BEYOND
    return {"runs": [found], "by": evaluate.name}
