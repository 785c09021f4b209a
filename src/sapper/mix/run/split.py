"""A stage of a model: the user's own module, whose other layers are stood in for.

The module's own ``forward`` runs on every stage, so that whatever it computes from the batch alone (positions, masks) is there. Blocks
before the stage hand their input on without computing; weights of an end that the stage does not hold are one zero, seen at every
place (no memory); what comes from the stage before is put in before the stage's first block; after its last block the run stops.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from sapper.mix.run import tree
from sapper.mix.run.anatomy import Anatomy, Side
from sapper.mix.run.chain import Chain
from torch import nn


class _Stop(BaseException):
    """Ends a run of the module after the stage's last layer; not an Exception, so that no handler of the model's takes it."""


@dataclasses.dataclass
class _Run:
    """One forward pass."""

    received: Sequence[torch.Tensor]
    leaves: list[torch.Tensor | None] = dataclasses.field(default_factory=list)
    sent: list[torch.Tensor] = dataclasses.field(default_factory=list)
    standing: dict[int, tuple[torch.Tensor, torch.Tensor]] = dataclasses.field(default_factory=dict)
    """By identity, what the module made in the place of what was received, and could not be given its value."""
    results: dict[str, dict[tree.Path, torch.Tensor]] = dataclasses.field(default_factory=dict)
    """What modules leave behind in their results, as they returned it."""
    invented: list[torch.UntypedStorage] = dataclasses.field(default_factory=list)
    """Memory of stand-ins, which holds no values."""


class Ran(NamedTuple):
    """What came of one forward pass."""

    sent: list[torch.Tensor]
    """For the next stage; of the last stage the loss alone."""
    leaves: list[torch.Tensor | None]
    """Where the gradients of what was received will be; None: in that of an earlier one."""


class Split:
    """The layers ``first`` to ``last`` (excluded) of ``module``.

    Weights of the stage must be in place; see :func:`strip` for the others.

    Args:
        module: The whole module; hooks are added to it.
        anatomy: Of the module.
        first: First layer.
        last: One past the last layer.
        device: Where it computes.
    """

    def __init__(self, module: nn.Module, anatomy: Anatomy, *, first: int, last: int, device: torch.device) -> None:
        self._anatomy, self._device = anatomy, device
        self.first, self.last = first, last
        self._run: _Run | None = None
        blocks = anatomy.chain.blocks(module)
        self._modules = dict(module.named_modules())
        for index, block in enumerate(blocks):
            if index + 1 < first:
                self._stand_in(index, block)
        if 1 <= first <= len(blocks):
            blocks[first - 1].register_forward_pre_hook(self._put_in, with_kwargs=True)
            for block in blocks[first:last]:
                block.register_forward_pre_hook(self._put_in_again, with_kwargs=True)
        if self.is_last:
            return
        if last <= len(blocks):
            blocks[last - 1].register_forward_pre_hook(self._stop_before, with_kwargs=True)
        else:
            blocks[-1].register_forward_hook(self._stop_after)
        for name in {side.module for side in anatomy.sides if first <= side.layer < last and side.attribute is None}:
            paths = [side.path for side in anatomy.sides if side.module == name and side.attribute is None]
            self._modules[name].register_forward_hook(self._noted(name, paths))

    @property
    def is_first(self) -> bool:
        """Whether it receives nothing."""
        return self.first == 0

    @property
    def is_last(self) -> bool:
        """Whether it ends with the loss."""
        return self.last == self._anatomy.layers + 2

    def run(self, received: Sequence[torch.Tensor], *, loss: Callable[[], torch.Tensor]) -> Ran:
        """One forward pass.

        Args:
            received: What the stage before sent; empty for the first.
            loss: Calls the module and takes the loss of what it returns.
        """
        self._run = now = _Run(received, [_leaf(one) for one in received])
        try:
            if self.is_last:
                return Ran([loss()], now.leaves)
            with contextlib.suppress(_Stop):
                loss()
            return Ran(now.sent, now.leaves)
        finally:
            self._run = None

    @property
    def _now(self) -> _Run:
        assert self._run is not None, "the module of a stage runs through Split.run"
        return self._run

    def _arrived(self) -> tuple[dict[tree.Path, torch.Tensor], dict[Side, torch.Tensor]]:
        """What was received, by place."""
        paths, sides = self._anatomy.carried[self.first], self._anatomy.sides_before(self.first)
        leaves = self._now.leaves
        assert len(leaves) == len(paths) + len(sides)
        return dict(zip(paths, leaves, strict=False)), dict(zip(sides, leaves[len(paths) :], strict=True))

    def _put_in(self, _: nn.Module, args: Any, kwargs: Any) -> Any:
        """Make the first block's arguments what was received, in place: the model may use the same tensors once more."""
        now = self._now
        seen: dict[int, torch.Tensor] = {}
        found: dict[tree.Path, torch.Tensor] = {}
        for index, path in enumerate(self._anatomy.carried[self.first]):
            target, leaf = tree.find((args, kwargs), path), now.leaves[index]
            assert leaf is not None
            if id(target) in seen:
                # one tensor at two places has one gradient, which counts once
                now.leaves[index], found[path] = None, seen[id(target)]
                continue
            found[path] = _filled(target, leaf)
            if found[path] is target:
                seen[id(target)] = target
            elif isinstance(target, torch.Tensor):
                now.standing[id(target)] = target, leaf
        return tree.replaced((args, kwargs), dict(found))

    def _put_in_again(self, _: nn.Module, args: Any, kwargs: Any) -> Any:
        """The same for what the module hands to a later block once more."""
        standing = self._now.standing
        found = {path: _writable(standing[id(one)][1]) for path, one in tree.tensors((args, kwargs)) if id(one) in standing}
        return tree.replaced((args, kwargs), dict(found)) if found else None

    def _stop_before(self, _: nn.Module, args: Any, kwargs: Any) -> None:
        self._stop((args, kwargs))

    def _stop_after(self, _: nn.Module, args: Any, result: Any) -> None:
        self._stop(result)

    def _stop(self, handed: Any) -> None:
        now = self._now
        before = self._arrived()[1] if not self.is_first else {}
        now.sent = [tree.at(handed, path) for path in self._anatomy.carried[self.last]]
        now.sent += [before[side] if side in before else self._left_behind(side) for side in self._anatomy.sides_before(self.last)]
        raise _Stop

    def _noted(self, name: str, paths: Sequence[tree.Path]) -> Callable[..., None]:
        def note(_: nn.Module, args: Any, result: Any) -> None:
            if self._run is not None:  # a recomputed block has been noted in its forward pass
                # copies: what the model writes to them, it writes on the next stage once more
                self._run.results[name] = {path: tree.at(result, path).clone() for path in paths}

        return note

    def _left_behind(self, side: Side) -> torch.Tensor:
        if side.attribute is not None:
            return tree.at(getattr(self._modules[side.module], side.attribute), side.path)
        return self._now.results[side.module][side.path]

    def _stand_in(self, index: int, block: nn.Module) -> None:
        """Let a block hand on its input in the form of its result, and leave behind what it left behind elsewhere."""
        anatomy = self._anatomy
        like, shape = anatomy.results[index], anatomy.inputs[index]
        sides = [side for side in anatomy.sides if side.layer == index + 1]
        own = [side for side in sides if side.module == anatomy.chain.names[index] and side.attribute is None]
        results = [place for side in sides if side.attribute is None for place in (*side.inner, side)]
        heard = {place.module: place for place in sorted(results, key=lambda place: place.at) if place.module != anatomy.chain.names[index]}
        for place in heard.values():
            self._modules[place.module].forward = self._echo(place)
        closes = index + 1 == anatomy.layers and self.first == anatomy.layers + 1

        def forward(*args: Any, **kwargs: Any) -> Any:
            for name in heard:
                self._modules[name]()
            for side in sides:
                if side.attribute is not None:
                    setattr(self._modules[side.module], side.attribute, self._echo(side)())
            given = next((one for _, one in tree.tensors((args, kwargs))), None)
            # a new tensor each, as the block itself would return
            result = tree.mapped(
                like, lambda one: self._like(given) if given is not None and tuple(one.shape) == shape else self._nothing(one)
            )
            result = tree.replaced(result, {path: tree.at((args, kwargs), given) for path, given in anatomy.passed[index].items()})
            if own:
                arrived = self._arrived()[1]
                result = tree.replaced(result, {side.path: _writable(arrived[side]) for side in own})
            if not closes:
                return result
            return tree.replaced(result, {path: _filled(tree.at(result, path), one) for path, one in self._arrived()[0].items()})

        block.forward = forward

    def _echo(self, side: Side) -> Callable[..., Any]:
        """Gives what ``side`` was on the stage that made it."""

        def forward(*args: Any, **kwargs: Any) -> Any:
            same = {
                place.path: _writable(one)
                for other, one in self._arrived()[1].items()
                for place in (other, *other.inner)
                if (place.module, place.attribute) == (side.module, side.attribute)
            }  # fmt: skip
            return tree.replaced(tree.mapped(side.like, self._nothing), dict(same))

        return forward

    def _like(self, given: torch.Tensor) -> torch.Tensor:
        """A tensor of the kind whose values are never used. The model may write to it: only of a stand-in it may share the memory."""
        invented = self._now.invented
        one = given.data
        if all(one.untyped_storage()._cdata != memory._cdata for memory in invented):
            one = torch.empty_like(one, memory_format=torch.contiguous_format).zero_()
            invented.append(one.untyped_storage())
        return one

    def _nothing(self, like: torch.Tensor) -> torch.Tensor:
        """A tensor of the shape whose values are never used. By ``data`` it is no view, so that what arrives can take its place."""
        return torch.zeros((), dtype=like.dtype, device=self._device).expand(tuple(like.shape)).data


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    """Where the gradient of what was received appears, if it can have one."""
    return tensor.detach().requires_grad_(_can_learn(tensor))


