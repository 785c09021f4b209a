"""Kinds of faults that chips and compilers have, each put into one op of a step.

A kind takes the op as it ran and a random source, and returns the outputs that a faulty kernel would have given; None where it
does not apply. Nothing here knows how the prover judges.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from sapper.prove.call import Call

Outputs = Sequence[torch.Tensor]
PRODUCTS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "sum", "mean"}
NORMS = {"native_layer_norm", "native_group_norm", "native_batch_norm", "_fused_rms_norm"}
FUNCTIONS = {"gelu", "gelu_backward", "silu", "silu_backward", "sigmoid", "tanh", "exp", "softplus", "elu", "log"}
SOFTMAX = {"_softmax", "_log_softmax"}
SCATTERS = {"embedding_dense_backward", "index_add", "index_put", "_index_put_impl_", "index_put_", "scatter_add", "scatter_add_"}


@dataclass(frozen=True)
class Broken:
    """One op to be broken: its call (inputs as they were), its outputs, and which of them suffers."""

    call: Call
    outputs: Outputs
    at: int

    @property
    def output(self) -> torch.Tensor:
        return self.outputs[self.at]

    def with_output(self, output: torch.Tensor) -> list[torch.Tensor]:
        return [output.to(self.output.dtype) if at == self.at else one for at, one in enumerate(self.outputs)]

    def on(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The outputs of the op on other inputs."""
        return [one.to(own.dtype) for one, own in zip(self.call.run(tensors), self.outputs, strict=True)]


Kind = Callable[[Broken, random.Random], "list[torch.Tensor] | None"]


def _floating(kind: Kind) -> Kind:
    return lambda broken, chance: kind(broken, chance) if broken.output.is_floating_point() else None


def _rms(tensor: torch.Tensor) -> float:
    return float(tensor.float().square().mean().sqrt())


