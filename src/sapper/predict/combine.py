"""From terms at nominal rates to a step time: the efficiencies, the overlap and the schedule.

    busy   = matmul/e_matmul + low/e_low + attention/e_attention + memory/e_memory + kernels * launch
    inner  = busy + tensor/e_link (1 - o_tensor) + expert/e_link (1 - o_expert) + context/e_link (1 - o_context)
             + gather/e_link, hidden behind busy as far as o_gather goes; o_expert is the schedule's
    step   = inner (1 + bubble) + pipeline + exposed data-parallel reduction + optimizer/e_memory + host

Every constant is one entry of :class:`Constants`; each may be an array (one per plan or per sample of the prior), so
the same code answers a search, a fit and an interval.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from sapper.predict.arrays import Floats
from sapper.predict.features import Features

TERMS = (
    "matmul",
    "attention",
    "memory-bound",
    "launch",
    "tensor-comm",
    "expert-comm",
    "context-comm",
    "pipeline-comm",
    "data-comm",
    "bubble",
    "optimizer",
    "host",
)
LIMITS = {
    "matmul": "compute",
    "attention": "compute",
    "memory-bound": "memory",
    "launch": "launch",
    "tensor-comm": "link",
    "expert-comm": "link",
    "context-comm": "link",
    "pipeline-comm": "link",
    "data-comm": "link",
    "bubble": "schedule",
    "optimizer": "memory",
    "host": "launch",
}
SMOOTH = 4.0
"""Power of the mean that joins device and host time."""
BACKWARD_SHARE = 2.0 / 3.0
"""Of the busy time: what a data-parallel reduction can hide behind."""


@dataclass(frozen=True)
class Constants:
    """Efficiencies and overlaps, each a number or an array that broadcasts against the plans."""

    matmul: Floats
    """Achieved over dense peak, after the shape efficiency."""
    low: Floats
    """The same for fp8 matmuls."""
    attention: Floats
    memory: Floats
    """Achieved over nominal bandwidth; above 1 where a compiler fuses what we count apart."""
    launch_s: Floats
    """Exposed time per kernel."""
    dispatch_s: Floats
    """Host time to issue a kernel: what a chip waits for where its kernels are shorter."""
    link: Floats
    """Achieved over nominal (or measured) link rate."""
    tensor_overlap: Floats
    data_overlap: Floats
    gather_overlap: Floats
    host_s: Floats
    """Fixed time of a step: data loading, clipping, logging."""

    def pick(self, index: np.ndarray) -> Constants:
        """The constants of the rows that ``index`` selects."""
        return Constants(**{f.name: np.asarray(getattr(self, f.name))[..., index] for f in fields(self)})


def combine(features: Features, constants: Constants) -> dict[str, Floats]:
    """Seconds of each term of the step (keys of TERMS, exposed time only); their sum is the step time."""
    f, c = features, constants
    matmul, attention = f.matmul_s / c.matmul + f.low_s / c.low, f.attention_s / c.attention
    memory, launch = f.memory_s / c.memory, f.kernels * c.launch_s
    busy = matmul + attention + memory + launch
    tensor = f.tensor_s / c.link * (1.0 - c.tensor_overlap)
    expert = _exposed(f.expert_s / c.link, busy, f.expert_overlap)
    context = _exposed(f.context_s / c.link, attention, 0.8)
    gather = _exposed(f.gather_s / c.link, busy, c.gather_overlap)
    device = busy + tensor + expert + context + gather
    launch = launch + _waits(device, f.kernels * c.dispatch_s)
    bubble = (device - f.kernels * c.launch_s + launch) * f.bubble
    data = _exposed(f.data_s / c.link, BACKWARD_SHARE * busy / np.maximum(f.micro_batches, 1.0), c.data_overlap)
    return {
        "matmul": matmul,
        "attention": attention,
        "memory-bound": memory,
        "launch": launch,
        "tensor-comm": tensor,
        "expert-comm": expert,
        "context-comm": context,
        "pipeline-comm": f.pipeline_s / c.link * 0.5,
        "data-comm": data + gather,
        "bubble": bubble,
        "optimizer": f.optimizer_s / c.memory,
        "host": f.pauses * c.host_s,
    }


def step_time(features: Features, constants: Constants) -> Floats:
    """The step time in seconds."""
    return np.asarray(sum(combine(features, constants).values()), float)


def _waits(device_s: Floats, host_s: Floats) -> Floats:
    """What a device adds to its own time while a host that needs ``host_s`` issues the work: a smooth maximum of the two.

    Kernels of a step differ in length, so that even where the device is slower on the whole it waits at times.
    """
    return np.asarray(alone(device_s, host_s) - device_s, float)


def alone(device_s: Floats, host_s: Floats) -> Floats:
    """Time of work that takes the device ``device_s`` and its host ``host_s`` to issue: a smooth maximum of the two."""
    return np.asarray((device_s**SMOOTH + host_s**SMOOTH) ** (1.0 / SMOOTH), float)


def _exposed(time_s: Floats, window_s: Floats, overlap: Floats | float) -> Floats:
    """What of ``time_s`` cannot hide: the share that never overlaps, and what exceeds the window."""
    hidden = np.minimum(time_s * overlap, window_s)
    return np.asarray(time_s - hidden, float)
