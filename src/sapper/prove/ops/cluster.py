"""The same jobs over several devices or machines: each Ray actor holds one isolated worker, so that what a stack does to its
process stays a finding, and what becomes of an actor or its machine costs nothing but the job's second try elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from sapper.errors import SapperError
from sapper.prove.isolate import SETUP_LIMIT_S, Answer, Job, OnPart, Pool

MOST_LOSSES = 20
"""Actors in a row that may be lost without one answer, before the cluster is taken to be gone."""
START_LIMIT_S = SETUP_LIMIT_S + 60.0
"""Until the first actor is ready: Ray waits for ever for a machine that has what an actor asks for."""

NO_MACHINE_LIMIT_S = 120.0
"""How long a cluster may be without a machine that could hold an actor, before it is taken to be gone; calls would wait for ever."""
_LOOK_S = 5.0


class _Held:
    """What runs inside an actor: a pool of one worker."""

    def __init__(self, setup: str, payload: dict[str, Any], options: dict[str, Any]) -> None:
        self._pool = Pool(setup, payload, workers=1, **options)

    def start(self) -> Any:
        try:
            return {"value": self._pool.start()}
        except SapperError as error:
            return {"code": error.code, "values": {key: str(value) for key, value in error.values.items()}}

    def run(self, raw: bytes) -> bytes:
        (answer,) = self._pool.run([msgspec.json.decode(raw, type=Job)])
        return msgspec.json.encode(answer)


class RayPool:
    """Workers on a Ray cluster; the machines need Sapper and the stack, and the run's folder where a model's ops are asked for.

    Args:
        address: ``auto``, ``local`` (a cluster of this machine alone) or ``ray://HOST:PORT``.
        setup: As for :class:`~sapper.prove.isolate.Pool`.
        setup_payload: JSON.
        workers: Actors; None: as many as the cluster has cores (or devices, where ``resources`` says which).
        limit_s: Wall time that a job, or a part of one, may take.
        memory_bytes: Resident memory that a worker may have.
        resources: What each actor takes of the cluster, such as ``{"NPU": 1}``.
    """

    def __init__(
        self, address: str, *, setup: str, setup_payload: dict[str, Any], workers: int | None = None, limit_s: float = 30.0,
        memory_bytes: int | None = None, resources: dict[str, float] | None = None,
    ) -> None:
        import ray

        self._ray = ray
        try:
            local: dict[str, Any] = {"include_dashboard": False} if address == "local" else {"address": address}
            ray.init(**local, log_to_driver=False, configure_logging=False)
        except Exception as error:  # Ray has no class of its own for a cluster that does not come up
            raise SapperError("SP-OPS-008", where=f"--ray {address}", problem=str(error).partition("\n")[0]) from error
        options = {"limit_s": limit_s, "memory_bytes": memory_bytes, "setup_limit_s": SETUP_LIMIT_S}
        remote = ray.remote(num_cpus=1, resources=resources or {}, max_restarts=0)(_Held)
        self._needs = {"CPU": 1.0, **(resources or {})}
        self._make: Callable[[], Any] = lambda: remote.remote(setup, setup_payload, options)
        self._count = workers or max(1, int(ray.cluster_resources().get(next(iter(resources or {}), "CPU"), 1)))
        self._idle: list[Any] = []
        self._losses = 0

    def close(self) -> None:
        """Leave the cluster; its actors end."""
        self._ray.shutdown()

    def start(self) -> Any:
        """Start an actor and wait until its worker is ready.

        Raises:
            SapperError: The setup raises, or ends its process; no machine of the cluster has room for an actor; actors are lost one
                after the other.
        """
        while True:
            actor = self._make()
            try:
                found = self._ray.get(actor.start.remote(), timeout=START_LIMIT_S)
                break
            except self._ray.exceptions.GetTimeoutError as error:
                left = sorted(self._ray.available_resources().items())
                free = ", ".join(f"{name} {amount:g}" for name, amount in left if "node:" not in name)
                raise SapperError("SP-OPS-010", limit=round(START_LIMIT_S), free=free or "-") from error
            except self._ray.exceptions.RayError as error:
                self._lost(error)
        if "code" in found:
            raise SapperError(found["code"], **found["values"])
        self._idle.append(actor)
        return found["value"]

    def run(self, jobs: Iterable[Job], on_part: OnPart | None = None) -> Iterator[Answer]:
        """Answers as they come; parts are told when their job has ended.

        Raises:
            SapperError: Actors are lost one after the other, or all machines.
        """
        source = iter(jobs)
        running: dict[Any, tuple[Any, Job]] = {}
        again: list[Job] = []
        while True:
            while len(running) < self._count and (job := again.pop() if again else next(source, None)) is not None:
                actor = self._idle.pop() if self._idle else self._make()
                running[actor.run.remote(msgspec.json.encode(job))] = actor, job
            if not running:
                return
            ready = self._first(running)
            actor, job = running.pop(ready)
            try:
                answer = msgspec.json.decode(self._ray.get(ready), type=Answer)
            except self._ray.exceptions.RayError as error:
                self._lost(error)
                again.append(job)
                continue
            self._idle.append(actor)
            self._losses = 0
            for part in answer.parts if on_part is not None else ():
                on_part(job.id, part)  # type: ignore[misc]
            yield answer

    def _first(self, running: Iterable[Any]) -> Any:
        """The call that ends first.

        Raises:
            SapperError: The cluster has for too long had no machine that could hold an actor; a head without cores is none.
        """
        calls = list(running)
        seen_s = time.monotonic()
        while True:
            ended, _ = self._ray.wait(calls, num_returns=1, timeout=_LOOK_S)
            if ended:
                return ended[0]
            if any(node["Alive"] and self._fits(node["Resources"]) for node in self._ray.nodes()):
                seen_s = time.monotonic()
            elif time.monotonic() - seen_s >= NO_MACHINE_LIMIT_S:
                raise SapperError("SP-OPS-011", limit=round(NO_MACHINE_LIMIT_S))

    def _fits(self, machine: Mapping[str, float]) -> bool:
        """Whether a machine, by its resources, could hold an actor if it had nothing else to do."""
        return all(machine.get(name, 0.0) >= amount for name, amount in self._needs.items())

    def _lost(self, error: Exception) -> None:
        self._losses += 1
        if self._losses >= MOST_LOSSES:
            raise SapperError("SP-OPS-009", problem=str(error).splitlines()[0]) from error
