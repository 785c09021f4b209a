"""``sapper mix run``: a plan, run by workers that this command starts and that outlive it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from sapper import messages
from sapper.cli._proof import need_torch
from sapper.cli._run_account import tell
from sapper.cli.output import talk
from sapper.errors import BadValue


@click.command("run", help="mix.run.help")
@click.argument("plan", type=click.Path())
@click.option("--model", default=None, metavar="NAME|CONFIG|FILE.py:BUILDER", help="mix.run.option.model")
@click.option("--data", default=None, metavar="FILE.py:LOADER", help="mix.run.option.data")
@click.option("--steps", type=click.IntRange(1), default=100, show_default=True, metavar="N", help="mix.run.option.steps")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="N", help="mix.run.option.seed")
@click.option("--optimizer", type=click.Choice(["adamw", "sgd"]), default="adamw", show_default=True, help="mix.run.option.optimizer")
@click.option("--lr", type=click.FloatRange(0, min_open=True), default=1e-3, show_default=True, metavar="RATE", help="mix.run.option.lr")
@click.option("--clip", type=click.FloatRange(0, min_open=True), default=None, metavar="NORM", help="mix.run.option.clip")
@click.option("--replan", type=click.FloatRange(0, 1), default=None, metavar="SHARE", help="mix.run.option.replan")
@click.option("--on", "cluster", type=click.Path(), default=None, metavar="CLUSTER", help="mix.run.option.on")
@click.option("--dtype", "dtypes", multiple=True, metavar="GROUP=DTYPE", help="mix.run.option.dtype")
@click.option("--device", default="cpu", show_default=True, metavar="DEVICE", help="mix.run.option.device")
@click.option("--out", type=click.Path(file_okay=False), default="mix-run", show_default=True, metavar="FOLDER", help="mix.run.option.out")
@click.option("--checkpoints", type=click.Path(file_okay=False), default=None, metavar="FOLDER", help="mix.run.option.checkpoints")
@click.option("--every", type=click.IntRange(1), default=100, show_default=True, metavar="STEPS", help="mix.run.option.every")
@click.option("--keep", type=click.IntRange(1), default=3, show_default=True, metavar="N", help="mix.run.option.keep")
@click.option("--here", multiple=True, metavar="GROUP[:FIRST-LAST]", help="mix.run.option.here")
@click.option("--meet", default=None, metavar="HOST:PORT", help="mix.run.option.meet")
@click.option("--join", "doors", multiple=True, metavar="HOST:PORT", help="mix.run.option.join")
@click.option("--store", default=None, metavar="URL", help="mix.run.option.store")
@click.option(
    "--silent", "silent_s", type=click.FloatRange(1.0), default=10.0, show_default=True, metavar="SECONDS", help="mix.run.option.silent"
)
def command(
    plan: str, model: str | None, data: str | None, steps: int, seed: int, optimizer: Any, lr: float, clip: float | None,
    replan: float | None, cluster: str | None, dtypes: tuple[str, ...], device: str, out: str,
    checkpoints: str | None, every: int, keep: int,
    here: tuple[str, ...], meet: str | None, doors: tuple[str, ...],
    store: str | None, silent_s: float,
) -> int:  # fmt: skip
    """Exit code 1 where the run did not come to its end on this host."""
    need_torch()
    import msgspec

    from sapper.files import write_atomic
    from sapper.mix.emulate.job import free_port
    from sapper.mix.plan import read_plan, seats
    from sapper.mix.run.targets import check_device, check_loss
    from sapper.mix.survive.launch import Here, Launcher, clean, ranks_here
    from sapper.mix.survive.spec import NAME, Spec

    found = read_plan(plan)
    under = _under_torchrun(here=here, meet=meet, join=doors)
    ranks = ranks_here(found, here)
    for option, one in (("--meet", meet), *(("--join", door) for door in doors)):
        if one is not None and not _is_address(one):
            raise BadValue("SP-MIX-210", where=option, value=one)
    taken = seats(found)
    if meet is None and not doors and len(ranks) < len(taken):
        raise BadValue("SP-MIX-206", where="--meet")
    spec = Spec(
        plan=str(Path(plan).resolve()), model=model or found.model, data=data, steps=steps, seed=seed, optimizer=optimizer, lr=lr,
        clip=clip, replan_share=replan, device=device, checkpoints=checkpoints and str(Path(checkpoints).resolve()), every=every, keep=keep,
        silent_s=silent_s, dtypes=dict(one.rpartition("=")[::2] for one in dtypes), cluster=cluster and str(Path(cluster).resolve()),
    )  # fmt: skip
    # What is wrong is said here, and not by each worker.
    check_device(device)
    check_loss(spec.job().model)
    spec.planner()
    if checkpoints is not None and not doors:
        _say_from(Path(checkpoints))
    folder = Path(out)
    if not under:
        clean(folder)
    write_atomic(folder / NAME, msgspec.json.format(msgspec.json.encode(spec), indent=1))
    if under:
        return _keep(folder, lambda: tell(folder, found, device=device, store=store))
    if doors:
        place = Here(guests=tuple(taken[rank].group for rank in ranks), doors=doors)
    else:
        place = Here(ranks=ranks, meet=meet or f"127.0.0.1:{free_port()}")
    teller = _Teller(folder)
    fine = Launcher(folder, found, place, told=teller.tell).run()
    tell(folder, found, device=device, store=store)
    if not fine:
        talk("mix.run.failed", folder=str(folder))
    return 0 if fine else 1


def _under_torchrun(**places: Any) -> bool:
    """Whether torchrun started this process; it says where each process is, and no option does."""
    under = "TORCHELASTIC_RUN_ID" in os.environ
    if under and any(places.values()):
        raise BadValue("SP-MIX-212", where=next(f"--{name}" for name, one in places.items() if one))
    return under


def _keep(folder: Path, account: Callable[[], None]) -> int:
    """The worker of this place of torchrun; the first place tells how the run goes, and its account at the end."""
    from sapper.mix.survive import elastic

    if os.environ.get("RANK") != "0":
        return 0 if elastic.keep(folder) else 1
    fine = elastic.keep(folder, told=_Teller(folder).tell)
    account()
    return 0 if fine else 1


class _Teller:
    """Prints what happens: each step and each change once, whichever member of this host tells it first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._step = -1
        self._epoch = 0
        self._members = 0
        self._ended = False

    def tell(self, line: Mapping[str, Any]) -> None:
        """One line of a journal."""
        kind = line["kind"]
        if kind == "step" and line["step"] > self._step:
            self._step = line["step"]
            rate = f"{line['tokens'] / line['step_s']:,.0f}"
            click.echo(messages.text("mix.run.step", step=self._step, loss=f"{line['loss']:.6g}", rate=rate, members=self._members))
        elif kind == "view":
            self._members = self._members or len(line["members"])
        elif kind == "change" and line["epoch"] > self._epoch:
            self._epoch, self._members, self._step = line["epoch"], line["count"], line["step"] - 1
            words = {name: messages.text(f"mix.run.{name}.{line[name]}") for name in ("source", "planned")}
            click.echo(messages.text("mix.run.change", **{**_plain(line), "took_s": f"{line['took_s']:.2f}", **words}))
        elif kind == "door":
            host, port = line["door"]
            talk("mix.run.door", number=line["number"], group=line["group"], door=f"{host}:{port}")
        elif kind == "end" and not self._ended:
            self._ended = True
            click.echo(messages.text("mix.run.end", folder=str(self._folder), **_plain(line)))
        elif kind in ("lost", "again", "fault", "early"):
            talk(f"mix.run.{kind}", **_plain(line))


def _plain(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if isinstance(value, (str, int))} | {"reason": _first(line.get("reason", ""))}


def _first(reason: str) -> str:
    return reason.split("\n")[0].strip()


def _say_from(root: Path) -> None:
    """From which checkpoint the run begins, and which newer ones are passed over because they are not whole."""
    from sapper.mix.checkpoint import manifest

    whole = manifest.whole(root)
    for step in manifest.steps(root):
        if step not in whole:
            talk("mix.run.torn", folder=str(manifest.folder_of(root, step)))
    if whole:
        talk("mix.run.resume", folder=str(manifest.folder_of(root, whole[-1])), step=whole[-1])


def _is_address(text: str) -> bool:
    host, _, port = text.rpartition(":")
    return bool(host) and port.isdigit() and 0 < int(port) < 2**16
