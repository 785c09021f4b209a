"""A child process with PyTorch at hand and nothing else: as clean as a fresh interpreter, without the seconds of its start."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sapper.prove.isolate import Pool

_LOST = 77
"""Exit code of a child in which a device cannot be used."""


def setup(payload: dict[str, Any]) -> dict[str, Any]:
    """Of a worker that has children: PyTorch with what it imports at the first dispatch mode and trace, one thread, and no stack.

    Returns:
        ``forks``: whether devices can be used in its children. Where not, whoever wants a clean process must ask for a fresh worker.
    """
    import torch
    from sapper.backends.computation import Computation
    from sapper.prove.reference import Widened
    from sapper.prove.suspect import suspect_of

    torch.set_num_threads(1)
    with Widened():
        torch.ones(1).add(1)
    one = Computation(name="", fn=lambda x: (x + 1,), tensors=(torch.ones(1),), labels=("value",))
    suspect_of(one, decompose="elementary")
    return {"forks": _in_child(bool) is not None}


def needs_fresh(pool: Pool) -> bool:
    """Whether whoever wants a clean process of ``pool``, whose workers run :func:`setup`, must ask for a fresh worker: they can have no
    children that use a device."""
    if pool.setup_value is None:
        pool.start()
    return not pool.setup_value.get("forks", True)


def in_child(function: Callable[[], Any]) -> dict[str, Any]:
    """What became of a call in a child: ``{"value": ...}``, ``{"raised": ...}`` or ``{"signal": ...}``.

    Its end by a signal costs no new worker. Where the system cannot fork, or no device can be used in a child, it runs here.
    """
    found = _in_child(function)
    return _called(function) if found is None else found


def _in_child(function: Callable[[], Any]) -> dict[str, Any] | None:
    """What became of a call in a child; None where there can be none."""
    if not hasattr(os, "fork"):
        return None
    with tempfile.TemporaryFile("w+b") as out:
        child = os.fork()
        if not child:
            if _has_lost_devices():
                os._exit(_LOST)
            try:
                out.write(json.dumps(_called(function)).encode())
                out.flush()
                sys.stdout.flush()
            finally:
                os._exit(0)
        status = os.waitpid(child, 0)[1]
        out.seek(0)
        said = out.read()
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _LOST:
        return None
    if os.WIFSIGNALED(status):
        return {"signal": signal.Signals(os.WTERMSIG(status)).name}
    return json.loads(said) if said else {"signal": "exit"}


def _has_lost_devices() -> bool:
    """Whether this is the child of a process in which PyTorch had met a device: CUDA works in one of the two alone.

    The question whether there is a GPU can be enough (``cudaGetDeviceCount``), and imports ask it.
    """
    torch = sys.modules.get("torch")
    asked = (getattr(getattr(torch, name, None), "_is_in_bad_fork", None) for name in ("cuda", "xpu", "mtia"))
    return any(one is not None and one() for one in asked)


def _called(function: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": function()}
    except BaseException as error:
        return {"raised": f"{type(error).__name__}: {error}"[:2000]}
