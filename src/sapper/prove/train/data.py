"""Batches to train on: drawn with a structure that a model can learn, or the user's own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from sapper.errors import BadValue
from sapper.programs import faults
from sapper.programs.program import is_ordered, load_builder, mapped, tensors_in

DISTINCT = 4
"""Drawn batches; training goes through them again and again, so that the loss falls within a few dozen steps."""
CLASSES = 8
"""Kinds of samples: each has a pattern of its own in floating inputs and starts its tokens elsewhere."""
WORDS = 32
"""Distinct tokens that sequences are made of, spread over the vocabulary."""
_SIGNAL, _NOISE = 0.8, 0.6
"""Parts of the pattern and of noise in floating inputs: their squares add to one."""
_FAITHFUL = 0.9
"""How often a token is followed by its own successor."""


def drawn(inputs: Any, *, seed: int, distinct: int = DISTINCT) -> list[Any]:
    """Batches of the form of ``inputs``, which a builder made, by a seed.

    Each sample is of one of :data:`CLASSES` kinds. Floating tensors are the kind's pattern with noise, at the mean, the deviation
    and within the range of the builder's own; integers of one dim (labels) are the kind; longer ones are tokens, each followed by
    a fixed successor nine times in ten. A second tensor of tokens is the first where the builder's two are equal, else it is the
    first shifted by one: what follows. What is the same in every sample (masks, positions), and integers in ascending order (offsets),
    stay as the builder made them.
    """
    return [mapped(inputs, _Batch(seed, number).like) for number in range(distinct)]


class _Batch:
    def __init__(self, seed: int, number: int) -> None:
        self._fixed = torch.Generator().manual_seed(seed)
        self._generator = torch.Generator().manual_seed((seed << 8) + number + 1)
        self._kinds: torch.Tensor | None = None
        self._chains: dict[tuple[int, ...], torch.Tensor] = {}
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def like(self, given: torch.Tensor) -> torch.Tensor:
        """Other values for a tensor of the inputs."""
        same = next((new for old, new in self._seen if old.dtype == given.dtype and torch.equal(old, given)), None)
        if same is not None:
            return same.clone()
        if not given.dim() or not given.numel() or given.dtype == torch.bool or given.is_complex() or _alike(given) or is_ordered(given):
            return given.clone()
        if self._kinds is None:
            self._kinds = torch.randint(0, CLASSES, (given.shape[0],), generator=self._generator)
        if self._kinds.shape[0] != given.shape[0]:
            return given.clone()
        made = self._floats(given) if given.is_floating_point() else self._integers(given)
        self._seen.append((given, made))
        return made

    def _floats(self, given: torch.Tensor) -> torch.Tensor:
        assert self._kinds is not None
        wide = given.float()
        patterns = torch.randn((CLASSES, *given.shape[1:]), generator=self._fixed)
        noise = torch.randn(given.shape, generator=self._generator)
        made = wide.mean() + wide.std(correction=0) * (_SIGNAL * patterns[self._kinds] + _NOISE * noise)
        return made.clamp(wide.min(), wide.max()).to(given.dtype)

    def _integers(self, given: torch.Tensor) -> torch.Tensor:
        assert self._kinds is not None
        low, high = int(given.min()), int(given.max())
        count = high - low + 1
        if given.dim() == 1:
            return (low + self._kinds % count).to(given.dtype)
        shape = tuple(given.shape)
        follows = shape in self._chains
        if not follows:
            self._chains[shape] = self._chain(given.shape[0], math.prod(shape[1:]) + 1)
        chain = self._chains[shape][:, 1:] if follows else self._chains[shape][:, :-1]
        words = min(WORDS, count)
        return (low + (chain % words) * (count // words)).reshape(shape).to(given.dtype)

    def _chain(self, samples: int, length: int) -> torch.Tensor:
        """Numbers below :data:`WORDS`, each (mostly) the successor of the one before."""
        assert self._kinds is not None
        successor = torch.randperm(WORDS, generator=self._fixed)
        other = torch.randint(0, WORDS, (samples, length), generator=self._generator)
        faithful = torch.rand((samples, length), generator=self._generator) < _FAITHFUL
        chain = other.clone()
        chain[:, 0] = self._kinds * (WORDS // CLASSES)
        for at in range(1, length):
            chain[:, at] = torch.where(faithful[:, at], successor[chain[:, at - 1]], other[:, at])
        return chain


def _alike(given: torch.Tensor) -> bool:
    """Whether every sample is the same."""
    return given.shape[0] > 1 and bool((given == given[:1]).all())


def loaded(spec: str, steps: int) -> list[Any]:
    """Up to ``steps`` batches of the user's own loader, ``file.py:function``.

    Raises:
        BadFile: It raises.
        BadValue: It gives no batch, or one that holds no tensor of the CPU.
    """
    loader, path = load_builder(spec)
    with faults.of_the_user(path, "SP-TRAIN-001"):
        batches = list(itertools.islice(_iterated(loader()), steps))
    if not batches:
        raise BadValue("SP-TRAIN-002", where=spec)
    for number, batch in enumerate(batches):
        found = tensors_in(batch)
        if not found or any(one.device.type != "cpu" for one in found):
            raise BadValue("SP-TRAIN-003", where=spec, number=number, found=type(batch).__name__)
    return batches


def _iterated(found: Any) -> Iterator[Any]:
    return iter(found)
