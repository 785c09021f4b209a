"""Samples by their number, so that any cut of a batch sees the same ones: sample n of step t is number t * batch + n, counted from 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

IGNORED = -100
"""Label of what the loss passes over (PyTorch's default ``ignore_index``)."""


class Data(Protocol):
    """Samples by number."""

    def batch(self, numbers: Sequence[int]) -> Any:
        """The model's inputs for these samples, on the CPU: a tensor, a tuple of positional or a dict of keyword arguments."""

    def weight(self, inputs: Any) -> float:
        """How many terms the mean that is the model's loss on ``inputs`` is taken over: tokens with a label, or samples."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Drawn sequences for a causal language model: each token is followed by its own successor nine times in ten.

    ``masked`` is the share of labels that are hidden; ``ragged`` draws a length for each sample and pads the rest.
    """

    vocab: int
    seq: int
    seed: int = 0
    masked: float = 0.0
    ragged: bool = False

    def batch(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        """See :class:`Data`."""
        rows = [self._sample(number) for number in numbers]
        ids, labels = (torch.stack([row[at] for row in rows]) for at in (0, 1))
        found = {"input_ids": ids, "labels": labels}
        if self.ragged:
            found["attention_mask"] = torch.stack([row[2] for row in rows])
        return found

    def weight(self, inputs: Any) -> float:
        """Labels that are taken into account: the model shifts them by one."""
        return float((inputs["labels"][:, 1:] != IGNORED).sum())

    def _sample(self, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed((self.seed << 40) + number)
        words = min(self.vocab, 64)
        drawn = torch.randint(0, words, (self.seq,), generator=generator)
        faithful = torch.rand(self.seq, generator=generator) < 0.9
        ids = drawn.clone()
        for at in range(1, self.seq):
            if faithful[at]:
                ids[at] = (int(ids[at - 1]) * 5 + 3) % words
        labels = ids.clone()
        labels[torch.rand(self.seq, generator=generator) < self.masked] = IGNORED
        mask = torch.ones(self.seq, dtype=torch.long)
        if self.ragged:
            length = int(torch.randint(max(2, self.seq // 4), self.seq + 1, (), generator=generator))
            mask[length:], labels[length:], ids[length:] = 0, IGNORED, 0
        return ids, labels, mask


def label_count(inputs: Any) -> float:
    """For a module with labels of its own that it does not shift: those that are taken into account; without labels, samples."""
    labels = inputs.get("labels") if isinstance(inputs, dict) else None
    if isinstance(labels, torch.Tensor) and not labels.is_floating_point():
        return float((labels != IGNORED).sum())
    first = inputs if isinstance(inputs, torch.Tensor) else next(iter(inputs.values() if isinstance(inputs, dict) else inputs))
    return float(first.shape[0])