def scaled(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """All is too large by 1%."""
    return broken.with_output(broken.output.float() * 1.01)


def halved(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """As where a gradient is added once instead of twice."""
    return broken.with_output(broken.output * 0.5)


def lost(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """Never written: zeros."""
    return broken.with_output(torch.zeros_like(broken.output))


def offset(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """All is shifted by 2% of the scale."""
    return broken.with_output(broken.output.float() + 0.02 * _rms(broken.output))


def one_element(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """One value is too large by 10%."""
    return _changed_at(broken, chance, lambda value: value * 1.1)


def one_zeroed(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """One value is not written."""
    return _changed_at(broken, chance, lambda value: value * 0)


def one_nan(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """One value is no number."""
    return _changed_at(broken, chance, lambda value: value * float("nan"))


def _changed_at(broken: Broken, chance: random.Random, change: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor] | None:
    flat = broken.output.flatten().clone()
    filled = flat.nonzero().flatten()
    if not len(filled):
        return None
    at = int(filled[chance.randrange(len(filled))])
    flat[at] = change(flat[at])
    return broken.with_output(flat.view(broken.output.shape))


def one_channel(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """One channel, row or column is too large by 5%."""
    if broken.output.dim() < 2:
        return None
    altered = broken.output.clone()
    dim = 1 if altered.dim() > 2 else chance.randrange(2)
    altered.select(dim, chance.randrange(altered.shape[dim])).mul_(1.05)
    return broken.with_output(altered)


def tile_edge(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """The last, partial tile of 16 along the last dimension is not written."""
    width = broken.output.shape[-1] if broken.output.dim() else 0
    if width < 2:
        return None
    altered = broken.output.clone()
    altered[..., -(width % 16 or min(16, width // 2)) :] = 0
    return broken.with_output(altered)


def off_by_one(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """Each value stands one place too far."""
    if not broken.output.dim() or broken.output.shape[-1] < 2:
        return None
    return broken.with_output(broken.output.roll(1, -1))


def rows_swapped(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """The first two rows change places."""
    if broken.output.dim() < 2 or broken.output.shape[0] < 2:
        return None
    altered = broken.output.clone()
    altered[[0, 1]] = broken.output[[1, 0]]
    return broken.with_output(altered)


def saturated(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """Values beyond 1.5 times the scale are cut off."""
    limit = 1.5 * _rms(broken.output)
    return broken.with_output(broken.output.clamp(-limit, limit))


def noisy(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """Bits lost at random, as by a race: 0.1% of each number in fp32, 4% in lower precisions."""
    share = 1e-3 if broken.output.dtype == torch.float32 else 0.04
    generator = torch.Generator().manual_seed(chance.randrange(2**31))
    return broken.with_output(broken.output.float() * (1 + share * torch.randn(broken.output.shape, generator=generator)))


def stale(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """The result for other inputs: those of the batch's neighbour."""
    given = broken.call.tensors
    if not given or not given[0].dim() or given[0].shape[0] < 2 or not given[0].is_floating_point():
        return None
    return broken.on([given[0].roll(1, 0), *given[1:]])


def coarse(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """Computed in the next coarser format: fp32 in bf16, bf16 and fp16 in fp8."""
    narrow = torch.bfloat16 if broken.output.dtype == torch.float32 else torch.float8_e4m3fn
    return broken.on([_through(one, narrow) for one in broken.call.tensors]) if _has_fp(broken) else None


def tf32(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """Operands of products truncated to 10 bits behind the point, unasked."""
    if broken.call.name not in PRODUCTS or broken.output.dtype != torch.float32:
        return None
    return broken.on([_truncated(one) for one in broken.call.tensors])


def narrow_sum(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """Sums kept in bf16."""
    name, given = broken.call.name, broken.call.tensors
    if name in ("mm", "addmm", "bmm"):
        left, right = given[-2], given[-1]
        total = torch.zeros((*left.shape[:-1], right.shape[-1]), dtype=torch.bfloat16)
        for at in range(0, left.shape[-1], 4):
            total += (left[..., at : at + 4].float() @ right[..., at : at + 4, :].float()).to(torch.bfloat16)
        return broken.with_output(total + given[0].to(torch.bfloat16) if name == "addmm" else total)
    if name in ("sum", "mean") and len(given) == 1 and given[0].numel() > 8 * broken.output.numel():
        narrow = Call.of(broken.call.func, *_rebound(broken, given[0][: given[0].shape[0] // 2]))
        rest = Call.of(broken.call.func, *_rebound(broken, given[0][given[0].shape[0] // 2 :]))
        if broken.call.args[1:2] == ([0],) and name == "sum":
            return broken.with_output(narrow.run()[0].to(torch.bfloat16) + rest.run()[0].to(torch.bfloat16))
    return None


def _rebound(broken: Broken, tensor: torch.Tensor) -> tuple[list[object], dict[str, object]]:
    return broken.call.bound([tensor, *broken.call.tensors[1:]])


def last_term(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """The last term of each sum is left out."""
    if broken.call.name not in PRODUCTS or not broken.call.tensors:
        return None
    which = {"addmm": 1, "baddbmm": 1, "convolution": 1}.get(broken.call.name, 0)
    given = list(broken.call.tensors)
    if not given[which].dim() or given[which].shape[-1] < 2:
        return None
    given[which] = given[which].clone()
    if broken.call.name in ("sum", "mean"):
        given[which].flatten()[-1:].zero_() if given[which].is_contiguous() else None
    else:
        given[which][..., -1] = 0
    return broken.on(given)


def attribute(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """A constant of the op is wrong: an epsilon a hundred times too large, another number by one part in twenty."""
    places = [at for at, value in enumerate(broken.call.args) if isinstance(value, float) and value]
    names = [name for name, value in broken.call.kwargs.items() if isinstance(value, float) and value]
    if not places and not names:
        return None
    args, kwargs = list(broken.call.args), dict(broken.call.kwargs)

    def wrong(value: float) -> float:
        return value * 100 if 0 < value < 1e-3 else value * 1.05

    if places:
        at = chance.choice(places)
        args[at] = wrong(args[at])
    else:
        name = chance.choice(names)
        kwargs[name] = wrong(kwargs[name])
    return Call(op=broken.call.op, args=tuple(args), kwargs=kwargs, tensors=broken.call.tensors).run()


def constant(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """A constant inside the kernel is wrong: an activation's slope, the base of an exponential, by one part in two hundred."""
    if broken.call.name not in FUNCTIONS | SOFTMAX:
        return None
    which = 1 if broken.call.name.endswith("_backward") else 0
    given = list(broken.call.tensors)
    given[which] = (given[which].float() * 1.005).to(given[which].dtype) if given[which].dtype == torch.float32 else given[which] * 1.03
    return broken.on(given)


def variance(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """A norm whose variance is divided by one number less."""
    if broken.call.name not in NORMS or broken.at not in (0, 2):
        return None
    given = broken.call.tensors[0]
    size = given.shape[-1] if "layer" in broken.call.name else given.numel() // max(broken.outputs[1].numel(), 1)
    if size < 2:
        return None
    shrunk = [one if at else one.float() * ((size - 1) / size) ** 0.5 for at, one in enumerate(broken.outputs)]
    return broken.with_output(shrunk[0] if broken.at == 0 else broken.outputs[2].float() * ((size - 1) / size) ** 0.5)


def duplicates(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """Where one place is added to twice, the last wins: an atomic add that is none."""
    if broken.call.name != "embedding_dense_backward":
        return None
    grad, indices = broken.call.tensors[:2]
    altered = torch.zeros_like(broken.output)
    altered[indices.flatten()] = grad.reshape(-1, grad.shape[-1])
    return broken.with_output(altered)


def edge_masked(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """The last key of an attention, or the last entry of a softmax, is not looked at."""
    given = list(broken.call.tensors)
    if broken.call.name in SOFTMAX:
        given[0] = given[0].clone()
        given[0][..., -1] = -1e4
        return broken.on(given)
    if broken.call.name.startswith("_scaled_dot_product") and not broken.call.name.endswith("backward") and len(given) >= 3:
        given[2] = given[2].clone()
        given[2][..., -1, :] = 0
        return broken.on(given)
    return None


def wrong_index(broken: Broken, chance: random.Random) -> list[torch.Tensor] | None:
    """One position is off by one."""
    if broken.output.dtype != torch.int64:
        return None
    flat = broken.output.flatten().clone()
    at = chance.randrange(len(flat))
    flat[at] = flat[at] + 1 if flat[at] == 0 else flat[at] - 1
    return broken.with_output(flat.view(broken.output.shape))


def _has_fp(broken: Broken) -> bool:
    return any(one.is_floating_point() for one in broken.call.tensors)


def _through(tensor: torch.Tensor, narrow: torch.dtype) -> torch.Tensor:
    return tensor.to(narrow).to(tensor.dtype) if tensor.is_floating_point() else tensor


def _truncated(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32) if tensor.dtype == torch.float32 else tensor


KINDS: dict[str, Kind] = {
    "scaled by 1.01": _floating(scaled),
    "halved": _floating(halved),
    "lost": _floating(lost),
    "offset": _floating(offset),
    "one element": _floating(one_element),
    "one zeroed": _floating(one_zeroed),
    "one NaN": _floating(one_nan),
    "one channel": _floating(one_channel),
    "tile edge": _floating(tile_edge),
    "off by one": _floating(off_by_one),
    "rows swapped": _floating(rows_swapped),
    "saturated": _floating(saturated),
    "noisy": _floating(noisy),
    "stale": _floating(stale),
    "coarser format": _floating(coarse),
    "TF32 unasked": _floating(tf32),
    "narrow sum": _floating(narrow_sum),
    "last term lost": _floating(last_term),
    "wrong attribute": _floating(attribute),
    "wrong constant": _floating(constant),
    "variance n-1": _floating(variance),
    "duplicates lost": _floating(duplicates),
    "edge masked": _floating(edge_masked),
    "wrong index": wrong_index,
}


def broken_outputs(call: Call, outputs: Outputs, *, kind: str, seed: int) -> tuple[int, list[torch.Tensor]] | None:
    """Which output suffers and all outputs after it did; None where the kind does not apply or changes no bit."""
    chance = random.Random(seed)
    order = [at for at, one in enumerate(outputs) if one.numel()]
    chance.shuffle(order)
    for at in order:
        try:
            altered = KINDS[kind](Broken(call, outputs, at), chance)
        except (RuntimeError, ValueError):
            continue
        if altered is not None and any(not _same(one, own) for one, own in zip(altered, outputs, strict=True)):
            return at, altered
    return None


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num()) and torch.equal(one.isnan(), other.isnan())
