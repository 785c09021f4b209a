"""``sapper mix emulate``: one command as several unlike chips on this machine."""

from __future__ import annotations

from typing import Any

import click

from sapper import messages
from sapper.cli.output import Column, emit, emit_json, format_option, talk

_COLUMNS = [
    Column("what", "mix.emulate.column.what"),
    Column("means", "mix.emulate.column.means"),
    Column("works", "mix.emulate.column.works"),
]


@click.command("emulate", help="mix.emulate.help", context_settings={"ignore_unknown_options": True})
@click.argument("line", nargs=-1, metavar="[-- COMMAND]", type=click.UNPROCESSED)
@click.option("--chip", "chips", multiple=True, metavar="NAME=SHARE[,MEMORY]", help="mix.emulate.option.chip")
@click.option("--link", default=None, metavar="RATE[,LATENCY]", help="mix.emulate.option.link")
@click.option(
    "--by", type=click.Choice(["cgroup-v1", "cgroup-v2", "duty-cycle", "paced"]), default=None, help="mix.emulate.option.by"
)
@click.option("--keep-going", is_flag=True, help="mix.emulate.option.keep_going")
@format_option
def command(line: tuple[str, ...], chips: tuple[str, ...], link: str | None, by: Any, keep_going: bool, fmt: str) -> int:
    """Run a command as unlike chips, or say what the machine allows."""
    from sapper.errors import BadValue
    from sapper.mix.emulate import World, probe
    from sapper.mix.emulate.job import chip_of, start, wait
    from sapper.mix.emulate.limits import link_of

    if not line and not chips:
        _print(probe(), fmt)
        return 0
    if not line or not chips:
        raise BadValue("SP-MIX-224", where="--chip" if line else "COMMAND")
    wanted = [chip_of(text, where="--chip") for text in chips]
    joined = link_of(link, where="--link") if link is not None else None
    islands = list(dict.fromkeys(one.name for one in wanted))
    with World(islands=islands, link=joined, cpu=by) as world:
        started = start(world, wanted, line)
        for rank, one in enumerate(started):
            memory, wire = one.used.memory or "-", one.used.wire or "-"
            talk("mix.emulate.started", rank=rank, name=one.name, share=one.limits.cpu_share, cpu=one.used.cpu, memory=memory, wire=wire)
        codes = wait(started, keep_going=keep_going)
    failed = [f"{one.name} ({rank}): {code}" for rank, (one, code) in enumerate(zip(started, codes, strict=True)) if code]
    if failed:
        talk("mix.emulate.failed", codes=", ".join(failed))
    return 1 if failed else 0


def _print(allowed: Any, fmt: str) -> None:
    if fmt == "json":
        emit_json(allowed)
        return
    rows = []
    for what in ("cpu", "memory", "wire"):
        rows += [{"what": messages.text(f"mix.emulate.what.{what}"), "means": one, "works": True} for one in getattr(allowed, what)]
        for name, problem in allowed.refused.items():
            if name.startswith(f"{what} "):
                rows.append({"what": messages.text(f"mix.emulate.what.{what}"), "means": name.partition(" ")[2], "works": problem})
    emit(rows, _COLUMNS, fmt=fmt)
