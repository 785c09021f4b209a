"""How a computation is timed on a backend: the probe's warm-up, samples, median and quartiles; inputs lie ready on the device."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from sapper.backends.base import Backend
from sapper.backends.computation import Computation
from sapper.probe.parts.device import DEVICES, Device, DeviceKind, cpu_name
from sapper.probe.parts.timing import measure
from sapper.prove.speed.result import Timing


class Place(Device):
    """The device of a backend as the probe's clock sees it: something to wait for. A compiler's answers have been waited for."""

    def __init__(self, backend: Backend) -> None:
        # not the probe's own start: the backend has imported its plugin and chosen its device
        self.torch: Any = torch
        self.place: Any = backend.device() if backend.kind == "device" else torch.device("cpu")
        self.name, self.index = self.place.type, self.place.index or 0
        self.kind = DEVICES.get(self.name, DeviceKind())
        self.plugin: Any = None
        if self.name == "xla":
            self.plugin = importlib.import_module("torch_xla.core.xla_model")
        self.module: Any = getattr(torch, self.name, None)


class Bench:
    """A backend with a clock."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.place = Place(backend)

    def call(self, computation: Computation) -> Callable[[], list[Any]]:
        """``computation`` as a call to time: on a device with its inputs already there, on a compiler as it is prepared."""
        if self.backend.kind == "device":
            tensors = self.moved(computation.tensors)
            return lambda: computation(tensors)
        executable = self.backend.prepare(computation)
        return lambda: executable(computation.tensors)

    def moved(self, tensors: Sequence[Any]) -> list[Any]:
        """``tensors`` on the device."""
        return [one.to(self.place.place) for one in tensors]

    def time(self, call: Callable[[], Any], *, limit_s: float) -> Timing:
        """Seconds of ``call``, over some samples of many calls each."""
        with torch.no_grad():
            found = measure(self.place, call, limit_s=limit_s)
        return Timing(median_s=found.median_s, low_s=found.low_s, high_s=found.high_s, calls=found.calls, repeats=found.repeats)

    @property
    def title(self) -> str:
        """What the machine calls itself: the device, or the processor under a compiler."""
        return self.place.title()


def conditions(bench: Bench) -> dict[str, str]:
    """What the times depend on: threads, load, clocks; each where the system tells."""
    found = {"threads": str(torch.get_num_threads()), "cpu": cpu_name(), "cpus": str(os.cpu_count() or "?")}
    if hasattr(os, "getloadavg"):
        found["load"] = f"{os.getloadavg()[0]:.2f}"
    tool = bench.place.tool()
    if tool:
        found["tool"] = tool
    found["caches"] = "warm"
    return found
