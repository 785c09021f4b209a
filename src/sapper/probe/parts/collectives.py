"""Collectives: this file again, once per device, and each operation over message sizes."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from typing import Any, Callable

from sapper.probe.parts.device import Device
from sapper.probe.parts.session import Session
from sapper.probe.parts.timing import SAMPLE_S, outcome, quartiles, sample

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
COLLECTIVE_SIZES_KIB = (1024, 16384, 64, 262144, 4)
COLLECTIVE_REPEATS = 7
PROCESS_START_S = 60.0
"""Time to start the processes, on top of the section's own: importing a plug-in can take that long."""


def measure_collectives(session: Session) -> None:
    """All devices of the machine, or as many processes as the options say."""
    count = session.options.processes or session.device.count()
    if count < 2:
        session.skip("collectives: one device")
    elif session.device.name == "xla":
        session.skip("collectives: xla starts processes by a launcher of its own")
    elif session.budget.left_s() <= 0:
        session.skip("collectives: time")
    else:
        for line in _spawn(session, count):
            if "kind" in line:
                session.record(**line)
            else:
                session.skip(line["skip"])


def _spawn(session: Session, count: int) -> list[dict[str, Any]]:
    """What the first process wrote, line by line; the last words of a process that died are a skipped case."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = session.options
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "results")
        line = [sys.executable, os.path.abspath(sys.argv[0]), "--device", session.device.name]
        for name in ("plugin", "backend", "threads"):
            if getattr(options, name):
                line += ["--" + name, str(getattr(options, name))]
        seconds = session.budget.left_s()
        children = [
            subprocess.Popen(
                [*line, "--worker", json.dumps({"rank": rank, "world": count, "port": port, "seconds": seconds, "path": path})],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )
            for rank in range(count)
        ]
        problems = _wait_for(children, seconds + PROCESS_START_S)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                # A process that was ended may have left half a line.
                found = [json.loads(text) for text in file if text.endswith("\n")]
    return found + [{"skip": "collectives: " + problem} for problem in problems[:1]]


def _wait_for(children: list[Any], seconds: float) -> list[str]:
    """Last words of the processes that failed; at the deadline those that still run are ended."""
    deadline = time.monotonic() + seconds
    problems = []
    for child in children:
        try:
            _, err = child.communicate(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            _, err = child.communicate()
            err += b"\nstopped at the end of its time"
        if child.returncode != 0:
            problems.append(err.decode("utf-8", "replace").strip().splitlines()[-1:] or [f"ended with {child.returncode}"])
    return [words[0][:200] for words in problems]


def worker(torch: Any, options: argparse.Namespace) -> None:
    """One process of the group; the first one writes the results."""
    job = json.loads(options.worker)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = Device(torch, options.device, plugin=options.plugin, index=job["rank"] if options.device != "cpu" else 0)
    distributed = torch.distributed
    backend = options.backend or next(iter(device.kind.backends), "gloo")
    if options.device == "hpu":
        __import__("habana_frameworks.torch.distributed.hccl")
    address = "tcp://127.0.0.1:{}".format(job["port"])
    distributed.init_process_group(backend, init_method=address, rank=job["rank"], world_size=job["world"])
    deadline = time.monotonic() + job["seconds"]
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(open(job["path"], "w", encoding="utf-8")) if job["rank"] == 0 else None
        for size_kib in COLLECTIVE_SIZES_KIB:
            for kind in COLLECTIVES:
                line = _collective(device, kind, size_kib * 1024, world=job["world"], deadline=deadline)
                line.setdefault("conditions", {})["backend"] = backend
                if out is not None:
                    out.write(json.dumps(line) + "\n")
                    out.flush()
    distributed.destroy_process_group()


def _collective(device: Device, kind: str, size: int, *, world: int, deadline: float) -> dict[str, Any]:
    """Time one operation; every process calls alike, as the slowest says."""
    fields: dict[str, Any] = {
        "kind": kind, "metric": "time", "unit": "s", "dtype": "fp32", "conditions": {"devices": world, "message_bytes": size},
    }
    over = _agreed(device, 1.0 if time.monotonic() > deadline else 0.0)
    if over:
        return {"skip": f"{kind} {size // 1024} KiB: time"}
    try:
        call = _collective_call(device, kind, elements=size // 4, world=world)
        call()
        once_s = min(sample(device, call, 1) for _ in range(2))
    except Exception as error:
        return {**fields, **outcome(error)}
    calls = int(_agreed(device, max(1.0, min(200.0, SAMPLE_S / once_s))))
    low, median, high = quartiles([sample(device, call, calls) for _ in range(COLLECTIVE_REPEATS)])
    fields["conditions"].update(calls=calls, repeats=COLLECTIVE_REPEATS)
    return {**fields, "value": median, "low": low, "high": high}


def _agreed(device: Device, number: float) -> float:
    """The largest ``number`` of all processes."""
    torch = device.torch
    shared = torch.full((1,), number, device=device.place)
    torch.distributed.all_reduce(shared, op=torch.distributed.ReduceOp.MAX)
    device.synchronize()
    return float(shared.cpu()[0])


def _collective_call(device: Device, kind: str, *, elements: int, world: int) -> Callable[[], Any]:
    """A call of the collective ``kind`` on buffers of ``elements`` in all (per process, but for the share that it owns)."""
    torch, distributed = device.torch, device.torch.distributed
    whole = torch.ones(elements, device=device.place)
    share = torch.ones(elements // world, device=device.place)
    if kind == "all-reduce":
        return lambda: distributed.all_reduce(whole)
    if kind == "all-to-all":
        target = torch.empty_like(whole)
        return lambda: distributed.all_to_all_single(target[: share.numel() * world], whole[: share.numel() * world])
    room = whole[: share.numel() * world]
    if kind == "all-gather":
        gather = getattr(distributed, "all_gather_into_tensor", None) or distributed._all_gather_base
        return lambda: gather(room, share)
    scatter = getattr(distributed, "reduce_scatter_tensor", None) or distributed._reduce_scatter_base
    return lambda: scatter(share, room)

