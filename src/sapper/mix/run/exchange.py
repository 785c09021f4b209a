"""What a tensor parallel region does at its edges, forward and backward (arXiv:1909.08053, section 3: f and g)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch.distributed as dist

import torch

Group = Any
"""``torch.distributed.ProcessGroup``."""


def summed(one: torch.Tensor, group: Group) -> torch.Tensor:
    """The sum over shards."""
    whole = one.contiguous().clone()
    group.allreduce([whole]).wait()
    return whole


def hand_on(tensors: Sequence[torch.Tensor], group: Group, *, root: int) -> None:
    """Let all members have what ``root`` has, in place; tensors of one dtype go in one message."""
    under_way = []
    for dtype in {one.dtype: None for one in tensors}:
        alike = [one for one in tensors if one.dtype == dtype]
        flat = torch.cat([one.reshape(-1) for one in alike])
        options = dist.BroadcastOptions()
        options.rootRank = root
        under_way.append((group.broadcast([flat], options), flat, alike))
    for work, flat, alike in under_way:
        work.wait()
        at = 0
        for one in alike:
            one.copy_(flat[at : at + one.numel()].view_as(one))
            at += one.numel()


def join(one: torch.Tensor, widths: Sequence[int], group: Group) -> torch.Tensor:
    """The shards of a tensor, of ``widths`` along its last dim, behind one another; unequal ones travel padded to the widest."""
    widest = max(widths)
    padded = torch.nn.functional.pad(one, (0, widest - one.shape[-1])).contiguous()
    found = [torch.empty_like(padded) for _ in widths]
    group.allgather([found], [padded]).wait()
    return torch.cat([part[..., :width] for part, width in zip(found, widths, strict=True)], dim=-1)


def part(one: torch.Tensor, widths: Sequence[int], group: Group) -> torch.Tensor:
    """This shard of the last dim."""
    shard = group.rank()
    start = sum(widths[:shard])
    return one[..., start : start + widths[shard]].contiguous()


class Enter(torch.autograd.Function):
    """Each shard works on the same input: the gradient is the sum over shards."""

    @staticmethod
    def forward(ctx: Any, one: torch.Tensor, group: Group) -> torch.Tensor:
        ctx.group = group
        return one.view_as(one)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return summed(gradients[0], ctx.group), None


class Leave(torch.autograd.Function):
    """The result is the sum over shards: each gets its gradient whole."""

    @staticmethod
    def forward(ctx: Any, one: torch.Tensor, group: Group) -> torch.Tensor:
        return summed(one, group)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0], None


class Join(torch.autograd.Function):
    """Shards of the last dim become the whole on each."""

    @staticmethod
    def forward(ctx: Any, one: torch.Tensor, widths: Sequence[int], group: Group) -> torch.Tensor:
        ctx.widths, ctx.group = widths, group
        return join(one, widths, group)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return part(gradients[0], ctx.widths, ctx.group), None, None


class Part(torch.autograd.Function):
    """The whole becomes shards of the last dim."""

    @staticmethod
    def forward(ctx: Any, one: torch.Tensor, widths: Sequence[int], group: Group) -> torch.Tensor:
        ctx.widths, ctx.group = widths, group
        return part(one, widths, group)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return join(gradients[0], ctx.widths, ctx.group), None, None
