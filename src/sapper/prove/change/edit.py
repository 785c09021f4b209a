"""Edits: what is changed of a program, as data that a worker carries out."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Family = Literal[
    "original", "batch", "length", "dynamic", "dtype", "index", "layout", "layers", "attention", "activation", "norm", "attribute",
    "checkpoint", "mode", "frozen", "config", "own",
]  # fmt: skip
"""What kind of thing an edit changes.

=============== ==========================================================================================
``original``    none: the program as it is, which the edits are told from
``batch``       samples: none, one, other numbers
``length``      tokens of a sample, or height and width of an image: one, odd, longer
``dynamic``     several lengths one after the other in one process
``dtype``       of weights and inputs
``index``       integer inputs as int32
``layout``      inputs that are not contiguous, images with channels last
``layers``      layers removed, added, exchanged
``attention``   causal, full, masked, written out
``activation``  another function
``norm``        another normalisation
``attribute``   a number of a module at equal shapes (``eps``, a slope, a scale), after the original in one process
``checkpoint``  activations computed again in the backward pass
``mode``        evaluation instead of training
``frozen``      part of the weights without gradients
``config``      a field of a Transformers config
``own``         the user's own function
=============== ==========================================================================================
"""


class Edit(msgspec.Struct, frozen=True, kw_only=True):
    """One change."""

    family: Family
    name: str
    """What it changes to, unique in its family: ``1``, ``drop blocks.1``, ``eps=0.001``."""
    change: str
    """Name of the function of :mod:`sapper.prove.change.apply` that carries it out."""
    args: dict[str, Any] = {}

    @property
    def id(self) -> str:
        """``family:name``."""
        return f"{self.family}:{self.name}"


ORIGINAL = Edit(family="original", name="unedited", change="nothing")
"""Tried first: what fails without any edit says nothing of one."""


class Size(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How large the program is that an edit is applied to; None: as the target has it."""

    batch: int | None = None
    seq: int | None = None
    layers: int | None = None
    """Most layers of each list of layers."""


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """What is edited, as it travels to a worker."""

    target: str
    on: str
    dtype: str = "fp32"
    batch: int | None = None
    seq: int | None = None
    seed: int = 0
    edits_file: str | None = None
    """``file.py:function`` that returns the user's own edits."""
