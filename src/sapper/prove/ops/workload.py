"""The ops of a workload: one training step on the CPU, each different call kept in a file with the values that it had."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import msgspec

from sapper.programs.opened import open_program
from sapper.prove.call import Call
from sapper.prove.ops.dtypes import NAMES
from sapper.prove.ops.entry import Entry, Phase
from sapper.prove.ops.work import worker
from sapper.prove.speed.trace import calls_of

_PHASES: dict[str, Phase] = {"forward": "forward", "backward": "backward", "optimizer": "step"}


def listing(payload: dict[str, Any]) -> dict[str, Any]:
    """Trace the workload, keep its calls, and list them; a step's backward part has the optimizer's ops as well.

    Raises:
        SapperError: What the target does wrong.
    """
    asked, folder = worker().asked, worker().calls
    assert asked.model is not None
    with contextlib.redirect_stdout(sys.stderr):
        watch = calls_of(open_program(asked.model, dtype=asked.dtypes[0], seed=asked.seed).program)
    folder.mkdir(parents=True, exist_ok=True)
    entries: dict[str, Entry] = {}
    for seen in watch.seen.values():
        if ("forward" if seen.phase == "forward" else "backward") in asked.phases:
            _save(seen.call, folder)
            entry = Entry(op=seen.call.id, dtype=_dtype(seen.call), phase=_PHASES[seen.phase], source="workload")
            entries[entry.id] = entry
    return {"entries": msgspec.to_builtins([entries[name] for name in sorted(entries)]), "names": sorted(watch.left_out)}


def path_of(folder: Path, op: str) -> Path:
    """File of a call by its id."""
    return folder / f"{op.rpartition('#')[2]}.safetensors"


def _save(call: Call, folder: Path) -> None:
    path = path_of(folder, call.id)
    if not path.exists():
        part = path.with_suffix(".part")
        call.save(part)
        part.replace(path)  # nobody sees half of it


def _dtype(call: Call) -> str:
    floating = {NAMES.get(one.dtype, str(one.dtype)[6:]) for one in call.tensors if one.is_floating_point()}
    chosen = floating or {NAMES.get(one.dtype, str(one.dtype)[6:]) for one in call.tensors}
    return chosen.pop() if len(chosen) == 1 else "mixed" if chosen else "-"
