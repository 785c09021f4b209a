"""A second opinion on plans: the rules of Sailor's simulator, told again for pipelines with unequal numbers of micro-batches.

Facts are from github.com/eth-easl/sailor@cf2c8e3cc53c (MIT), sailor/Planner/simulations/runtime_simulator.py:

* a stage is as slow as its slowest set of chips; what it exchanges with its neighbours adds to each micro-batch (the first stage
  counts one activation, two in pipelines of four stages or more; the last two gradients; a middle one an activation and a gradient);
* a pipeline takes all stages and messages once, then the slowest stage for each further micro-batch, and the update of a stage's
  first layer;
* gradients of a stage: one ring over its sets, cut by the smallest tensor degree, in buckets of 500 MB, each hop as slow as the slowest
  link between sets that follow each other;
* memory: 24 bytes for each weight, kept activations for as many micro-batches as stages follow, 2 GB (3 GB with tensor parallelism).

Theirs knows one number of micro-batches for all. Here each family of like pipelines has its own, the step waits for the slowest
family, and a layer's ring goes over the sets of all families that hold it: for one family both rules are the same. Nothing is
shared with ``src/sapper``: neither the closed form nor the readers.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ZONE = "us-central1-a"
BUCKET_BYTES = 500_000_000
MEMORY_GIB = {"V100-16": 16, "A100-40": 40, "A100-80": 80, "GH-96": 96, "Titan-RTX": 24, "RTX-2080": 11, "RTX-3090": 24}
NODE = 4

Set = tuple[str, int]
"""(GPU, tensor degree)"""


@dataclass(frozen=True)
class Part:
    """A stage of a family: its layers, and its sets of chips in order, those of all like pipelines together."""

    first: int
    last: int
    sets: tuple[Set, ...]
    replicas: int = 1
    """Sets that share the micro-batches of one pipeline."""


@dataclass(frozen=True)
class Family:
    """Like pipelines."""

    parts: tuple[Part, ...]
    micro_batch: int
    micro_batches: int
    """Of one pipeline."""


@dataclass(frozen=True)
class Verdict:
    """On a plan."""

    passes_s: float
    sync_s: float
    fits: bool

    @property
    def it_s(self) -> float:
        """Iterations a second."""
        return 1.0 / (self.passes_s + self.sync_s)


class Judge:
    """Sailor's files, and what its rules make of them."""

    def __init__(self, folder: Path, *, model: str) -> None:
        """Read ``profiles_tmp.json``, ``llm_info.json`` and ``multizone_bandwidths_het.json`` in ``folder``."""
        self.times: dict[str, Any] = json.loads((folder / "profiles_tmp.json").read_text())[model]
        self.info: dict[str, Any] = json.loads((folder / "llm_info.json").read_text())[model]
        self.links: dict[str, Any] = json.loads((folder / "multizone_bandwidths_het.json").read_text())[ZONE]
        self.layers = len(self.info["1"])

    def of(self, families: list[Family]) -> Verdict:
        """Price ``families`` as one plan."""
        holders: list[list[Set]] = [[] for _ in range(self.layers)]
        for family in families:
            for part in family.parts:
                for layer in range(part.first, part.last):
                    holders[layer].extend(part.sets)
        return Verdict(
            passes_s=max(self.pipeline_s(family) for family in families),
            sync_s=max(self.sync_s(part, holders) for family in families for part in family.parts),
            fits=all(self.fits(family) for family in families),
        )

    def pipeline_s(self, family: Family) -> float:
        """All micro-batches of one pipeline, and its update."""
        parts, size = family.parts, family.micro_batch
        work = [max(self._layers_s(each, part, size) for each in set(part.sets)) for part in parts]
        talk = [self._messages_s(parts, index, size) for index in range(len(parts))]
        rest = max(
            (math.ceil(family.micro_batches / part.replicas) - 1) * (passes + sends)
            for part, passes, sends in zip(parts, work, talk, strict=True)
        )
        update = max(self._shape(each, size)[str(part.first)][2] for part in parts for each in set(part.sets))
        return sum(work) + sum(talk) + rest + float(update)

    def sync_s(self, part: Part, holders: list[list[Set]]) -> float:
        """Gradients of a stage: layers with the same sets together."""
        total, start = 0.0, part.first
        for layer in range(part.first + 1, part.last + 1):
            if layer == part.last or holders[layer] != holders[start]:
                total += self._ring_s(range(start, layer), holders[start])
                start = layer
        return total

    def fits(self, family: Family) -> bool:
        """Their check of memory."""
        return all(
            self.memory_bytes(family, index, each) <= MEMORY_GIB[each[0]] * 2**30
            for index, part in enumerate(family.parts)
            for each in set(part.sets)
        )

    def memory_bytes(self, family: Family, index: int, each: Set) -> float:
        """Of one chip of a set of stage ``index``."""
        part, sizes = family.parts[index], self.info[str(each[1])]
        layers = range(part.first, part.last)
        weights = sum(sizes[str(layer)]["params_floats"] for layer in layers) * 24.0
        kept = sum(sizes[str(layer)]["act_mem_floats"] for layer in layers) * 4.0 * family.micro_batch
        return float(weights + kept * (len(family.parts) - index) + (2e9 if each[1] == 1 else 3e9))

    def _shape(self, each: Set, micro_batch: int) -> dict[str, Any]:
        gpu, tp = each
        found: dict[str, Any] = self.times[gpu][str(micro_batch)][str(tp)]
        return found

    def _layers_s(self, each: Set, part: Part, micro_batch: int) -> float:
        shape = self._shape(each, micro_batch)
        return float(sum(shape[str(layer)][0] + shape[str(layer)][1] for layer in range(part.first, part.last)))

    def _messages_s(self, parts: tuple[Part, ...], index: int, micro_batch: int) -> float:
        part, depth = parts[index], len(parts)
        forward = self._slowest_s(part, parts[index + 1], self._output_bytes(part.last - 1) * micro_batch) if index + 1 < depth else 0.0
        back = self._slowest_s(part, parts[index - 1], self._output_bytes(part.first) * micro_batch) if index else 0.0
        if index == depth - 1:
            return 2.0 * back
        if index == 0:
            return forward if depth <= 3 else 2.0 * forward
        return forward + back

    def _slowest_s(self, part: Part, other: Part, size: float) -> float:
        pairs = {(each, other.sets[j % len(other.sets)]) for j, each in enumerate(part.sets)}
        return max(self._message_s(size, a, min(a[1], NODE), b, min(b[1], NODE)) for a, b in pairs)

    def _ring_s(self, layers: range, sets: list[Set]) -> float:
        if len(sets) < 2:
            return 0.0
        size = sum(self.info["1"][str(layer)]["params_floats"] for layer in layers) * 4.0 / min(NODE, *(tp for _, tp in sets))
        neighbours = {(a[0], b[0]) for a, b in itertools.pairwise(sets)}
        slowest = 0.0
        for source, target in neighbours:
            left, total = size, 0.0
            while left > 0.0:
                bucket = min(left, BUCKET_BYTES)
                total += 2.0 * (len(sets) - 1) * self._message_s(bucket / len(sets), (source, 1), 1, (target, 1), 1)
                left -= bucket
            slowest = max(slowest, total)
        return slowest

    def _message_s(self, size: float, source: Set, sending: int, target: Set, receiving: int) -> float:
        if size == 0.0:
            return 0.0
        coefficients, _ = self.links[source[0]][str(sending)][ZONE][target[0]][str(receiving)]
        x, rate = math.log2(size / 1e6), 0.0
        for coefficient in coefficients:
            rate = rate * x + coefficient
        return size / 1e9 / rate

    def _output_bytes(self, layer: int) -> float:
        return float(self.info["1"][str(layer)]["act_output_floats"]) * 4.0
