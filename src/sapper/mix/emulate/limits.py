"""What an emulated chip and its link are held to, and by which means."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from sapper import units

Cpu = Literal["cgroup-v1", "cgroup-v2", "duty-cycle", "paced"]
"""Best first. ``cgroup-*``: a quota of the kernel, everything the process does is slower, its communication included.
``duty-cycle``: stopped and continued from outside by its own processor time; needs no root, jitters by a few milliseconds.
``paced``: the process sleeps after each piece of work, by its own cooperation; says nothing about contention."""
Memory = Literal["cgroup-v1", "cgroup-v2", "rlimit"]
"""``cgroup-*`` counts touched pages and kills; ``rlimit`` (RLIMIT_DATA) counts reserved ones and lets allocations fail."""
Wire = Literal["tbf", "toll"]
"""``tbf``: network namespaces joined by veth pairs whose rate the kernel's token bucket holds. ``toll``: the sender sleeps for as
long as the bytes would take."""

CPUS: tuple[Cpu, ...] = get_args(Cpu)


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one process may take."""

    cpu_share: float | None = None
    """Processor seconds per second: 0.5 is half a core, 2.0 two whole ones; None: no limit."""
    memory_bytes: int | None = None


class Link(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What joins the islands: each has this rate in and out."""

    rate_bytes_per_s: float
    latency_s: float = 0.0
    """Added to each message on its way."""


class Used(msgspec.Struct, frozen=True, kw_only=True):
    """Which means hold a process; None where it is not held."""

    cpu: Cpu | None = None
    memory: Memory | None = None
    wire: Wire | None = None


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """What this machine allows, each tried for real; best first."""

    cpu: tuple[Cpu, ...]
    memory: tuple[Memory, ...]
    wire: tuple[Wire, ...]
    wire_latency: tuple[Wire, ...]
    """Which of them can add latency too."""
    cores: int
    load: float | None
    """Processes that wanted to run over the last minute, ours included: what else uses the machine while something is timed."""
    kernel: str
    refused: dict[str, str]
    """Means -> what the system said."""


def link_of(text: str, *, where: str) -> Link:
    """The link of ``RATE`` or ``RATE,LATENCY``, such as ``200Mb/s,1ms``.

    Raises:
        BadValue: Not a rate, or not a time.
    """
    rate, comma, latency = text.partition(",")
    return Link(
        rate_bytes_per_s=units.parse(rate, "bytes/s", where=where, positive=True),
        latency_s=units.parse(latency, "s", where=where) if comma else 0.0,
    )
