"""What a model is made of along its chain, learned by running it once on tensors without data.

The run is cut before each block: what a block receives that depends on weights becomes a leaf of autograd, so that the graph of
what each layer hands on ends at what it received and at the weights that it used. From that follow which layers use which weights
(an embedding tied to the head is used by both ends), which tensors must travel between stages, and whether the model can be cut.
Frozen weights count as any others meanwhile. What autograd does not follow (masks and indices that a block makes, what is detached)
is followed by :mod:`sapper.mix.run.origins`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from sapper.errors import BadPlan
from sapper.mix.run import tree
from sapper.mix.run.chain import Chain
from sapper.mix.run.origins import Late, Lists, Origins
from sapper.mix.run.tree import Path
from torch import nn


@dataclass(frozen=True)
class Side:
    """Something that a block leaves behind beside its result and that is used later, such as a router's logits for a balance loss."""

    layer: int
    module: str
    """Full name of the module in the block, or of the block itself."""
    attribute: str | None
    """The attribute in which it is kept; None: it is in the module's own result (which the model listens to)."""
    path: Path
    """Where in the result or attribute."""
    like: Any = field(compare=False, repr=False, default=None)
    """The whole result, of tensors without data."""
    at: int = field(compare=False, repr=False, default=0)
    """Place in the order in which modules gave their results."""
    inner: tuple[Side, ...] = field(compare=False, repr=False, default=())
    """Modules inside that one whose results hold the same tensor: the model may listen to any of them."""


@dataclass(frozen=True)
class Anatomy:
    """Layers are numbered as in a plan: 0, the blocks 1 to N, and N + 1."""

    chain: Chain
    used: dict[str, frozenset[int]]
    """Parameter -> layers that use it; tied ones bear the name under which ``named_parameters`` gives them."""
    carried: dict[int, tuple[Path, ...]]
    """Layer -> paths of what it receives: in its arguments ``(args, kwargs)``, for N + 1 in the last block's result."""
    results: tuple[Any, ...]
    """What each block returns, of tensors without data."""
    inputs: tuple[tuple[int, ...], ...]
    """Shape of the first tensor that each block receives."""
    passed: tuple[Mapping[Path, Path], ...]
    """Of each block, where in its result it returns what it got, written to or not: path -> path in its arguments ``(args, kwargs)``."""
    sides: tuple[Side, ...]

    @property
    def layers(self) -> int:
        """Blocks."""
        return len(self.chain.names)

    def sides_before(self, layer: int) -> tuple[Side, ...]:
        """What layers before ``layer`` left behind; it travels along."""
        return tuple(side for side in self.sides if side.layer < layer)

    def owned(self, first: int, last: int) -> frozenset[str]:
        """Parameters that a stage of the layers from ``first`` to ``last`` (excluded) uses."""
        return frozenset(name for name, layers in self.used.items() if any(first <= layer < last for layer in layers))


class Uncuttable(BadPlan):
    """The model cannot be cut along its chain; one stage that holds it whole still works."""


def anatomy(module: nn.Module, chain: Chain, *, loss: Callable[[], torch.Tensor], where: str) -> Anatomy:
    """Run ``loss`` once, which calls ``module`` whose tensors may be without data.

    Raises:
        Uncuttable: Blocks that do not run once each in their order, or a later part that uses what an earlier one made without
            being handed it.
    """
    probe = _Probe(module, chain, where)
    with probe.watching():
        value = loss()
    return probe.conclude(value)


