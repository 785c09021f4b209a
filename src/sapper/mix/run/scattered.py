"""ZeRO 2 and 3: gradients, and weights too, that a chip has only while it computes with them; between that their owners have them.

Members run unlike numbers of micro-batches in unlike orders, so that no collective of theirs would meet. But each knows from the plan
what every other does in a step, in which order: an owner sends each member the weights of a block just before it needs them, one
message ahead, and takes the gradients of each micro-batch as they come, adding them up in one fixed order (arXiv:1910.02054, sections
5.2 and 5.3). Weights of blocks are there around their forward and backward pass alone, those of the ends for a whole pass.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from sapper.mix.run import tree
from sapper.mix.run.comm import Channel, Pending
from sapper.mix.run.stage import Kind, Stage
from torch import nn

_ENDS = 0
"""The unit of all weights that are in no block of the stage alone; the blocks follow in their order."""


class Scattered:
    """The weights of one stage over the chips that share them.

    Args:
        stage: The stage; what it gives up is given up now.
        owner: Weight -> place of its owner among the members.
        place: Own place.
        channel: To the other members.
        gathers: Whether weights are given up too (ZeRO 3), and not gradients alone.
    """

    def __init__(self, stage: Stage, *, owner: Mapping[str, int], place: int, channel: Channel, gathers: bool) -> None:
        self._weights, self._masters = stage.weights, stage.masters
        self._place, self._channel, self.gathers = place, channel, gathers
        units = _units(stage)
        self._unit_of = {name: unit for unit, names in enumerate(units) for name in names}
        self._owned = [{at: [name for name in names if owner[name] == at] for at in {owner[name] for name in names}} for names in units]
        """Of each unit: place -> the weights that it owns of it."""
        self.passes: Sequence[Sequence[Kind]] = ()
        """Of each member, what it does in a step."""
        self._threads: list[threading.Thread] = []
        self._fault: BaseException | None = None
        self._sums: dict[str, torch.Tensor] = {}
        self._sent: list[Pending] = []
        self._slot = self._backwards = -1
        self._taken: set[int] = set()
        """Units that came in the pass under way: once each."""
        self._pushed: set[int] = set()
        """Units whose gradients have left in the backward pass under way."""
        self._due: list[set[str]] = []
        """Of each unit, weights whose gradients are not there yet in the backward pass under way."""
        for name, weight in self._weights.items():
            if owner[name] != place:
                weight.data = weight.data.clone()  # storage of its own
                self._masters[name] = weight
            weight.register_post_accumulate_grad_hook(self._noted(name))
        if gathers:
            for unit, block in _blocks(stage):
                block.register_forward_pre_hook(self._before(unit))
                block.register_forward_hook(self._after(unit), prepend=True)
            for unit in range(len(self._owned)):
                self._give_up(unit)

    def begin(self) -> None:
        """Begin to serve the others in a step; before its first pass."""
        self._slot = self._backwards = -1
        self._fault, self._sums, self._sent = None, {}, []
        works: list[Callable[[], None]] = [self._add_up]
        if self.gathers:
            works += [lambda at=at: self._serve(at) for at in range(len(self.passes)) if at != self._place]  # type: ignore[misc]
        self._threads = [threading.Thread(target=self._guarded, args=(work,), name="scattered", daemon=True) for work in works]
        for one in self._threads:
            one.start()

    def finish(self) -> None:
        """Until all gradients of the others are in those of the own weights, and nobody needs anything more.

        Raises:
            WireError: A member is gone.
        """
        for one in self._threads:
            one.join()
        if self._fault is not None:
            raise self._fault
        for pending in self._sent:
            pending.wait()
        for name, total in self._sums.items():
            master = self._masters[name]
            total = total.to(master.device, master.dtype)
            master.grad = total if master.grad is None else master.grad + total

    @contextlib.contextmanager
    def around(self, kind: Kind) -> Iterator[None]:
        """A pass."""
        self._slot += 1
        self._taken.clear()
        self._pushed.clear()
        if kind == "backward":
            self._backwards += 1
            self._due = [{name for names in owned.values() for name in names} for owned in self._owned]
        self._gather(_ENDS)
        yield
        order = self._order(kind)
        for unit in order:
            if kind == "backward":
                self._push(unit)
            self._gather(unit)  # what this pass did not use is sent all the same
            self._give_up(unit)

    def _order(self, kind: Kind) -> list[int]:
        """Units as a pass needs them."""
        blocks = list(range(1, len(self._owned)))
        return [_ENDS, *(blocks if kind == "forward" else reversed(blocks))]

    def _key(self, slot: int, unit: int, *, gradient: bool) -> int:
        return (slot * len(self._owned) + unit) * 2 + gradient

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # belongs to whoever waits for the step
            self._fault = error

    def _serve(self, at: int) -> None:
        """Send a member what it needs of the own weights, each when the one before has been taken."""
        for slot, kind in enumerate(self.passes[at]):
            for unit in self._order(kind):
                if names := self._owned[unit].get(self._place):
                    flat = torch.cat([self._weights[name].detach().reshape(-1) for name in names]).cpu()
                    self._channel.send(flat, to=at, key=self._key(slot, unit, gradient=False)).wait()

    def _add_up(self) -> None:
        """Add up the others' gradients of the own weights, micro-batch by micro-batch and member by member."""
        counts = [sum(kind == "backward" for kind in passes) for passes in self.passes]
        for backward in range(max(counts)):
            for at, count in enumerate(counts):
                for unit in self._order("backward") if at != self._place and backward < count else ():
                    names = self._owned[unit].get(self._place, [])
                    if names:
                        self._take_gradients(names, at, key=self._key(backward, unit, gradient=True))

    def _take_gradients(self, names: Sequence[str], at: int, *, key: int) -> None:
        like = self._weights[names[0]]
        flat = torch.empty(sum(self._weights[name].numel() for name in names), dtype=like.dtype)
        self._channel.receive(flat, source=at, key=key)
        wide = flat.to(torch.promote_types(like.dtype, torch.float32))
        for name, part in zip(names, wide.split([self._weights[name].numel() for name in names]), strict=True):
            shaped = part.view(self._weights[name].shape)
            self._sums[name] = self._sums[name] + shaped if name in self._sums else shaped.clone()

    @torch.no_grad()
    def _gather(self, unit: int) -> None:
        """Let the weights of a unit be here."""
        if not self.gathers or unit in self._taken:
            return
        self._taken.add(unit)
        for at, names in sorted(self._owned[unit].items()):
            if at == self._place:
                continue
            sizes = [self._weights[name].numel() for name in names]
            flat = torch.empty(sum(sizes), dtype=self._weights[names[0]].dtype)
            self._channel.receive(flat, source=at, key=self._key(self._slot, unit, gradient=False))
            for name, part in zip(names, flat.split(sizes), strict=True):
                weight = self._weights[name].data  # without its count of versions: what autograd has kept is this very storage
                weight.untyped_storage().resize_(weight.numel() * weight.element_size())
                weight.copy_(part.view(weight.shape))

    def _give_up(self, unit: int) -> None:
        if self.gathers:
            for at, names in self._owned[unit].items():
                for name in names if at != self._place else ():
                    self._weights[name].data.untyped_storage().resize_(0)

    def _push(self, unit: int) -> None:
        """Send the gradients of a unit to the owners of its weights, once for each backward pass; nought for what has none."""
        if unit in self._pushed:
            return
        self._pushed.add(unit)
        for at, names in sorted(self._owned[unit].items()):
            if at != self._place:
                found = [self._weights[name].grad for name in names]
                parts = [torch.zeros(self._weights[name].shape) if one is None else one for one, name in zip(found, names, strict=True)]
                flat = torch.cat([one.reshape(-1).to("cpu", self._weights[names[0]].dtype) for one in parts])
                self._sent.append(self._channel.send(flat, to=at, key=self._key(self._backwards, unit, gradient=True)))
                for name in names:
                    self._weights[name].grad = None

    def _noted(self, name: str) -> Callable[[torch.Tensor], None]:
        unit = self._unit_of[name]

        def hook(_: torch.Tensor) -> None:
            self._due[unit].discard(name)
            if not self._due[unit]:
                self._push(unit)
                if unit != _ENDS:
                    self._give_up(unit)

        return hook

    def _before(self, unit: int) -> Callable[..., None]:
        return lambda *_: self._gather(unit)

    def _after(self, unit: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: object, result: object) -> None:
            self._give_up(unit)
            for _path, one in tree.tensors(result):
                if one.grad_fn is not None:
                    one.register_hook(lambda _: self._gather(unit))

        return hook


def _units(stage: Stage) -> list[list[str]]:
    """The ends' weights, then those of each block that no other layer uses."""
    layers = {name: next(iter(used)) if len(used) == 1 else None for name, used in stage.used.items()}
    blocks = [layer for layer, _ in _blocks(stage)]
    first = stage.first if stage.first else 1
    inside = {name: layer - first + 1 for name, layer in layers.items() if layer is not None and layer - first + 1 in blocks}
    return [
        [name for name in stage.weights if name not in inside],
        *([name for name in stage.weights if inside.get(name) == unit] for unit in blocks),
    ]


def _blocks(stage: Stage) -> Iterator[tuple[int, nn.Module]]:
    """(unit, module) of each block of the stage."""
    if stage.anatomy is not None:
        blocks = stage.anatomy.chain.blocks(stage.module)
        own = [layer for layer in range(1, len(blocks) + 1) if stage.first <= layer < stage.last]
        yield from ((unit, blocks[layer - 1]) for unit, layer in enumerate(own, 1))
