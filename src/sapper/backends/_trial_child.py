"""Run by path in a process of its own: imports PyTorch and a plug-in, computes on the device, says how far it came.

One line of JSON before each stage and one at the end, so that whoever started it knows the stage that ended it. It imports
nothing of Sapper: what it tests may break any process that it is imported into.
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any


def say(**what: Any) -> None:
    """One line for the parent."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def versions_of(modules: list[str]) -> dict[str, str]:
    """Versions of the packages that were imported."""
    found = {}
    for module in modules:
        top = module.partition(".")[0]
        try:
            found[module] = version(top.replace("_", "-"))
        except PackageNotFoundError:
            said = getattr(sys.modules.get(top), "__version__", None)
            found[module] = str(said) if said is not None else "?"
    return found


def try_device(kind: str, index: str, *, modules: list[str]) -> None:
    """Import, find the device, compute on it."""
    say(stage="torch")
    import torch

    for module in modules:
        say(stage="plugin", module=module)
        importlib.import_module(module)
    say(stage="device")
    device = torch.device(f"{kind}:{index}" if index else kind)
    six = torch.tensor([1.0, 2.0, 3.0], device=device).mul(2).sum()
    if six.device.type != kind or float(six.cpu()) != 12.0:
        raise ValueError(f"2 * (1 + 2 + 3) gave {float(six.cpu())} on {six.device}")
    name = None
    space: Any = getattr(torch, kind, None)
    if hasattr(space, "get_device_name"):
        name = str(space.get_device_name(int(index or 0)))
    say(stage="done", versions={"torch": str(torch.__version__), **versions_of(modules)}, name=name)


if __name__ == "__main__":
    try:
        try_device(sys.argv[1], sys.argv[2], modules=sys.argv[3:])
    except BaseException as error:
        say(raised=type(error).__name__, problem=(str(error).strip().splitlines() or ["-"])[0][:300])
        sys.exit(1)
