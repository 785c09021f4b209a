"""Costs of each layer of a model on one chip of a group, for every local shape: predict's costs of a block, taken layer by layer.

Legend: U = local shapes (tensor degree, micro-batch), L = layers with both ends. The terms are those of
:mod:`sapper.predict.combine`; what predict adds up over a step is added up here over one pass of one layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sapper.mix.problem import Times
from sapper.predict import collectives
from sapper.predict.arrays import Floats
from sapper.predict.collectives import Fabric
from sapper.predict.combine import Constants, alone
from sapper.predict.device import Device
from sapper.predict.job import TrainJob
from sapper.predict.layers import Costs, Local, block_costs
from sapper.predict.memory import Allocation, logit_copies
from sapper.predict.plan import RECOMPUTES, Recompute
from sapper.workloads.op import Block

_REDUCTIONS = 2.0
"""Of a layer and direction under tensor parallelism (arXiv:1909.08053, section 3)."""
_REGATHER = 0.5
"""Of a reduction, backward: sequence parallelism gathers its cut inputs once more (arXiv:2205.05198, section 4.2.2)."""


@dataclass(frozen=True)
class Priced:
    """The layers of a model on a chip: ``costs`` by run of like layers, ``counts`` how many layers each stands for."""

    shapes: tuple[tuple[int, int], ...]
    """(tensor degree, micro-batch) of each of the U columns."""
    sequence_parallel: bool
    """Whether norms and residuals are cut over the tensor parallel group."""
    costs: tuple[Costs, ...]
    """Embedding, runs of blocks, head."""
    counts: tuple[int, ...]

    def spread(self, of_run: Callable[[int, Costs], float]) -> Floats:
        """``of_run`` (its index, its costs) of each of the L layers."""
        return np.repeat([of_run(index, costs) for index, costs in enumerate(self.costs)], self.counts).astype(float)


def price(
    job: TrainJob, device: Device, *, tps: Sequence[int], micro_batches: Sequence[int], sequence_parallel: bool = False
) -> Priced:
    """Price every block of ``job`` once for each local shape."""
    shapes = tuple(itertools.product(tps, micro_batches))
    tp, micro = np.array(shapes, np.int64).T
    one = np.ones_like(tp)
    local = Local(tp=tp, cp=one, ep=one, micro_batch=micro, sequence_parallel=np.full(len(shapes), sequence_parallel))

    def ends(role: str) -> Costs:
        total = Costs.zero(len(shapes))
        for block in job.workload.blocks:
            if block.role == role:
                total = total.plus(block_costs(block, local, device=device, job=job), times=block.count)
        return total

    runs: list[Block] = [block for block in job.workload.blocks if block.role == "layer"]
    return Priced(
        shapes=shapes,
        sequence_parallel=sequence_parallel,
        costs=(ends("embedding"), *(block_costs(block, local, device=device, job=job) for block in runs), ends("head")),
        counts=(1, *(block.count for block in runs), 1),
    )


@dataclass(frozen=True)
class Machine:
    """A chip of a group with what fills it: its links, efficiencies and allocator."""

    device: Device
    fabric: Fabric
    constants: Constants
    """Each a number."""
    allocation: Allocation


def times_of(job: TrainJob, priced: Priced, machine: Machine, *, shape: tuple[int, int], recompute: Recompute) -> Times:
    """Times and activations of every layer in one local shape."""
    column, last = priced.shapes.index(shape), len(priced.costs) - 1
    passes = [
        _passes(priced, run, machine, shape=shape, recompute=recompute if 0 < run < last else "none")
        for run in range(len(priced.costs))
    ]
    live = machine.allocation.live
    level = RECOMPUTES.index(recompute)

    def saved(run: int, costs: Costs) -> float:
        return live * float(costs.saved_bytes[level if 0 < run < last else 0][column]) * (logit_copies(job) if run == last else 1.0)

    def working(run: int, costs: Costs) -> float:
        """Repeating a layer needs its whole activations at a time."""
        return live * float(costs.saved_bytes[0][column]) if recompute == "full" and 0 < run < last else 0.0

    return Times(
        forward_s=priced.spread(lambda run, _: passes[run][0]),
        backward_s=priced.spread(lambda run, _: passes[run][1]),
        saved_bytes=priced.spread(saved),
        working_bytes=priced.spread(working),
    )


def _passes(priced: Priced, run: int, machine: Machine, *, shape: tuple[int, int], recompute: Recompute) -> tuple[float, float]:
    """(forward, backward) seconds of one layer: device time and what it waits for its host (combine.py)."""
    costs, column = priced.costs[run], priced.shapes.index(shape)
    c = machine.constants
    forward, backward = (_busy(costs, column, c, index) for index in (0, 1))
    kernels = float(costs.kernels[0][column] + costs.kernels[1][column])
    if recompute == "full":
        backward += forward
        kernels += float(costs.kernels[0][column])
    elif recompute == "selective":
        backward += float(
            (costs.again_matmul_s / c.matmul + costs.again_low_s / c.low + costs.again_attention_s / c.attention
             + costs.again_memory_s / c.memory)[column]
        )
    reduce_s = _reduction_s(priced, run, machine, shape=shape)
    if run in (0, len(priced.costs) - 1):
        # the embedding's output is reduced forward, the gradient of the head's input backward: each once
        forward, backward = forward + reduce_s / 2.0, backward + reduce_s / 2.0
    else:
        again = (_REGATHER if priced.sequence_parallel else 0.0) + (1.0 if recompute == "full" else 0.0)
        forward, backward = forward + reduce_s, backward + reduce_s * (1.0 + again)
    device = forward + backward
    factor = float(alone(np.asarray(device), np.asarray(kernels * c.dispatch_s))) / device if device > 0 else 1.0
    return forward * factor, backward * factor


def _busy(costs: Costs, column: int, c: Constants, index: int) -> float:
    """Device time of a pass (0 forward, 1 backward) without communication."""
    return float(
        (costs.matmul_s[index] / c.matmul + costs.low_s[index] / c.low + costs.attention_s[index] / c.attention
         + costs.memory_s[index] / c.memory + costs.kernels[index] * c.launch_s)[column]
    )


def _reduction_s(priced: Priced, run: int, machine: Machine, *, shape: tuple[int, int]) -> float:
    """Exposed time of one direction's reductions in a tensor parallel group, which lies in one scale-up domain."""
    size_bytes = float(priced.costs[run].reduce_bytes[priced.shapes.index(shape)])
    if shape[0] == 1 or size_bytes == 0.0:
        return 0.0
    messages = 1.0 if run in (0, len(priced.costs) - 1) else _REDUCTIONS
    exposed = float(1.0 - machine.constants.tensor_overlap) / float(machine.constants.link)
    return exposed * messages * float(collectives.all_reduce_s(size_bytes / messages, shape[0], 1, machine.fabric))
