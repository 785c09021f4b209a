"""World: the emulated chips of one run, started, watched and cleared away."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sapper.errors import BadValue
from sapper.mix.emulate import cgroup, network, pace
from sapper.mix.emulate.duty import DutyCycle
from sapper.mix.emulate.limits import Allowed, Cpu, Limits, Link, Memory, Used, Wire
from sapper.mix.emulate.probe import probe

_ENTER = 'while [ "$1" != -- ]; do case "$1" in /*) echo $$ > "$1" ;; *) ulimit -d "$1" ;; esac || exit 125; shift; done; shift; exec "$@"'
"""Shell: joins control groups (paths) and takes a limit of memory (KiB), then becomes the command, so that nothing of it runs free."""


CONDITIONS = "SAPPER_MIX_EMULATED"
"""Environment of each process under limits: what holds it, for whatever it reports."""
FREE = Limits()
"""No limit."""


@dataclass
class Started:
    """A process under limits."""

    name: str
    process: subprocess.Popen[Any]
    limits: Limits
    used: Used
    _quota: cgroup.Group | None = None
    _duty: DutyCycle | None = None

    def slow_to(self, share: float) -> None:
        """Another share of a core from now on: a chip that slows down (or recovers) in the middle of a run.

        Raises:
            BadValue: The process paces itself, or has no limit.
        """
        if self._quota is not None:
            file = "cpu.cfs_quota_us" if self.used.cpu == "cgroup-v1" else "cpu.max"
            (self._quota.path / file).write_text(str(round(share * cgroup.PERIOD_US)))
        elif self._duty is not None:
            self._duty.slow_to(share)
        else:
            raise BadValue("SP-MIX-222", where=self.name)

    def kill(self) -> None:
        """SIGKILL to the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