class _Probe:
    def __init__(self, module: nn.Module, chain: Chain, where: str) -> None:
        self._module, self._chain, self._where = module, chain, where
        self._blocks = chain.blocks(module)
        self._starts: list[int] = []
        """Number that autograd gives to the first node of each layer."""
        self._ends: list[int] = []
        """The same of what follows each block, before the next one."""
        self._stood_for: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        """What could not be cut in place, by identity, and what was handed on instead: the model may hand on the same once more."""
        self._origins = Origins(module, layers=len(self._blocks))
        self._buffers = {id(one) for one in module.buffers()}
        self._copies: list[tuple[torch.Tensor, torch.Tensor, int]] = []
        """What the running block got a copy of: the model's own, the copy, and how often that was written to."""
        self._kept: dict[int, tuple[torch.Tensor, int]] = {}
        """By identity, what blocks kept in attributes, and how often it was written to by then."""
        self._passed: list[Mapping[Path, Path]] = []
        self._leaves: list[dict[int, torch.Tensor]] = [{}]
        """Of each layer, what it receives, by identity."""
        self._sent: list[list[Any]] = []
        """Nodes of what each layer hands on."""
        self._carried: dict[int, tuple[Path, ...]] = {}
        self._results: list[Any] = []
        self._inputs: list[tuple[int, ...]] = []
        self._produced: dict[Any, list[tuple[int, str, Path, Any]]] = {}
        """Node -> the modules of a block in whose results it is, the innermost first."""
        self._given: dict[str, int] = {}
        """Module of a block -> its place in the order in which they gave their results."""

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        handles, frozen = [], [one for one in self._module.parameters() if one.is_floating_point() and not one.requires_grad]
        for one in frozen:
            one.requires_grad_()
        for index, block in enumerate(self._blocks):
            handles.append(block.register_forward_pre_hook(self._before(index), with_kwargs=True))
            for name, inner in block.named_modules(prefix=self._chain.names[index]):
                if inner is not block:
                    handles.append(inner.register_forward_hook(self._inside(index + 1, name)))
            handles.append(block.register_forward_hook(self._after(index), with_kwargs=True))
        try:
            with self._origins, Lists(self._origins):
                yield
        finally:
            for handle in handles:
                handle.remove()
            for one in frozen:
                one.requires_grad_(False)

    def _fresh(self, value: Any, layer: int) -> Any:
        """The cut: what the layers before made becomes leaves, where it can be in place, since the model may use it once more."""
        with self._origins.resting():
            found = {
                path: self._last(one) for path, one in tree.tensors(value) if one.requires_grad or self._origins.layer_of(one) is not None
            }
            self._carried[layer] = tuple(found)
            self._sent.append([_node(one) for one in found.values() if one.requires_grad])
            once = {id(one): one for one in found.values()}
            if not self._buffers.isdisjoint(once):  # what is written to it stays there, and with one process
                self._origins.reads.append(Late(layer, "buffer", None))
            cut = {key: _leaf(one, known=key in self._leaves[-1]) for key, one in once.items()}
            free = {key for key, leaf in cut.items() if leaf is once[key] or _is_free(once[key])}
            self._stood_for |= {key: (once[key], leaf) for key, leaf in cut.items() if key not in free}
            self._leaves.append({id(leaf): leaf for leaf in cut.values()})
            handed = {key: once[key] if key in free else leaf for key, leaf in cut.items()}
            self._origins.enter(layer, [(one, handed[id(one)]) for one in found.values()])
            self._starts.append(_clock())
            given = {key: _refilled(once[key], leaf) if key in free else _copy(leaf) for key, leaf in cut.items()}
            self._origins.made(list(given.values()), layer)
            self._copies = [(once[key], one, one._version) for key, one in given.items() if key not in free]
            return tree.replaced(value, {path: given[id(one)] for path, one in found.items()})

    def _last(self, tensor: torch.Tensor) -> torch.Tensor:
        """What the layer before was handed in the place of ``tensor``, if it was."""
        _, leaf = self._stood_for.get(id(tensor), (None, tensor))
        return leaf if id(leaf) in self._leaves[-1] else tensor

    def _before(self, index: int) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> Any:
            if len(self._inputs) != index:
                raise Uncuttable("SP-MIX-101", where=self._where, block=self._chain.names[index], due=self._due())
            self._inputs.append(next((tuple(one.shape) for _, one in tree.tensors((args, kwargs))), ()))
            self._origins.in_block = True
            return self._fresh((args, kwargs), index + 1)

        return hook

    def _after(self, index: int) -> Any:
        def hook(_: nn.Module, args: Any, kwargs: Any, result: Any) -> Any:
            self._origins.in_block = False
            with self._origins.resting():
                for own_of_model, copy, version in self._copies:
                    if copy._version > version:
                        self._origins.spoil(own_of_model, index + 1)
                self._kept |= {id(one): (one, one._version) for *_, one in self._attributes_of(index)}
                self._results.append(tree.mapped(result, torch.Tensor.detach))
                copies = {id(copy) for _, copy, _ in self._copies}
                own = {id(one): path for path, one in tree.tensors((args, kwargs)) if id(one) not in copies}
                returned = list(tree.tensors(result))
                self._passed.append({path: own[id(one)] for path, one in returned if id(one) in own})
                unmade = {key for key, path in own.items() if self._origins.layer_of(tree.at((args, kwargs), path)) is None}
                self._origins.made([one for _, one in returned if id(one) not in unmade], index + 1)
                self._ends.append(_clock())
            self._inside(index + 1, self._chain.names[index])(_, args, result)
            return self._fresh(result, index + 2) if index + 1 == len(self._blocks) else None

        return hook

    def _inside(self, layer: int, name: str) -> Any:
        def hook(_: nn.Module, args: Any, result: Any) -> None:
            self._given[name] = len(self._given)
            for path, one in tree.tensors(result):
                if one.grad_fn is not None:
                    self._produced.setdefault(one.grad_fn, []).append((layer, name, path, result))

        return hook

    def _due(self) -> str:
        return self._chain.names[len(self._inputs)] if len(self._inputs) < len(self._blocks) else "-"

    def conclude(self, value: torch.Tensor) -> Anatomy:
        """Walk the graphs."""
        if len(self._results) != len(self._blocks):
            raise Uncuttable("SP-MIX-101", where=self._where, block="-", due=self._due())
        names = {id(one): name for name, one in self._module.named_parameters()}
        kept = self._attributes()
        used: dict[str, set[int]] = {name: set() for name in names.values()}
        sides: dict[tuple[str, str | None, Path], Side] = {}
        for name, layers in self._origins.touched.items():
            used[name] |= layers
        pending = list(enumerate([*self._sent, [_node(value)]]))
        for late in (*self._origins.reads, *self._origins.late(value)):
            if late.node is None:
                raise Uncuttable("SP-MIX-102", where=self._where, layer=late.layer, op=late.op)
            pending.append((late.layer, [late.node]))
        while pending:
            layer, nodes = pending.pop()
            for node in _reached(nodes, stop=functools.partial(self._is_side, layer=layer, kept=kept)):
                side = self._side(node, layer, kept)
                variable = getattr(node, "variable", None)
                if side is not None:
                    sides[side.module, side.attribute, side.path] = side
                    pending.append((side.layer, [node]))
                elif variable is not None and id(variable) in names:
                    used[names[id(variable)]].add(layer)
                elif id(variable) not in self._leaves[layer] and (variable is not None or not self._is_there(node, layer)):
                    raise Uncuttable("SP-MIX-102", where=self._where, layer=layer, op=node.name())
        return Anatomy(
            chain=self._chain, used=self._placed(used), carried=self._carried, results=tuple(self._results), inputs=tuple(self._inputs),
            passed=tuple(self._passed), sides=tuple(sorted(sides.values(), key=lambda one: (one.layer, one.module, str(one.path)))),
        )  # fmt: skip

    def _is_there(self, node: Any, layer: int) -> bool:
        """Whether a stage that begins with ``layer`` computes what ``node`` made: it made it in that layer, or between two blocks before
        it, as the module's own ``forward`` runs on every stage."""
        at, starts = node._sequence_nr(), [0, *self._starts]
        return at >= starts[layer] or any(end <= at < start for end, start in zip(self._ends, self._starts[1:], strict=False))

    def _is_side(self, node: Any, *, layer: int, kept: dict[Any, tuple[int, str, str, Path, Any]]) -> bool:
        return self._side(node, layer, kept) is not None

    def _side(self, node: Any, layer: int, kept: dict[Any, tuple[int, str, str, Path, Any]]) -> Side | None:
        """The thing left behind that this node made, if it lies in a layer before the one that uses it."""
        if node in kept:
            made, module, attribute, path, like = kept[node]
            return Side(made, module, attribute, path, like) if made < layer else None
        if node in self._produced:
            made = self._produced[node][-1][0]
            if made >= layer:
                return None
            *inner, outer = (
                Side(made, module, None, path, tree.mapped(like, torch.Tensor.detach), self._given[module])
                for block, module, path, like in self._produced[node]
                if block == made
            )
            return replace(outer, inner=tuple(inner))
        return None

    def _attributes(self) -> dict[Any, tuple[int, str, str, Path, Any]]:
        """Nodes of tensors that blocks keep in attributes."""
        found = {}
        for index in range(len(self._blocks)):
            for name, attribute, path, value, one in self._attributes_of(index):
                _, version = self._kept.get(id(one), (one, one._version))
                if one.grad_fn is not None and one._version == version:  # else every stage would write to it once more
                    found[one.grad_fn] = (index + 1, name, attribute, path, value)
        return found

    def _attributes_of(self, index: int) -> Iterator[tuple[str, str, Path, Any, torch.Tensor]]:
        """Tensors that a block keeps: module, attribute, where in it, all of it, and the tensor."""
        for name, inner in self._blocks[index].named_modules(prefix=self._chain.names[index]):
            for attribute, value in vars(inner).items():
                if not attribute.startswith("_"):
                    for path, one in tree.tensors(value):
                        yield name, attribute, path, value, one

    def _placed(self, used: dict[str, set[int]]) -> dict[str, frozenset[int]]:
        """Weights that no gradient reaches belong to their block, or to every layer where they are in no block."""
        everywhere = frozenset(range(len(self._blocks) + 2))
        found = {}
        for name, layers in used.items():
            own = self._chain.layer_of(name)
            found[name] = frozenset(layers) or (everywhere if own is None else frozenset({own}))
        return found


