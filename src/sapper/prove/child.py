"""A child process with PyTorch at hand and nothing else: as clean as a fresh interpreter, without the seconds of its start."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from typing import Any


def setup(payload: dict[str, Any]) -> None:
    """Of a worker that has children: PyTorch with what it imports at the first dispatch mode and trace, one thread, and no stack."""
    import torch
    from sapper.backends.computation import Computation
    from sapper.prove.reference import Widened
    from sapper.prove.suspect import suspect_of

    torch.set_num_threads(1)
    with Widened():
        torch.ones(1).add(1)
    one = Computation(name="", fn=lambda x: (x + 1,), tensors=(torch.ones(1),), labels=("value",))
    suspect_of(one, decompose="elementary")


def in_child(function: Callable[[], Any]) -> dict[str, Any]:
    """What became of a call in a child: ``{"value": ...}``, ``{"raised": ...}`` or ``{"signal": ...}``.

    Its end by a signal costs no new worker. Where the system cannot fork, it runs here.
    """
    if not hasattr(os, "fork"):
        return _called(function)
    with tempfile.TemporaryFile("w+b") as out:
        child = os.fork()
        if not child:
            try:
                out.write(json.dumps(_called(function)).encode())
                out.flush()
                sys.stdout.flush()
            finally:
                os._exit(0)
        status = os.waitpid(child, 0)[1]
        out.seek(0)
        said = out.read()
    if os.WIFSIGNALED(status):
        return {"signal": signal.Signals(os.WTERMSIG(status)).name}
    return json.loads(said) if said else {"signal": "exit"}


def _called(function: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": function()}
    except BaseException as error:
        return {"raised": f"{type(error).__name__}: {error}"[:2000]}
