"""``sapper prove ops``: every op of PyTorch's database, or of a model, on a backend."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sapper import units
from sapper.cli._proof import faults_told, told_when_stopped
from sapper.cli.output import emit_json, talk
from sapper.errors import BadValue

if TYPE_CHECKING:
    from sapper.prove.isolate import Runner
    from sapper.prove.ops.result import Asked, Ops

DTYPES = ("fp32", "bf16", "fp16", "fp64", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64", "complex128")
_MEMORY_BYTES = 4 * 2**30
"""Resident memory of a worker: several times what importing a stack and the largest sample take."""


@click.command("ops", help="prove.ops.help")
@click.option("--on", "backend", required=True, metavar="BACKEND", help="prove.ops.option.on")
@click.option("--for", "model", default=None, metavar="FILE.py:BUILDER|CONFIG|NAME", help="prove.ops.option.for")
@click.option("--ops", "pattern", default=None, metavar="PATTERN", help="prove.ops.option.ops")
@click.option("--dtype", "dtypes", default="fp32", show_default=True, metavar="fp32,bf16,fp16,int64,...", help="prove.ops.option.dtype")
@click.option("--forward-only", is_flag=True, help="prove.ops.option.forward_only")
@click.option("--backward", "backward_only", is_flag=True, help="prove.ops.option.backward")
@click.option("--samples", type=click.IntRange(1, 10_000), default=8, show_default=True, metavar="N", help="prove.ops.option.samples")
@click.option("--no-edges", is_flag=True, help="prove.ops.option.no_edges")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="prove.ops.option.seed")
@click.option("--workers", type=click.IntRange(1, 1024), default=None, metavar="N", help="prove.ops.option.workers")
@click.option("--limit", default="30s", show_default=True, metavar="TIME", help="prove.ops.option.limit")
@click.option("--memory", default=None, metavar="SIZE", help="prove.ops.option.memory")
@click.option("--repros", type=click.IntRange(0), default=5, show_default=True, metavar="N", help="prove.ops.option.repros")
@click.option("--ray", default=None, metavar="auto|local|ray://HOST:PORT", help="prove.ops.option.ray")
@click.option("--emit-pytorch-config", "config", default=None, metavar="FILE", help="prove.ops.option.config")
@click.option("--out", default="proof", show_default=True, metavar="DIR", help="prove.ops.option.out")
@click.option("--json", "as_json", is_flag=True, help="prove.ops.option.json")
def command(
    backend: str, *, model: str | None, pattern: str | None, dtypes: str, forward_only: bool, backward_only: bool, samples: int,
    no_edges: bool, seed: int, workers: int | None, limit: str, memory: str | None, repros: int, ray: str | None, config: str | None,
    out: str, as_json: bool,
) -> int:
    """Prove, write, and say what was found."""
    from sapper.cli import _ops_show
    from sapper.programs.needs import need, need_for
    from sapper.prove.ops import plan
    from sapper.prove.ops.result import NAME, Asked
    from sapper.prove.verdict import GREEN, RED

    need_for(model, where="sapper prove ops") if model else need("torch", where="sapper prove ops")
    if forward_only and backward_only:
        raise BadValue("SP-OPS-005", where="--forward-only, --backward")
    plan.check_backend(backend)
    asked = Asked(
        backend=backend, dtypes=_dtypes(dtypes), phases=("forward",) if forward_only else ("backward",) if backward_only else (
            "forward", "backward"), pattern=pattern, samples=samples, edges=not no_edges, model=model, seed=seed,
    )  # fmt: skip
    folder = Path(out)
    limit_s = units.parse(limit, "s", where="--limit", positive=True)
    memory_bytes = int(units.parse(memory, "bytes", where="--memory", positive=True)) if memory else _MEMORY_BYTES
    runner = _runner(asked, folder, ray=ray, workers=workers, limit_s=limit_s, memory_bytes=memory_bytes)
    # Workers of a cluster may be on other machines: what fired there is not known here.
    told = faults_told(backend, out, "ops", anew=False) if ray is None else contextlib.nullcontext()
    try:
        with told:
            found = _carried_out(asked, runner, folder, repros=repros)
    finally:
        runner.close()
    if as_json:
        emit_json(_ops_show.as_json(found))
    else:
        _ops_show.summary(found)
    talk("prove.ops.show.wrote", path=str(folder / NAME))
    if config is not None:
        from sapper.files import write_atomic
        from sapper.prove.ops.upstream import config_of

        write_atomic(config, config_of(found))
        talk("prove.ops.show.wrote", path=config)
    outcomes = set(found.counts())
    return 1 if outcomes & RED else 0 if outcomes & GREEN else 2


def _dtypes(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names or (text,):
        if name not in DTYPES:
            raise BadValue("SP-OPS-004", where="--dtype", value=name, known=", ".join(DTYPES))
    return names


def _runner(asked: Asked, folder: Path, *, ray: str | None, workers: int | None, limit_s: float, memory_bytes: int) -> Runner:
    from sapper.prove.isolate import Pool
    from sapper.prove.ops.plan import SETUP, setup_payload

    payload = setup_payload(asked, folder)
    if ray is None:
        return Pool(SETUP, payload, workers=workers or os.cpu_count() or 1, limit_s=limit_s, memory_bytes=memory_bytes)
    from importlib.util import find_spec

    if find_spec("ray") is None:
        raise BadValue("SP-OPS-007", where="--ray")
    from sapper.prove.ops.cluster import RayPool

    return RayPool(ray, setup=SETUP, setup_payload=payload, workers=workers, limit_s=limit_s, memory_bytes=memory_bytes)


def _carried_out(asked: Asked, runner: Runner, folder: Path, *, repros: int) -> Ops:
    from sapper.cli._ops_progress import Progress
    from sapper.prove.ops import plan
    from sapper.prove.ops.result import NAME

    talk("prove.ops.show.starting", backend=asked.backend)
    planned = plan.plan(asked, runner)
    stopped = told_when_stopped("prove.ops.show.stopped", path=str(folder / NAME))
    with stopped, Progress(planned.header.entries) as progress:
        return plan.carry_out(
            planned, runner, folder=folder, observer=progress.verdict, entry_done=progress.entry_done, begun=progress.begun, repros=repros
        )