def _node(tensor: torch.Tensor) -> Any:
    """The node of autograd that made a tensor; of a leaf, the one that collects its gradient."""
    return tensor.grad_fn if tensor.grad_fn is not None else torch.autograd.graph.get_gradient_edge(tensor).node


def _leaf(tensor: torch.Tensor, *, known: bool) -> torch.Tensor:
    """The tensor without its past, or what stands in for it: a leaf of autograd where autograd follows the tensor."""
    if known and not _is_free(tensor):
        return tensor
    if not tensor.requires_grad:
        return tensor if _is_free(tensor) else tensor.detach()
    leaf = tensor.detach()
    return (leaf.clone() if _is_free(tensor) else leaf).requires_grad_()


def _is_free(tensor: torch.Tensor) -> bool:
    """Whether it can be cut in place, so that the model sees what a block writes to it: it is no weight and no view."""
    return not tensor._is_view() and not (tensor.is_leaf and tensor.requires_grad)


def _refilled(tensor: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """The tensor itself, made of ``leaf`` alone."""
    if leaf is tensor:
        return tensor
    tensor.detach_()
    with torch.enable_grad():
        return tensor.copy_(leaf)


def _copy(leaf: torch.Tensor) -> torch.Tensor:
    """A block may write to it, which a leaf of autograd does not allow."""
    with torch.enable_grad():
        return leaf.clone()


def _reached(nodes: Sequence[Any], *, stop: Callable[[Any], bool]) -> Iterator[Any]:
    """Nodes of autograd behind ``nodes``; not beyond those at which to stop, which are given too."""
    stack, seen = list(nodes), set(nodes)
    while stack:
        node = stack.pop()
        yield node
        if not stop(node):
            further = {following for following, _ in node.next_functions if following is not None} - seen
            seen |= further
            stack += further


def _clock() -> int:
    """Number that autograd gives to its next node."""
    with torch.enable_grad():  # frozen blocks often run without
        tick = torch.ones((), requires_grad=True) * 1
    assert tick.grad_fn is not None
    return int(tick.grad_fn._sequence_nr())
