"""The inside of the worker: the step on the device, under the shadow or plain. It may die; what it knew is on disk by then."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import os
import time
from pathlib import Path
from typing import Any

import msgspec

import torch
from sapper import memory
from sapper.backends import Backend, find
from sapper.programs import opened as programs
from sapper.prove.model.activations import Activations, Watches
from sapper.prove.model.fingerprint import Fingerprints, Projector
from sapper.prove.model.result import Coverage, OpRecord, Pass, Phase
from sapper.prove.model.shadow import Shadow, Stopped
from sapper.prove.model.step import TrainingStep
from sapper.prove.model.tracker import Tracker
from sapper.prove.stored import to_bytes

UNDER_WAY = "model.under-way.json"
"""In the run's folder: the op that was begun last."""
RECORDS = "model.ops.jsonl"
"""In the run's folder: records as they come."""
_REARM_S = 1.0


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What runs, as it travels to the worker."""

    target: str
    backend: str
    folder: str
    seq: int | None = None
    batch: int | None = None
    dtype: str = "fp32"
    seed: int = 0
    steps: int = 1
    threads: int = 1
    op_limit_s: float = 120.0
    """Wall time that one op may take before it counts as hung."""

    def opened(self, draw: int = 0) -> programs.Opened:
        """The program on the CPU."""
        return programs.open_program(self.target, seq=self.seq, batch=self.batch, dtype=self.dtype, seed=self.seed, draw=draw)


class PassRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the step in the worker."""

    at: Pass
    shadow: bool
    share: float = 1.0
    avoid: tuple[str, ...] = ()
    prints: bool = False
    """Whether fingerprints are taken; not together with the shadow."""
    layers: bool = False
    """Whether what flows between modules is kept."""
    kept: bool = True
    """Whether the outputs are kept, in a file."""


class PassAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What it gave; tensors are in files."""

    at: Pass
    records: tuple[OpRecord, ...]
    coverage: Coverage
    cpu_s: float
    stopped: bool = False
    outputs: str | None = None
    """File of the outputs, by label; None where the step was stopped."""
    where: str | None = None
    ops: int | None = None
    fallbacks: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    """Modules as they ended."""
    prints: dict[str, Any] = {}
    """Fingerprints, lists of numbers, by name."""


class UnderWay(msgspec.Struct, frozen=True, kw_only=True):
    """The op that was begun last."""

    index: int
    op: str
    phase: Phase
    path: str
    call: str
    at: Pass


def setup(payload: dict[str, Any]) -> dict[str, Any]:
    """Find the backend, import its plug-in, keep to the threads given, and keep what is freed: plain steps and checked ones alike."""
    memory.keep_freed()
    setting = msgspec.convert(payload, Setting)
    torch.set_num_threads(setting.threads)
    backend = _backend(setting.backend)
    place = str(backend.device()) if backend.kind == "device" else backend.name
    return {"versions": backend.versions(), "place": place}


def run(payload: dict[str, Any]) -> dict[str, Any]:
    """One pass; ``payload`` holds a :class:`Setting` and a :class:`PassRequest`."""
    setting, request = msgspec.convert(payload["setting"], Setting), msgspec.convert(payload["request"], PassRequest)
    answer: dict[str, Any] = msgspec.to_builtins(_run(setting, request))
    return answer


def _run(setting: Setting, request: PassRequest) -> PassAnswer:
    backend = _backend(setting.backend)
    device = backend.device()
    opened = setting.opened(1 if request.at == "other-inputs" else 0)
    step = TrainingStep(opened=opened, steps=setting.steps)
    folder = Path(setting.folder)
    layers, tracker = Activations(), Tracker()
    with _Progress(folder, request.at, setting.op_limit_s) as progress:
        shadow = Shadow(
            tracker, device=device.type, before=progress.before, after=progress.after, share=request.share, seed=setting.seed,
            at=request.at, avoid=frozenset(request.avoid), launched=backend.launched,
        ) if request.shadow else None  # fmt: skip
        prints = Fingerprints(device=device.type, on_host=not backend.real or not _trusted(device)) if request.prints else None
        watches = [one for one in (shadow, prints, layers if request.layers else None) if one is not None]
        executable = backend.prepare(step.computation(Watches(*watches)))
        progress.arm()
        started_s = time.process_time()
        outputs: list[torch.Tensor] | None = None
        with contextlib.suppress(Stopped):
            outputs = executable(step.computation().tensors)
        cpu_s = time.process_time() - started_s
        executed = executable.executed()
    found = None
    if outputs is not None and prints is not None:
        prints.values(step.labels, outputs)
    if outputs is not None and request.kept:
        named = dict(zip(step.labels, outputs, strict=True)) | layers.tensors()
        found = f"model.{request.at}.safetensors"
        (folder / found).write_bytes(to_bytes(list(named.values()), {"names": msgspec.json.encode(list(named)).decode()}))
    if shadow is not None:
        for index, call in shadow.tally.calls.items():
            call.save(folder / f"model.{request.at}.{index}.call.safetensors")
    return PassAnswer(
        at=request.at, records=tuple(shadow.tally.records) if shadow else (), outputs=found, cpu_s=cpu_s, stopped=outputs is None,
        coverage=shadow.tally.coverage(drawn=step.noise.fed, dropout_off=opened.dropout_off) if shadow else Coverage(),
        order=tuple(layers.order),
        where=executed.where if executed else None, ops=executed.ops if executed else None,
        fallbacks=executed.fallbacks if executed else (), prints=prints.prints.on_host() if prints else {},
    )  # fmt: skip


@functools.lru_cache(maxsize=1)
def _backend(name: str) -> Backend:
    """The stack under test, one for all passes: what it keeps from one to the next is what they look for."""
    return find(name)


def _trusted(device: torch.device) -> bool:
    """Whether the device takes fingerprints as the host does, on tensors of several sizes."""
    projector = Projector()
    generator = torch.Generator().manual_seed(0)
    for size in (1, 63, 4096, 40_000, 300_001):
        values = torch.randn(size, generator=generator)
        for ours, theirs in zip(projector.of(values), projector.of(values.to(device)), strict=True):
            if not torch.allclose(ours, theirs.cpu(), rtol=1e-4, atol=1e-4 * size**0.5):
                return False
    return True


class _Progress:
    """Says on disk which op is under way, and ends the process where that op takes too long.

    The watchdog is a thread in C, which needs no lock of Python's: a kernel that hangs with the lock held does not stop it.
    """

    def __init__(self, folder: Path, at: Pass, limit_s: float) -> None:
        self._at, self._limit_s, self._armed_s = at, limit_s, 0.0
        self._file = os.open(folder / UNDER_WAY, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        self._records = os.open(folder / RECORDS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        faulthandler.cancel_dump_traceback_later()
        for one in (self._file, self._records):
            os.close(one)

    def arm(self) -> None:
        """Count the time limit from now; the limit is exact to a second."""
        now_s = time.monotonic()
        if now_s - self._armed_s > _REARM_S:
            self._armed_s = now_s
            faulthandler.dump_traceback_later(self._limit_s + _REARM_S, exit=True)

    def before(self, index: int, op: str, phase: Phase, path: str, call: str) -> None:
        """An op begins."""
        self.arm()
        raw = msgspec.json.encode(UnderWay(index=index, op=op, phase=phase, path=path, call=call, at=self._at))
        os.pwrite(self._file, raw.ljust(512), 0)

    def after(self, record: OpRecord) -> None:
        """An op has its verdict."""
        os.write(self._records, msgspec.json.encode(record) + b"\n")