def _can_learn(tensor: torch.Tensor) -> bool:
    return bool(tensor.is_floating_point() or tensor.is_complex())


def _writable(leaf: torch.Tensor) -> torch.Tensor:
    """The same for a block that may write to it, which a leaf of autograd does not allow."""
    with torch.enable_grad():
        return leaf.clone()


def _filled(target: Any, leaf: torch.Tensor) -> torch.Tensor:
    """The value of ``leaf`` for a block that may write to it: in ``target`` where it can be, so that the model sees what is written."""
    if not _is_free(target):
        return _writable(leaf)
    target.detach_()  # the stage may hold a tied embedding
    target.data = torch.empty_like(leaf, dtype=target.dtype, requires_grad=False)
    with torch.enable_grad():
        target.copy_(leaf)
    return target


def _is_free(target: Any) -> bool:
    """Whether a tensor may be given another value: it is no weight, and no view of another tensor."""
    return isinstance(target, torch.Tensor) and not target._is_view() and not (target.is_leaf and target.requires_grad)


def strip(module: nn.Module, keep: frozenset[str], *, chain: Chain, device: torch.device, dtype: torch.dtype) -> None:
    """Take the weights that a stage does not hold: of blocks altogether, of the ends all but one zero seen at every place."""
    names = {id(one): name for name, one in module.named_parameters()}
    for owner_name, owner in module.named_modules():
        for attribute, one in list(owner._parameters.items()):
            if one is None or names[id(one)] in keep:
                continue
            if chain.layer_of(owner_name) is not None:
                empty = torch.empty(one.shape, dtype=one.dtype, device="meta")
            else:
                empty = torch.zeros((), dtype=dtype if one.is_floating_point() else one.dtype, device=device).expand(tuple(one.shape))
            owner._parameters[attribute] = nn.Parameter(empty, requires_grad=False)
