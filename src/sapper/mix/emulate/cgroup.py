"""Control groups of the kernel, version 1 and 2: a quota of processor time and of memory for a tree of processes.

Sources: kernel documentation ``admin-guide/cgroup-v1/memory.rst``, ``scheduler/sched-bwc.rst`` and ``admin-guide/cgroup-v2.rst``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sapper.mix.emulate.limits import Limits

Version = Literal["cgroup-v1", "cgroup-v2"]
Controller = Literal["cpu", "memory"]

ROOT = Path("/sys/fs/cgroup")
PERIOD_US = 20_000
"""Short beside a step, so that a held process is slow and not absent; the kernel's default of 100 ms is what a heartbeat would see."""
_V1_SHARES = "262144"
"""The kernel's greatest weights: within its quota an emulated chip is not robbed by whoever else builds on the machine."""
_V2_WEIGHT = "10000"


@dataclass(frozen=True)
class Group:
    """A control group that exists: writing a process's id to ``procs`` puts it in."""

    path: Path

    @property
    def procs(self) -> Path:
        """The file that takes process ids."""
        return self.path / "cgroup.procs"


def _nobody(path: str) -> None:
    """Is told of a folder and does nothing."""


def parents(version: Version, controller: Controller, *, root: Path = ROOT) -> list[Path]:
    """Folders under which a group of that controller could be made, best first; they may still refuse."""
    if version == "cgroup-v1":
        return [root / controller] if (root / controller / "cgroup.procs").exists() else []
    mounts = [place for place in (root, root / "unified") if (place / "cgroup.controllers").exists()]
    found = []
    for mount in mounts:
        for place in (mount, *_own_places(mount)):
            with contextlib.suppress(OSError):
                if controller in (place / "cgroup.controllers").read_text().split():
                    found.append(place)
    return found


def _own_places(mount: Path) -> list[Path]:
    """The group of this process and the one above it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                own = mount / line[4:]
                return [own.parent, own] if own != mount else []
    return []


def make(
    version: Version, controller: Controller, *, name: str, limits: Limits, root: Path = ROOT, made: Callable[[str], None] = _nobody
) -> Group:
    """A new group ``name`` that holds ``limits`` of its controller.

    Args:
        version: Of the kernel's interface.
        controller: What is limited.
        name: Of the new folder.
        limits: What is allowed.
        root: Where control groups are mounted.
        made: Told of each folder before it exists, so that it is removed whatever follows.

    Raises:
        OSError: The system refuses it; nothing is left behind.
    """
    refusal: OSError = FileNotFoundError(f"no {controller} controller")
    for parent in parents(version, controller, root=root):
        try:
            if version == "cgroup-v2":
                _delegate(parent, controller)
            group = Group(parent / name)
            made(str(group.path))
            group.path.mkdir()
            try:
                for file, value in _settings(version, controller, limits):
                    (group.path / file).write_text(value)
            except OSError:
                group.path.rmdir()
                raise
            return group
        except OSError as error:
            refusal = error
    raise refusal


def _delegate(parent: Path, controller: Controller) -> None:
    """Let groups below ``parent`` have the controller."""
    switch = parent / "cgroup.subtree_control"
    if controller not in switch.read_text().split():
        switch.write_text(f"+{controller}")


def _settings(version: Version, controller: Controller, limits: Limits) -> list[tuple[str, str]]:
    """Files of the group with what to write, in order."""
    if controller == "cpu" and limits.cpu_share is not None:
        quota_us = max(1000, round(limits.cpu_share * PERIOD_US))  # the kernel takes no less than 1 ms
        if version == "cgroup-v1":
            return [("cpu.cfs_period_us", str(PERIOD_US)), ("cpu.cfs_quota_us", str(quota_us)), ("cpu.shares", _V1_SHARES)]
        return [("cpu.max", f"{quota_us} {PERIOD_US}"), ("cpu.weight", _V2_WEIGHT)]
    if controller == "memory" and limits.memory_bytes is not None:
        return [("memory.limit_in_bytes" if version == "cgroup-v1" else "memory.max", str(limits.memory_bytes))]
    return []


def allows(version: Version, controller: Controller) -> str | None:
    """What the system says against a group of that controller; None where it lets us make one."""
    try:
        limits = Limits(cpu_share=0.5, memory_bytes=2**30)
        make(version, controller, name=f"sapper-probe-{os.getpid()}", limits=limits).path.rmdir()
    except OSError as error:
        return error.strerror or str(error)
    return None
