"""A small language model, and backends of a user's own that limp, for the tests of prove train and prove change."""

from __future__ import annotations

MODEL = '''
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm, self.up, self.act, self.down = nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)

    def forward(self, x):
        return x + self.down(self.act(self.up(self.norm(x))))


class Model(nn.Module):
    def __init__(self, words=61, dim=16, layers=2):
        super().__init__()
        self.words = nn.Embedding(words, dim)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(layers))
        self.norm, self.head, self.drop = nn.LayerNorm(dim), nn.Linear(dim, words), nn.Dropout(0.1)

    def forward(self, ids, _):
        x = self.drop(self.words(ids))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def build(batch=4, seq=6):
    ids, wanted = torch.randint(0, 61, (batch, seq)), torch.randint(0, 61, (batch, seq))
    return Model(), (ids, wanted), lambda out, inputs: F.cross_entropy(out.flatten(0, 1).float(), inputs[1].flatten())


def loader():
    torch.manual_seed(7)
    for _ in range(3):
        yield torch.randint(0, 61, (2, 5)), torch.randint(0, 61, (2, 5))


def cornered():
    raise RuntimeError("no disk")
'''

LIMPING = '''
"""A device that is the CPU, and ends its process at the n-th call of layer norm: ``limping:crash@5``.

``stale`` takes the first eps that it saw for a shape, ``odd`` dies at odd lengths from 5 on.
"""

import os
import signal

import torch
from torch.nn import functional

from sapper.backends import Backend, Executed


STATE = torch.__dict__.setdefault("limping", {"calls": 0})
"""Of the process: this file is run anew for each one who looks for the backend."""


class Limping(Backend):
    kind = "device"

    def __init__(self, detail):
        self.name = f"limping:{detail}"
        self.how, _, self.at = detail.partition("@")

    def missing(self):
        return None

    def versions(self):
        return {"limping": "1"}

    def device(self):
        if self.at and "plain" not in STATE:
            STATE["plain"] = functional.layer_norm
            functional.layer_norm = self.layer_norm
        return torch.device("cpu")

    def layer_norm(self, x, shape, weight, bias, eps):
        if self.how == "stale":
            eps = STATE.setdefault(x.shape, eps)
        elif self.how == "odd":
            if x.shape[1] % 2 and x.shape[1] >= 5:
                os.kill(os.getpid(), signal.SIGSEGV)
        else:
            STATE["calls"] += 1
            if STATE["calls"] == int(self.at):
                os.kill(os.getpid(), signal.SIGSEGV)
        return STATE["plain"](x, shape, weight, bias, eps)

    def prepare(self, computation):
        return Run(self, computation)


class Run:
    def __init__(self, backend, computation):
        self.backend, self.computation = backend, computation

    def __call__(self, tensors):
        STATE.setdefault("plain", functional.layer_norm)
        now, functional.layer_norm = functional.layer_norm, self.backend.layer_norm
        try:
            return [one.detach() for one in self.computation(tensors)]
        finally:
            functional.layer_norm = now

    def executed(self):
        return Executed(where="limping:0", ops=1)


def open(detail):
    return Limping(detail)
'''
