"""Any device of PyTorch by its name: ``torch:npu``, ``torch:cuda:1``, ``torch:mychip@torch_mychip``, or ``npu`` alone.

A vendor's plug-in is imported when the device is used. Whether it can be is tried in a process of its own first, since a
plug-in without its driver may end the process that imports it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sapper.backends.base import Missing, Unsupported

if TYPE_CHECKING:
    from sapper.backends.computation import Computation

REFUSALS = ("Could not run", "not implemented", "not support", "unsupported", "not currently implemented")
"""Words by which stacks say that they lack an op or a dtype."""


def without_torch() -> Missing | None:
    """What is missing where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        return Missing(problem="PyTorch is not installed", remedy="pip install torch")
    return None


def run_on(device: Any, computation: Computation, tensors: Sequence[Any]) -> list[Any]:
    """Run a computation on a device; its outputs on the CPU, waited for.

    Raises:
        Unsupported: The device refuses an op or a dtype.
    """
    try:
        found = computation([one.to(device) for one in tensors])
        return [one.detach().cpu() for one in found]
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, NotImplementedError) or any(words.lower() in str(error).lower() for words in REFUSALS):
            raise Unsupported(str(error).partition("\n\n")[0]) from error
        raise
