"""What this machine allows: each means is tried once, for real, and removed again."""

from __future__ import annotations

import os
import platform

from sapper.mix.emulate import cgroup, duty, network
from sapper.mix.emulate.limits import Allowed, Cpu, Memory, Wire


def probe() -> Allowed:
    """Try every means."""
    said: dict[str, str | None] = {f"cpu {version}": cgroup.allows(version, "cpu") for version in ("cgroup-v1", "cgroup-v2")}
    said |= {"cpu duty-cycle": duty.allows(), "cpu paced": None}
    said |= {f"memory {version}": cgroup.allows(version, "memory") for version in ("cgroup-v1", "cgroup-v2")}
    said |= {"memory rlimit": None if os.name == "posix" else os.name}
    said |= {"wire tbf": network.allows(latency=False), "wire toll": None}
    cpus: tuple[Cpu, ...] = ("cgroup-v1", "cgroup-v2", "duty-cycle", "paced")
    memories: tuple[Memory, ...] = ("cgroup-v1", "cgroup-v2", "rlimit")
    wires: tuple[Wire, ...] = ("tbf", "toll")
    wire = tuple(one for one in wires if said[f"wire {one}"] is None)
    said["wire tbf with latency"] = network.allows(latency=True)
    return Allowed(
        cpu=tuple(one for one in cpus if said[f"cpu {one}"] is None),
        memory=tuple(one for one in memories if said[f"memory {one}"] is None),
        wire=wire,
        wire_latency=tuple(one for one in wire if one == "toll" or said["wire tbf with latency"] is None),
        cores=os.cpu_count() or 1,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        kernel=f"{platform.system()} {platform.release()}",
        refused={name: problem for name, problem in said.items() if problem is not None},
    )
