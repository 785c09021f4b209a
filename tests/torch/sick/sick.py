"""A stack with one illness for each op, for test_prove_ops.py: the CPU, which does to some ops what stacks do."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Sequence
from typing import Any

import torch
from sapper.backends.base import Backend, Executable, Executed, Missing, Unsupported
from sapper.backends.computation import Computation

CALLS: dict[str, int] = {}
"""Of each op in this process."""
LOST: list[str] = []
"""The op that took the context of the device with it: nothing works in this process after it."""


class Sick(Backend):
    kind = "device"

    def __init__(self, detail: str | None) -> None:
        self.name = "sick"
        self.detail = detail

    def missing(self) -> Missing | None:
        return Missing(problem="no driver", remedy="insmod sick") if self.detail == "absent" else None

    def versions(self) -> dict[str, str]:
        return {"sick": "1.0"}

    def device(self) -> Any:
        return torch.device("cpu")

    def prepare(self, computation: Computation) -> Executable:
        return Run(computation, self.detail)


class Run:
    def __init__(self, computation: Computation, detail: str | None) -> None:
        self.computation, self.detail = computation, detail

    def __call__(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        name = self.computation.name
        CALLS[name] = CALLS.get(name, 0) + 1
        before(name, tensors)
        return [after(name, one.detach().clone()) for one in self.computation([one.clone() for one in tensors])]

    def executed(self) -> Executed | None:
        if self.computation.name == "neg":
            return None
        if self.computation.name == "floor":
            return Executed(where="sick:0", ops=0, fallbacks=("aten::floor",))
        return Executed(where="sick:0", ops=None if self.detail == "silent" else 1)


def before(name: str, tensors: Sequence[torch.Tensor]) -> None:
    if LOST:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    odd = bool(tensors and tensors[0].is_floating_point() and tensors[0].isnan().any())
    if name == "sin" and odd:
        ctypes.string_at(0)
    if name == "cos" and odd:
        time.sleep(600)
    if name == "tan" and odd:
        held = bytearray(2**30)
        held[::4096] = b"x" * len(held[::4096])
        time.sleep(30)
    if name == "exp" and odd:
        os._exit(3)
    if name == "asin" and odd:
        LOST.append(name)
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    if name == "sinh":
        raise ValueError("unexpected rank")
    if name == "cosh":
        raise Unsupported("'cosh' not implemented")
    if name == "erf":
        raise RuntimeError("out of memory: tried to allocate 3 TiB")
    if "SLOW_OPS" in os.environ:
        time.sleep(float(os.environ["SLOW_OPS"]))


def after(name: str, one: torch.Tensor) -> torch.Tensor:
    if not one.is_floating_point() or not one.numel():
        return one
    if name == "tanh":
        return one * 1.01
    if name == "sqrt":
        return torch.nan_to_num(one)
    if name == "sigmoid":
        return one.bfloat16().float()
    if name == "log1p" and len(CALLS) > 1:
        return one + 1
    if name == "expm1":
        return one + torch.rand(())
    if name == "bernoulli":
        return torch.zeros_like(one)
    return one


def open(detail: str | None) -> Sick:  # noqa: A001
    return Sick(detail)