class World:
    """A context in which processes run as unlike chips; leaving it, or being killed in it, removes all of them.

    Args:
        islands: Names of islands that are joined by ``link``; empty: all processes share the machine's network.
        link: What joins them.
        cpu: Means to hold processor time by; None: the best that the machine allows.
        wire: Means to hold links by; None: the best that the machine allows.
        allowed: What the machine allows; None: it is probed.

    Raises:
        BadValue: The machine does not allow a means that was asked for by name.
    """

    def __init__(
        self, *, islands: Sequence[str] = (), link: Link | None = None, cpu: Cpu | None = None, wire: Wire | None = None,
        allowed: Allowed | None = None,
    ) -> None:  # fmt: skip
        self.allowed = probe() if allowed is None else allowed
        for name, asked, allowing in (("cpu", cpu, self.allowed.cpu), ("wire", wire, self.allowed.wire)):
            if asked is not None and asked not in allowing:
                problem = self.allowed.refused.get(f"{name} {asked}", "-")
                raise BadValue("SP-MIX-220", where=name, means=asked, problem=problem, known=", ".join(allowing))
        self.cpu: Cpu = cpu or self.allowed.cpu[0]
        self.link = link
        self.wire: Wire | None = None
        if link is not None:
            self.wire = wire or (self.allowed.wire_latency if link.latency_s else self.allowed.wire)[0]
        self._names = tuple(islands)
        self._islands: dict[str, network.Island] = {}
        self._started: list[Started] = []
        self._janitor: subprocess.Popen[str] | None = None

    def __enter__(self) -> World:
        script = Path(__file__).with_name("janitor.py")
        self._janitor = subprocess.Popen(
            [sys.executable, "-I", "-S", str(script)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            text=True, bufsize=1, start_new_session=True,
        )  # fmt: skip
        try:
            if self.wire == "tbf" and self.link is not None and self._names:
                laid = network.lay(self._names, self.link, made=lambda name: self._undo("netns", name))
                self._islands = {one.name: one for one in laid}
        except OSError as error:
            self.close()
            raise BadValue("SP-MIX-221", where="link", problem=error.strerror or str(error)) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all processes and remove groups and namespaces; returns when they are gone."""
        for one in self._started:
            if one._duty is not None:
                one._duty.close()
            one.kill()
        for one in self._started:
            one.process.wait()
        if self._janitor is not None and self._janitor.stdin is not None:
            self._janitor.stdin.close()
            self._janitor.wait()
            self._janitor = None

    def address(self, island: str | None) -> str:
        """Where processes of an island listen."""
        return self._islands[island].address if island in self._islands else "127.0.0.1"

    def start(
        self, name: str, command: Sequence[str], *, limits: Limits = FREE, island: str | None = None,
        env: Mapping[str, str] | None = None, stdin: int | IO[Any] | None = None, stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
    ) -> Started:  # fmt: skip
        """Run ``command`` under ``limits``, on an island.

        Args:
            name: For messages and control groups.
            command: Program and arguments.
            limits: What it may take.
            island: One of the world's.
            env: Added to this process's environment.
            stdin: As of :class:`subprocess.Popen`; so the next two.
            stdout: As of :class:`subprocess.Popen`.
            stderr: As of :class:`subprocess.Popen`.

        Raises:
            BadValue: The system refuses a limit.
        """
        place = self._islands.get(island or "")
        line, quota, used, more = self._held(name, limits)
        full = [*line, *(place.command(command) if place else command)]
        if place is not None:
            more |= {"GLOO_SOCKET_IFNAME": network.DEVICE}
            used = Used(cpu=used.cpu, memory=used.memory, wire="tbf")
        elif self.wire == "toll" and self.link is not None:
            more[pace.TOLL_VARIABLE] = f"{self.link.rate_bytes_per_s!r},{self.link.latency_s!r}"
            used = Used(cpu=used.cpu, memory=used.memory, wire="toll")
        if limits.cpu_share is not None:
            more[CONDITIONS] = f"{limits.cpu_share:g} of a core by {used.cpu}"
        environment = {**os.environ, **more, **(env or {})}
        process = subprocess.Popen(full, env=environment, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)
        self._undo("kill", str(process.pid))
        duty = DutyCycle(process.pid, share=limits.cpu_share) if used.cpu == "duty-cycle" and limits.cpu_share else None
        started = Started(name=name, process=process, limits=limits, used=used, _quota=quota, _duty=duty)
        self._started.append(started)
        return started

    def _held(self, name: str, limits: Limits) -> tuple[list[str], cgroup.Group | None, Used, dict[str, str]]:
        """What goes before the command, its group of processor time, the means, and what goes into its environment."""
        joins: list[str] = []
        quota = None
        cpu = self.cpu if limits.cpu_share is not None else None
        memory: Memory | None = self.allowed.memory[0] if limits.memory_bytes is not None else None
        if cpu == "cgroup-v1" or cpu == "cgroup-v2":
            quota = self._group(cpu, "cpu", name, limits)
            joins.append(str(quota.procs))
        if limits.memory_bytes is not None:
            if memory == "cgroup-v1" or memory == "cgroup-v2":
                joins.append(str(self._group(memory, "memory", name, limits).procs))
            else:
                joins.append(str(limits.memory_bytes // 1024))
        more = {pace.VARIABLE: repr(limits.cpu_share)} if cpu == "paced" else {}
        line = ["/bin/sh", "-c", _ENTER, "sh", *joins, "--"] if joins else []
        return line, quota, Used(cpu=cpu, memory=memory), more

    def _group(self, version: cgroup.Version, controller: cgroup.Controller, name: str, limits: Limits) -> cgroup.Group:
        try:
            own = f"sapper-{os.getpid()}-{len(self._started)}"
            return cgroup.make(version, controller, name=own, limits=limits, made=lambda path: self._undo("group", path))
        except OSError as error:
            raise BadValue("SP-MIX-221", where=name, problem=error.strerror or str(error)) from error

    def _undo(self, verb: str, argument: str) -> None:
        assert self._janitor is not None and self._janitor.stdin is not None, "a World is used inside its `with`"
        self._janitor.stdin.write(f"{verb} {argument}\n")
