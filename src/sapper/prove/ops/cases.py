"""The cases of an entry: samples of the database, edges, or the recorded call of a workload."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from sapper.prove.call import Call
from sapper.prove.ops import opinfo
from sapper.prove.ops.edges import edges
from sapper.prove.ops.entry import Entry
from sapper.prove.ops.examine import MOST_WORDS, Case
from sapper.prove.ops.sample import Sample
from sapper.prove.stored import Unkept
from sapper.prove.verdict import CaseVerdict

EDGES_BACKWARD = frozenset({"strided", "transposed", "offset", "repeated-index", "masked"})
"""Edges whose gradients are asked for too: elsewhere the derivative is that of a point where it does not exist."""
BASES = 6
"""Samples among which an edge looks for one that it can change."""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A case that is not made yet: making it runs the reference, which may refuse the input or die of it."""

    id: str
    make: Callable[[], Case | CaseVerdict | None]
    """The verdict of what cannot be a case; None where there is none to be made."""


def drafts_of(
    entry: Entry, *, most: int, seed: int, with_edges: bool, values_too: bool, calls: Path, only: Collection[str] | None = None
) -> Iterator[Draft]:
    """The cases of an entry.

    Args:
        entry: Of the database or of a workload.
        most: Samples of the database; edges come on top.
        seed: Of samples and cotangents.
        with_edges: Whether edges are asked for.
        values_too: Whether a backward case answers for the values as well.
        calls: Folder of a workload's calls.
        only: Ids of cases; the others are left out.
    """
    if entry.source == "workload":
        yield Draft(id=entry.case(0), make=lambda: _recorded(entry, calls))
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = opinfo.samples(entry, most=most, seed=seed)
    except Exception as error:
        verdict = _skipped(entry, "samples", "prove.ops.reason.no_samples", error)
        yield Draft(id=verdict.case, make=lambda: verdict)
        return
    good = [one for _, one in found if isinstance(one, Sample)]
    cornered = edges(entry.op, good[:BASES]) if with_edges else ()
    for which, one in itertools.chain(found, cornered):
        left_out = only is not None and entry.case(which) not in only
        if left_out or (entry.phase == "backward" and not which.isdigit() and which not in EDGES_BACKWARD):
            continue
        yield Draft(id=entry.case(which), make=functools.partial(_case, entry, which, one, seed=seed, values_too=values_too))


def _case(entry: Entry, which: str, one: Sample | Exception, *, seed: int, values_too: bool) -> Case | CaseVerdict | None:
    if isinstance(one, Exception):
        return _skipped(entry, which, "prove.ops.reason.no_sample", one)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opinfo.reseed(entry.id, which, seed)
            ready = one.rehearsed()
            computation = ready.computation
            if entry.phase == "backward":
                if ready.random:
                    return _skipped(entry, which, "prove.ops.reason.random_backward", None)
                differentiated = ready.differentiated(torch.Generator().manual_seed(seed))
                if differentiated is None:
                    return None
                computation = differentiated
    except Exception as error:
        if not which.isdigit():
            return None  # what the reference refuses is no edge
        return _skipped(entry, which, "prove.ops.reason.no_reference", error)
    return Case(
        id=entry.case(which), op=entry.op, dtype=entry.dtype, phase=entry.phase, computation=computation, random=ready.random,
        uninitialised=entry.op in opinfo.UNINITIALISED, gradients_only=entry.phase == "backward" and not values_too,
    )  # fmt: skip


def _recorded(entry: Entry, calls: Path) -> Case | CaseVerdict:
    try:
        call = Call.load(calls / f"{entry.op.rpartition('#')[2]}.safetensors")
    except (OSError, Unkept) as error:
        return _skipped(entry, "0", "prove.ops.reason.no_call", error)
    return Case(
        id=entry.case(0), op=call.op, dtype=entry.dtype, phase=entry.phase, computation=call.computation(),
        random=call.nature == "random", uninitialised=call.nature == "uninitialised",
    )  # fmt: skip


def _skipped(entry: Entry, which: str, reason: str, error: Exception | None) -> CaseVerdict:
    words = None if error is None else f"{type(error).__name__}: {error}"[:MOST_WORDS]
    if isinstance(error, Unkept):
        reason, words = error.code, None
    values = error.values if isinstance(error, Unkept) else {}
    return CaseVerdict(
        case=entry.case(which), op=entry.op.partition("#")[0], outcome="skipped", dtype=entry.dtype, phase=entry.phase, reason=reason,
        said=words, values=values,
    )  # fmt: skip
