"""Sailor's profiles under the rules of Sailor's own simulator, so that a search minimises what that simulator counts.

These are their assumptions (github.com/eth-easl/sailor@cf2c8e3cc53c, sailor/Planner/simulations/runtime_simulator.py), not ours: use
them to compare plans under their judge, and :func:`~sapper.mix.profiles.sailor.read_sailor` to plan a run.

* The gradients of a layer go once around a ring over all sets of chips that hold it, cut by the smallest tensor degree among them, in
  buckets of 500 MB; each hop is as slow as the slowest link between two of the groups. What a node's chips could do side by side, or a
  reduction inside the node first, does not count.
* A stage stands still for the activation that it sends and for the gradient that it sends, at the rate of as many chips as its tensor
  degree, the last stage for two gradients, and the first of four or more for two activations. Between unlike GPUs the end with the
  greater degree is taken for a whole node. A stage alone in its pipeline is charged two gradients as well here, for times do not know
  the depth: the judge's own figure has that right.
* A stage may start any number of micro-batches before the first is back, whatever it holds of them. Where the stages of a pipeline have
  unequal numbers of replicas, no run keeps that pace.
* Memory: 24 bytes for each weight, kept activations as profiled, 2 GB beside them (3 GB with tensor parallelism), up to the last byte.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sapper.errors import BadFile
from sapper.files import read_json
from sapper.mix.problem import Problem, Shape, Supply, Times, Transport
from sapper.mix.profiles.links import Polynomial
from sapper.mix.profiles.problem import Fleet, problem_of
from sapper.mix.profiles.sailor import LIVE, OPTIMIZER_BYTES, read_sailor

BUCKET_BYTES = 5e8
WHOLE_BYTES = 24.0
"""Of each weight: two moments, the model, gradients, and the copies of DeepSpeed and its communication."""
BESIDE_BYTES = 2e9
BESIDE_TENSOR_BYTES = 1e9
"""More, where the stage is tensor parallel."""


@dataclass(frozen=True)
class InTurn(Transport):
    """Messages that stop both ends, counted as the simulator does: one each way, whatever their size."""

    blocking: bool = True
    windowed: bool = False
    overlapped: bool = False

    def waits(self, size_bytes: float) -> tuple[float, float]:
        """One message for each end."""
        return 1.0, 1.0

    def again(self, stages: int) -> float:
        """The simulator counts the first stage's activation twice in pipelines of four stages or more."""
        return 1.0 if stages >= 4 else 0.0


@dataclass(frozen=True)
class SlowestRing:
    """The links as the simulator uses them; a :class:`~sapper.mix.problem.Network`."""

    links: Mapping[tuple[str, str, int], Polynomial]
    """(from, to, chips at both ends) -> what they reach together."""

    def send_s(self, size_bytes: float, *, source: str, target: str, tp: int = 1) -> float:
        """One activation or gradient, sent whole."""
        return size_bytes / self.links[source, target, min(tp, self._most)].bytes_per_s(size_bytes)

    def all_reduce_s(self, size_bytes: float, members: Mapping[tuple[str, int], int]) -> float:
        """One ring over all sets, on the slowest link between any two of their groups."""
        sets = sum(members.values())
        if sets <= 1:
            return 0.0
        groups = sorted({name for name, _ in members})
        counts = {name: sum(count for (other, _), count in members.items() if other == name) for name in groups}
        pairs = [(a, b) for a in groups for b in groups if a != b or counts[a] > 1]
        left, total = size_bytes / min(self._most, *(tp for _, tp in members)), 0.0
        while left > 0.0:
            part = min(left, BUCKET_BYTES) / sets
            total += 2.0 * (sets - 1) * part / min(self.links[a, b, 1].bytes_per_s(part) for a, b in pairs)
            left -= BUCKET_BYTES
        return total

    @cached_property
    def _most(self) -> int:
        return max(chips for *_, chips in self.links)


def judged_problem(
    profiles: str | os.PathLike[str],
    links: str | os.PathLike[str],
    *,
    model: str,
    chips: Mapping[str, int],
    capacity_bytes: Mapping[str, float],
    per_node: int,
    global_batch: int,
    zone: str = "us-central1-a",
) -> Problem:
    """The problem of training ``model`` on ``chips`` of Sailor's GPUs, priced by its simulator's rules.

    Args:
        profiles: ``profiles_tmp.json``, ``llm_info.json`` beside it.
        links: ``multizone_bandwidths_het.json``.
        model: A key of the profiles.
        chips: GPU, as the files name it -> number.
        capacity_bytes: GPU -> memory of one.
        per_node: GPUs of a node.
        global_batch: Sequences of a step.
        zone: Of all nodes.

    Raises:
        BadFile: Unreadable, no such model, or no curves of such a GPU.
    """
    found = read_sailor(profiles, model=model)
    fleets = [
        Fleet(name=gpu, profile=found[gpu], chips=count, chips_per_node=per_node, capacity_bytes=capacity_bytes[gpu])
        for gpu, count in chips.items()
    ]
    network = SlowestRing(_links(links, tuple(chips), zone=zone))
    problem = problem_of(fleets, network, global_batch=global_batch, transport=InTurn(), usable=1.0)
    return replace(
        problem,
        groups=tuple(_supply(one) for one in problem.groups),
        times={shape: _times(problem, shape, times) for shape, times in problem.times.items()},
        state=replace(problem.state, optimizer=problem.state.optimizer + WHOLE_BYTES - 8.0 - OPTIMIZER_BYTES),
        zeros=(0,),
    )


def _supply(supply: Supply) -> Supply:
    return replace(supply, overhead_bytes=BESIDE_BYTES)


def _times(problem: Problem, shape: Shape, times: Times) -> Times:
    """The measured times with the last stage's second gradient, and memory as the simulator counts it."""
    backward_s = times.backward_s.copy()
    size = float(problem.boundary_bytes[0]) * shape.micro_batch
    backward_s[-1] += problem.network.send_s(size, source=shape.group, target=shape.group, tp=shape.tp)
    beside = BESIDE_TENSOR_BYTES if shape.tp > 1 else 0.0
    return replace(
        times, backward_s=backward_s, saved_bytes=times.saved_bytes / LIVE, working_bytes=np.full_like(times.working_bytes, beside)
    )


def _links(path: str | os.PathLike[str], gpus: tuple[str, ...], *, zone: str) -> dict[tuple[str, str, int], Polynomial]:
    table = read_json(path)
    try:
        return {
            (source, target, int(count)): Polynomial(tuple(map(float, found[0])), most_bytes_per_s=float("inf"))
            for source in gpus
            for target in gpus
            for count, found in _of_pair(table[zone][source], source, target, zone=zone).items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile("SP-MIX-058", where=os.fspath(path), model=zone, problem=str(error)) from error


def _of_pair(by_count: Mapping[str, Any], source: str, target: str, *, zone: str) -> dict[str, Any]:
    """Chips of the smaller end -> curve, the other end alike or, of another GPU, a whole node; one chip against one is the ring's."""
    most = max(by_count, key=int)
    return {count: by_count[count if source == target or count == "1" else most][zone][target][count] for count in by_count}
