"""One command as several unlike chips: a process each, with the variables that torchrun sets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sapper import units
from sapper.errors import BadValue
from sapper.mix.emulate.limits import Limits
from sapper.mix.emulate.world import Started, World

_LOOK_S = 0.05


@dataclass(frozen=True)
class Chip:
    """One emulated chip."""

    name: str
    """Also the island it stands on."""
    limits: Limits


def chip_of(text: str, *, where: str) -> Chip:
    """The chip of ``NAME=SHARE`` or ``NAME=SHARE,MEMORY``, such as ``slow=0.4,2GiB``.

    Raises:
        BadValue: It says something else.
    """
    name, equals, rest = text.partition("=")
    share, comma, memory = rest.partition(",")
    if not name or not equals or not share:
        raise BadValue("SP-MIX-223", where=where, value=text)
    cpu = units.parse(share, "1", where=where, positive=True)
    size = int(units.parse(memory, "bytes", where=where, positive=True)) if comma else None
    return Chip(name=name, limits=Limits(cpu_share=cpu, memory_bytes=size))


def start(world: World, chips: Sequence[Chip], command: Sequence[str]) -> list[Started]:
    """Start ``command`` once for each chip; its rank is the chip's place.

    Raises:
        BadValue: The system refuses a limit.
    """
    place = world.address(chips[0].name)
    shared = {
        "WORLD_SIZE": str(len(chips)), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": place, "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }  # fmt: skip
    return [
        world.start(chip.name, command, limits=chip.limits, island=chip.name, env={**shared, "RANK": str(rank)})
        for rank, chip in enumerate(chips)
    ]


def wait(started: Sequence[Started], *, keep_going: bool = False) -> list[int]:
    """Exit codes once all have ended; the first that fails ends the others, unless they are to go on."""
    while any(one.process.poll() is None for one in started):
        if not keep_going and any(one.process.poll() for one in started):
            for one in started:
                one.kill()
        time.sleep(_LOOK_S)
    return [one.process.wait() for one in started]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
