"""Making: how the outputs of a reference came about, as far as that says what a correct stack may do otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from sapper.backends.trees import tensors_in
from sapper.prove import traits
from sapper.prove.contests import SHAPED, Contest, contest_of
from sapper.prove.selections import Selection
from sapper.prove.signature import signature
from sapper.prove.stepwise import has_steps


@dataclass(kw_only=True)
class Making:
    """The ops that ran, and what their documentation leaves open of the outputs."""

    ops: list[str] = field(default_factory=list)
    kinds: list[traits.Kind] = field(default_factory=list)
    """Of each op."""
    terms: int = 1
    """Longest sum inside one op."""
    selections: dict[int, Selection] = field(default_factory=dict)
    """By ``id`` of the output in the truth: what its positions count."""
    contests: dict[int, Contest] = field(default_factory=dict)
    """By ``id`` of the output in the truth: values written to the same places."""
    unordered: dict[int, Selection] = field(default_factory=dict)
    """By ``id`` of the output in the truth: the positions along whose dimension its values may come in any order."""
    undefined: dict[int, torch.Tensor] = field(default_factory=dict)
    """By ``id`` of the output in the truth: where a number was converted that its integer dtype cannot hold."""
    roles: dict[int, traits.Role] = field(default_factory=dict)
    """By ``id`` of the output in the truth: what the op that made it returned it for."""
    stepped: dict[int, int] = field(default_factory=dict)
    """By ``id`` of the output in the truth: the number among :attr:`ops` of the one that made it, where correct stacks round between
    the steps of that op."""
    held: list[torch.Tensor] = field(default_factory=list)
    """Keeps these ids from being given to others."""

    @property
    def exact(self) -> bool:
        """Whether no value was computed, only moved or chosen."""
        return all(kind == "exact" for kind in self.kinds)

    @property
    def simple(self) -> bool:
        """Whether a correct stack rounds only once, when it writes the output."""
        return "other" not in self.kinds and sum(kind != "exact" for kind in self.kinds) <= 1

    @property
    def _by_output(self) -> tuple[dict[int, Any], ...]:
        return self.selections, self.contests, self.unordered, self.undefined, self.roles, self.stepped

    def note(self, func: Any, *, args: Sequence[Any], kwargs: dict[str, Any], outputs: Any) -> None:
        """Take account of one op that ran, its arguments and outputs in fp64."""
        name, given = func.name(), traits.bound(func, args, kwargs)
        tensors = tensors_in(list(given.values()))
        self.ops.append(name)
        self.kinds.append(traits.kind_of(name, given, tensors))
        made = tensors_in(outputs)
        self.terms = max(self.terms, traits.terms(func, args=args, kwargs=kwargs, outputs=made))
        before = self.contests.get(id(tensors[0])) if tensors else None
        self._forget(_written(func, given))
        self._open(traits.plain_name(name), given, made, before=before)
        self._mark(func, given, made)
        positions = traits.returns_positions(name)
        if not positions:
            self._convert(tensors, made)
        for at in positions:
            if at < len(made) and made[at].dtype == torch.int64 and isinstance(args[0], torch.Tensor):
                self._select(made, at, name=traits.plain_name(name), given=given)

    def _forget(self, written: Sequence[torch.Tensor]) -> None:
        """Nothing is open any more of what an op writes into, whichever view of it was noted."""
        stores = {_store(one) for one in written} if self.held else set()
        for one in self.held if stores else ():
            if _store(one) in stores:
                for noted in self._by_output:
                    noted.pop(id(one), None)

    def _open(self, name: str, given: dict[str, Any], made: list[torch.Tensor], *, before: Contest | None) -> None:
        """What several writes to one place leave open (``before`` of the op's first tensor), and what becomes of it."""
        if not made:
            return
        contest, source = contest_of(name, given), next((one for one in given.values() if isinstance(one, torch.Tensor)), None)
        if contest is not None:
            self.held.append(made[0])
            self.contests[id(made[0])] = contest if before is None else before.overwritten(contest)
        elif before is not None and name in SHAPED and made[0].numel() == source.numel():  # type: ignore[union-attr]
            self.held.append(made[0])
            self.contests[id(made[0])] = before
        if name == "detach":
            self._follow(made[0], source)

    def _follow(self, detached: torch.Tensor, source: torch.Tensor | None) -> None:
        """What is detached is still what it was: so the values of a computation with gradients come out."""
        for noted in self._by_output:
            if id(source) in noted:
                self.held.append(detached)
                noted[id(detached)] = noted[id(source)]

    def _mark(self, func: Any, given: dict[str, Any], made: list[torch.Tensor]) -> None:
        """What each of the values that an op returned is for, and whether it came in steps."""
        for at, one in enumerate(made[: len(signature(func).returns_written)]):  # what a call changed comes after them
            role = traits.role(func.name(), at)
            if role is not None:
                self.held.append(one)
                self.roles[id(one)] = role
        if made and has_steps(func.name(), given):
            self.held.append(made[0])
            self.stepped[id(made[0])] = len(self.ops) - 1

    def _convert(self, tensors: list[torch.Tensor], made: list[torch.Tensor]) -> None:
        """What a float beyond an integer's range becomes is left open by C (ISO/IEC 9899:2018, 6.3.1.4), and so by PyTorch."""
        if len(tensors) != 1 or len(made) != 1 or tensors[0].shape != made[0].shape or not tensors[0].is_floating_point():
            return
        if made[0].dtype in _INTEGERS:
            limits, whole = torch.iinfo(made[0].dtype), tensors[0].trunc()
            self.held.append(made[0])
            self.undefined[id(made[0])] = ~((whole >= limits.min) & (whole < float(limits.max) + 1.0))  # of int64 the float is 2**63

    def _select(self, made: list[torch.Tensor], at: int, *, name: str, given: dict[str, Any]) -> None:
        values = next(one for one in given.values() if isinstance(one, torch.Tensor))
        dim = _searched(name, given, values)
        self.held.append(made[at])
        any_order = given.get("sorted") is False and bool(values.dim())
        selection = self.selections[id(made[at])] = Selection(values=values, dim=dim, any_order=any_order)
        if any_order:
            self.held.append(made[0])
            self.unordered[id(made[0])] = selection


def _written(func: Any, given: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors that an op writes into."""
    return tensors_in([given.get(name) for name in signature(func).written])


def _store(tensor: torch.Tensor) -> int:
    """A number for where the values lie, unique while they do; 0 of a layout that shares with none."""
    return tensor.untyped_storage()._cdata if tensor.layout is torch.strided else 0


_INTEGERS = frozenset({torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64})


def _searched(name: str, given: dict[str, Any], values: torch.Tensor) -> int | None:
    """The dimension that an op which returns positions runs along; below zero: so many last dimensions, flattened; None: all."""
    if name in traits.WINDOWED:
        return -traits.WINDOWED[name]
    if "dim" not in given:
        return values.dim() - 1 if name in _LAST else None
    return None if given["dim"] is None else int(given["dim"]) % max(values.dim(), 1)


_LAST = frozenset({"argsort", "kthvalue", "median", "mode", "nanmedian", "sort", "topk"})
"""Ops that run along the last dimension where none is given."""
