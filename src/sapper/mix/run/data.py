"""Samples by their number, so that any cut of a batch sees the same ones: sample n of step t is number t * batch + n, counted from 0."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch.utils.data import DataLoader, default_collate

import torch
from sapper.errors import BadValue
from sapper.mix.run import tree

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
        return label_count(inputs, shifted=True)

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


@dataclass(frozen=True)
class Items:
    """A map-style dataset, gone through in another order each epoch; the last samples of an epoch and the first of the next may meet
    in one batch, so that each is seen equally often."""

    dataset: Any
    """Has ``__getitem__`` and ``__len__``."""
    collate: Callable[[list[Any]], Any] = default_collate
    shifted: bool = False
    """Whether the model shifts its labels by one."""
    seed: int | None = 0
    """Of the order; None: as they are, again and again."""

    def batch(self, numbers: Sequence[int]) -> Any:
        """See :class:`Data`."""
        return self.collate([self.dataset[self._place(number)] for number in numbers])

    def weight(self, inputs: Any) -> float:
        """See :class:`Data`."""
        return label_count(inputs, shifted=self.shifted)

    def _place(self, number: int) -> int:
        epoch, at = divmod(number, len(self.dataset))
        return at if self.seed is None else _order(self.seed, epoch, len(self.dataset))[at]


@dataclass(frozen=True)
class Rows:
    """The samples of one batch of inputs, again and again: what a builder gives, where there is no other data."""

    inputs: Any
    shifted: bool = False

    def batch(self, numbers: Sequence[int]) -> Any:
        """See :class:`Data`."""
        return tree.mapped(self.inputs, lambda one: one[[number % one.shape[0] for number in numbers]] if one.dim() else one)

    def weight(self, inputs: Any) -> float:
        """See :class:`Data`."""
        return label_count(inputs, shifted=self.shifted)


def data_of(found: Any, *, shifted: bool, where: str, seed: int = 0) -> Data:
    """What a user brings, as samples by number: a ``DataLoader`` or a map-style dataset, or something that is :class:`Data` already.

    Of a ``DataLoader`` the dataset and the collation are used; size and order of batches are the job's.

    Args:
        found: The user's.
        shifted: Whether the model shifts its labels by one, as causal language models of Transformers do.
        where: Where it comes from, for the message.
        seed: Of the order.

    Raises:
        BadValue: It is none of these: a stream cannot be dealt out by number.
    """
    if hasattr(found, "batch") and hasattr(found, "weight"):
        return found  # type: ignore[no-any-return]
    dataset, collate = (found.dataset, found.collate_fn) if isinstance(found, DataLoader) else (found, default_collate)
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__") and len(dataset)):
        raise BadValue("SP-MIX-106", where=where, found=type(dataset).__name__)
    return Items(dataset, collate or default_collate, shifted=shifted, seed=seed)


def label_count(inputs: Any, *, shifted: bool = False) -> float:
    """Labels that the loss takes into account, or samples where there are no labels of whole numbers.

    ``shifted``: the model compares the label of a place with what it says at the place before, so that the first is never used.
    """
    labels = inputs.get("labels") if hasattr(inputs, "get") else None
    if isinstance(labels, torch.Tensor) and not labels.is_floating_point():
        used = labels[..., 1:] if shifted and labels.dim() > 1 else labels
        return float((used != IGNORED).sum())
    return float(next(one.shape[0] for _, one in tree.tensors(inputs) if one.dim()))


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed((seed << 32) + epoch)
    return tuple(torch.randperm(count, generator=generator).tolist())
