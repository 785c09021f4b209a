"""Contests: several values written to one place, of which PyTorch's documentation leaves open which one stays.

==================================== =====================================================================================
op                                   what PyTorch 2.13 documents where an index comes twice
==================================== =====================================================================================
``scatter`` without ``reduce``       "the behavior is non-deterministic (one of the values from src will be picked arbitrarily)"
``index_copy``                       "The result is nondeterministic since it depends on which copy occurs last."
``index_put``, ``put``, no           "If accumulate is False, the behavior is undefined if indices contain duplicate elements."
``accumulate``
``max_unpool1d``, ``2d``, ``3d``     "This operation may behave nondeterministically when the input indices has repeat values."
==================================== =====================================================================================

(``Tensor.scatter_``, ``Tensor.index_copy_``, ``Tensor.index_put_``, ``Tensor.put_``, ``nn.MaxUnpool2d``.) What is asked even where it
says "undefined": each place holds one of the values that were written to it. ``masked_scatter`` is no contest: its documentation gives
the order, and a mask names no place twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

SHAPED = frozenset({
    "_reshape_alias", "_to_copy", "_unsafe_view", "alias", "clone", "contiguous", "detach", "flatten", "reshape", "squeeze", "unsqueeze",
    "view",
})  # fmt: skip
"""Ops that hand all values on in their order, perhaps in another shape."""


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a stack kept in places for which several values competed."""

    got: torch.Tensor
    taken: torch.Tensor
    """Where these places are."""
    other: int
    """Of them, where it chose otherwise than the truth."""

    @property
    def places(self) -> int:
        """How many there are."""
        return int(self.taken.sum())

    def made_in(self, run: torch.Tensor) -> torch.Tensor:
        """Another run's output if it had chosen alike."""
        return torch.where(self.taken, self.got.to(run.dtype), run)


@dataclass(frozen=True, kw_only=True)
class Contest:
    """All writes of an op: which value goes to which place."""

    places: torch.Tensor
    """Of each written value, its place in the flattened output."""
    values: torch.Tensor
    """In fp64 (complex128), or the exact dtype of what is no float."""

    def choices(self, got: torch.Tensor, truth: torch.Tensor) -> Choices | None:
        """A stack's choices; None where there was none to be made, or where a place holds none of its candidates."""
        writes = torch.zeros(truth.numel(), dtype=torch.int64).index_add_(0, self.places, torch.ones_like(self.places))
        several = writes > 1
        held, given = got.reshape(-1)[self.places], self.values.to(got.dtype)
        legal = torch.zeros_like(several)
        legal[self.places[(held == given) | (held.isnan() & given.isnan())]] = True
        if not bool(several.any()) or bool((several & ~legal).any()):
            return None
        apart = (got != truth.to(got.dtype)).reshape(-1) & ~(got.isnan() & truth.isnan()).reshape(-1)
        return Choices(got=got, taken=several.view(truth.shape), other=int((several & apart).sum()))

    def overwritten(self, later: Contest) -> Contest:
        """What is left of it where others were written afterwards."""
        kept = ~torch.isin(self.places, later.places)
        return Contest(places=torch.cat([self.places[kept], later.places]), values=torch.cat([self.values[kept], later.values]))


def contest_of(name: str, given: Mapping[str, Any]) -> Contest | None:
    """The writes of an op; None where it is none of these ops.

    Args:
        name: Without namespace, overload and the mark of the in-place variant.
        given: Its arguments by the names of its schema; tensors in fp64 where they are floats.
    """
    rule = _RULES.get(name)
    return None if rule is None else rule(given)


def _order(tensor: torch.Tensor) -> torch.Tensor:
    """Each element's own place."""
    return torch.arange(tensor.numel()).view(tensor.shape)


def _writes(places: torch.Tensor, values: torch.Tensor) -> Contest:
    return Contest(places=places.reshape(-1), values=values.reshape(-1))


def _scatter(given: Mapping[str, Any]) -> Contest | None:
    source, index = given.get("src"), given["index"]
    if not isinstance(source, torch.Tensor) or given.get("reduce") is not None or not index.dim():
        return None  # one value for all, or sums
    used = source[tuple(slice(size) for size in index.shape)]
    return _writes(_order(given["self"]).gather(given["dim"], index), used)


def _index_copy(given: Mapping[str, Any]) -> Contest | None:
    target, source = given["self"], given["source"]
    if not target.dim():
        return None
    return _writes(_order(target).index_select(given["dim"], given["index"].reshape(-1)), source)


def _index_put(given: Mapping[str, Any]) -> Contest | None:
    if given.get("accumulate"):
        return None
    places = _order(given["self"])[tuple(slice(None) if one is None else one for one in given["indices"])]
    return _writes(places, given["values"].expand(places.shape))


def _put(given: Mapping[str, Any]) -> Contest | None:
    return None if given.get("accumulate") else _writes(_order(given["self"]).take(given["index"]), given["source"])


def _unpooled(dims: int) -> Callable[[Mapping[str, Any]], Contest]:
    """Each plane of an image is written to by itself; an index counts the places of a plane."""

    def rule(given: Mapping[str, Any]) -> Contest:
        index = given["indices"]
        planes = index.reshape(math.prod(index.shape[:-dims]), math.prod(index.shape[-dims:]))
        return _writes(torch.arange(len(planes))[:, None] * math.prod(given["output_size"]) + planes, given["self"])

    return rule


_RULES: dict[str, Callable[[Mapping[str, Any]], Contest | None]] = {
    "scatter": _scatter, "index_copy": _index_copy, "index_put": _index_put, "_index_put_impl": _index_put,
    "_unsafe_index_put": _index_put, "put": _put, "max_unpool2d": _unpooled(2), "max_unpool3d": _unpooled(3),
}  # fmt: skip
