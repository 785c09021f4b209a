"""Everything that is watched once PyTorch is there."""

from __future__ import annotations

import os

from sapper.port.dryrun.inside import answers, chip, collectives, compiled, cuda_module, journal, placement, precision
from sapper.port.dryrun.session import current

_PLUGGED: list[bool] = []


def watch() -> None:
    """Called once, when ``import torch`` has ended."""
    session = current()
    if session.autoload:
        plug_in()
    cuda_module.watch()
    placement.watch()
    precision.watch()
    compiled.watch()
    collectives.watch()
    if session.shim:
        answers.switch_on_shim()


def plug_in() -> None:
    """Register the emulated chip, as importing the vendor's plug-in registers the vendor's; the second time does nothing."""
    if not _PLUGGED:
        _PLUGGED.append(True)
        chip.install(current().stack, processes=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        journal.JOURNAL.at_end(chip.tell)
