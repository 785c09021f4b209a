"""Workers on a Ray cluster, with a stand-in for Ray: the tests' environment has none. What was run on a real one: docs/prove-ops.md."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from sapper.errors import SapperError
from sapper.prove.isolate import Job
from sapper.prove.ops import cluster
from sapper.prove.ops.cluster import RayPool


class RayError(Exception):
    """As ``ray.exceptions.RayError``."""


class GetTimeoutError(RayError):
    """As Ray's, which is one of its errors too."""


def ray(*outcomes: Any) -> types.ModuleType:
    """A cluster whose actors start as ``outcomes`` say, one after the other."""
    module = types.ModuleType("ray")
    source = iter(outcomes)

    def get(asked: Any, timeout: float | None = None) -> Any:
        outcome = next(source)
        if isinstance(outcome, Exception):
            raise outcome
        return {"value": outcome}

    def actor(*_: Any) -> Any:
        return types.SimpleNamespace(start=types.SimpleNamespace(remote=lambda: "start"))

    module.__dict__.update(
        init=lambda **_: None, cluster_resources=lambda: {"CPU": 2.0}, available_resources=lambda: {"CPU": 0.0, "node:here": 1.0}, get=get,
        remote=lambda **_: lambda held: types.SimpleNamespace(remote=actor),
        exceptions=types.SimpleNamespace(RayError=RayError, GetTimeoutError=GetTimeoutError),
    )  # fmt: skip
    return module


def test_an_actor_that_is_lost_while_it_starts_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", ray(RayError("died"), RayError("died"), "ready"))
    assert RayPool("auto", setup="m:f", setup_payload={}).start() == "ready"


def test_a_cluster_without_room_or_without_end_of_losses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", ray(GetTimeoutError("late")))
    with pytest.raises(SapperError, match="CPU 0") as late:
        RayPool("auto", setup="m:f", setup_payload={}).start()
    monkeypatch.setitem(sys.modules, "ray", ray(*[RayError("died")] * 100))
    with pytest.raises(SapperError, match="died") as lost:
        RayPool("auto", setup="m:f", setup_payload={}).start()
    assert (late.value.code, lost.value.code) == ("SP-OPS-010", "SP-OPS-009")


def test_a_cluster_that_loses_its_last_machine_is_an_error_and_one_that_is_slow_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    module, alive = ray(), [True, True, False, True, False, False]
    head = {"Alive": True, "Resources": {"memory": 1e9}}  # it stays, but has no core for an actor
    calls = types.SimpleNamespace(remote=lambda _: "call")
    module.__dict__.update(
        remote=lambda **_: lambda held: types.SimpleNamespace(remote=lambda *_: types.SimpleNamespace(run=calls)),
        wait=lambda running, num_returns, timeout: ([], running), nodes=lambda: [head, {"Alive": alive.pop(0), "Resources": {"CPU": 1.0}}],
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", module)
    clock = iter(range(0, 10_000, round(cluster.NO_MACHINE_LIMIT_S * 0.6)))
    monkeypatch.setattr(cluster, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))

    with pytest.raises(SapperError, match="no machine that could hold a worker for 120 s") as caught:
        list(RayPool("auto", setup="m:f", setup_payload={}).run([Job(id="one", function="m:f", payload={})]))
    assert caught.value.code == "SP-OPS-011" and not alive
