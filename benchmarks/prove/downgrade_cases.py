"""Representative cases of many ops for `downgrades.py`: large enough that roundings show, small enough that all run in minutes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.nn import functional as F

import torch
from sapper.backends.computation import Computation, with_gradients

ROWS, WIDTH = 24, 192
"""Of the usual matrix: 4,608 values, sums of 192 terms."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One case."""

    name: str
    op: str
    """What the values may tell of who computed them: ``aten::name``, or the name of the case."""
    computation: Computation
    denormal: bool = False
    """Whether its inputs are denormal numbers."""


def _tensors(seed: int, *shapes: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


_GRID = (ROWS, WIDTH)
_UNARY: tuple[str, ...] = (
    "abs", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "digamma", "erf", "erfc", "erfinv", "exp", "exp2", "expm1",
    "floor", "frac", "lgamma", "log", "log10", "log1p", "log2", "neg", "reciprocal", "round", "rsqrt", "sigmoid", "sign", "sin", "sinh",
    "sqrt", "square", "tan", "tanh", "trunc",
)  # fmt: skip
_POSITIVE = frozenset({"log", "log10", "log1p", "log2", "rsqrt", "sqrt", "digamma", "lgamma", "reciprocal"})
_UNIT = frozenset({"asin", "atanh", "erfinv"})
_ABOVE_ONE = frozenset({"acosh"})
_BINARY: tuple[str, ...] = ("add", "sub", "mul", "div", "maximum", "minimum", "atan2", "hypot", "fmod", "logaddexp", "copysign")
_ACTIVATIONS: tuple[str, ...] = (
    "gelu", "silu", "elu", "selu", "celu", "relu", "leaky_relu", "hardswish", "hardsigmoid", "hardtanh", "mish", "softplus", "logsigmoid",
    "softsign", "relu6",
)  # fmt: skip
_Made = tuple[Callable[..., Any], tuple[torch.Tensor, ...]]


def _elementwise() -> dict[str, _Made]:
    found: dict[str, _Made] = {}
    (x, y), (p, q) = _tensors(1, _GRID, _GRID), _tensors(2, _GRID, _GRID)
    for name in _UNARY:
        given = p.abs() + 0.1 if name in _POSITIVE else x.tanh() * 0.9 if name in _UNIT else p.abs() + 1.1 if name in _ABOVE_ONE else x
        found[name] = (getattr(torch, name), (given,))
    for name in _BINARY:
        found[name] = (getattr(torch, name), (x, y.abs() + 0.1 if name in ("div", "fmod") else y))
    found["pow"] = (torch.pow, (p.abs() + 0.1, q))
    found["addcmul"] = (torch.addcmul, (x, y, p))
    found["addcdiv"] = (torch.addcdiv, (x, y, p.abs() + 0.1))
    found["lerp"] = (lambda a, b, c: torch.lerp(a, b, c), (x, y, p.sigmoid()))
    found["clamp"] = (lambda a: a.clamp(-0.7, 0.7), (x,))
    found["where"] = (lambda a, b: torch.where(a > b, a, b), (x, y))
    return found


def _reductions() -> dict[str, _Made]:
    (x,) = _tensors(3, _GRID)
    plain = ("sum", "mean", "var", "std", "prod", "amax", "amin", "logsumexp", "cumsum", "cumprod", "softmax", "log_softmax")
    found: dict[str, _Made] = {
        name: (lambda a, name=name: getattr(torch, name)(a, -1), (x * 0.1 + 1 if "prod" in name else x,)) for name in plain
    }  # fmt: skip
    found["norm"] = (lambda a: torch.linalg.vector_norm(a, dim=-1), (x,))
    found["argmax"] = (lambda a: a.argmax(-1), (x,))
    found["sort"] = (lambda a: torch.sort(a, -1), (x,))
    found["topk"] = (lambda a: torch.topk(a, 8, -1), (x,))
    return found


def _products() -> dict[str, _Made]:
    a, b, c, v = _tensors(4, _GRID, (WIDTH, 40), (ROWS, 40), (WIDTH,))
    batch, other = _tensors(5, (3, ROWS, WIDTH), (3, WIDTH, 20))
    image, kernel, line, taps = _tensors(6, (2, 16, 12, 12), (24, 16, 3, 3), (2, 32, 40), (24, 32, 5))
    volume, cube = _tensors(7, (1, 8, 6, 6, 6), (12, 8, 3, 3, 3))
    heads = _tensors(8, (2, 4, 32, 32), (2, 4, 32, 32), (2, 4, 32, 32))
    return {
        "mm": (torch.mm, (a, b)), "addmm": (torch.addmm, (c, a, b)), "bmm": (torch.bmm, (batch, other)), "mv": (torch.mv, (a, v)),
        "linear": (F.linear, (a, b.t().contiguous())), "baddbmm": (torch.baddbmm, (_tensors(9, (3, ROWS, 20))[0], batch, other)),
        "dot": (torch.dot, (a.flatten(), a.flip(0).flatten())), "einsum": (lambda x, y: torch.einsum("bij,bjk->bik", x, y), (batch, other)),
        "conv1d": (F.conv1d, (line, taps)), "conv2d": (F.conv2d, (image, kernel)), "conv3d": (F.conv3d, (volume, cube)),
        "conv_transpose2d": (F.conv_transpose2d, (image, kernel[:16].reshape(16, 16, 3, 3).contiguous())),
        "scaled_dot_product_attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), heads),
    }  # fmt: skip


def _layers() -> dict[str, _Made]:
    (x, y), (image,) = _tensors(10, _GRID, _GRID), _tensors(11, (4, 16, 10, 10))
    weight, bias, per_channel, more = _tensors(12, (WIDTH,), (WIDTH,), (16,), (16,))
    labels = torch.randint(0, WIDTH, (ROWS,), generator=torch.Generator().manual_seed(0))
    found: dict[str, _Made] = {name: (getattr(F, name), (x,)) for name in _ACTIVATIONS}
    return found | {
        "layer_norm": (lambda a, w, b: F.layer_norm(a, (WIDTH,), w, b), (x, weight, bias)),
        "rms_norm": (lambda a, w: F.rms_norm(a, (WIDTH,), w), (x, weight)),
        "group_norm": (lambda a, w, b: F.group_norm(a, 4, w, b), (image, per_channel, more)),
        "batch_norm": (lambda a, w, b: F.batch_norm(a, None, None, w, b, training=True), (image, per_channel, more)),
        "cross_entropy": (lambda a: F.cross_entropy(a, labels.to(a.device)), (x,)), "mse_loss": (F.mse_loss, (x, y)),
        "l1_loss": (F.l1_loss, (x, y)), "smooth_l1_loss": (F.smooth_l1_loss, (x, y)), "huber_loss": (F.huber_loss, (x, y)),
        **_each_term(x, y),
        "kl_div": (lambda a, b: F.kl_div(a.log_softmax(-1), b.softmax(-1), reduction="batchmean"), (x, y)),
        "binary_cross_entropy_with_logits": (F.binary_cross_entropy_with_logits, (x, y.sigmoid())), "glu": (F.glu, (x,)),
        "avg_pool2d": (lambda a: F.avg_pool2d(a, 3, 2), (image,)), "max_pool2d": (lambda a: F.max_pool2d(a, 3, 2), (image,)),
        "adaptive_avg_pool2d": (lambda a: F.adaptive_avg_pool2d(a, 3), (image,)),
        "bilinear": (lambda a: F.interpolate(a, scale_factor=1.7, mode="bilinear", align_corners=False), (image,)),
        "nearest": (lambda a: F.interpolate(a, scale_factor=2, mode="nearest"), (image,)), "prelu": (F.prelu, (x, weight)),
    }  # fmt: skip


def _each_term(x: torch.Tensor, y: torch.Tensor) -> dict[str, _Made]:
    """Losses without the sum."""
    plain = ("mse_loss", "smooth_l1_loss", "huber_loss", "kl_div")
    found: dict[str, _Made] = {
        f"{name} of each": (lambda a, b, name=name: getattr(F, name)(a, b.sigmoid(), reduction="none"), (x, y)) for name in plain
    }  # fmt: skip
    targets = y.sigmoid()
    found["binary_cross_entropy_with_logits of each"] = (
        lambda a, b: F.binary_cross_entropy_with_logits(a, b, reduction="none"), (x, targets)
    )  # fmt: skip
    found["xlogy"] = (torch.xlogy, (targets, targets.flip(0)))
    return found


def _moves() -> dict[str, _Made]:
    (x, y), (table,) = _tensors(13, _GRID, _GRID), _tensors(14, (50, 32))
    at = torch.randint(0, ROWS, (30,), generator=torch.Generator().manual_seed(1))
    lanes = torch.randint(0, WIDTH, _GRID, generator=torch.Generator().manual_seed(2))
    return {
        "embedding": (lambda t: F.embedding(at.to(t.device), t), (table,)),
        "index_select": (lambda a: a.index_select(0, at.to(a.device)), (x,)),
        "gather": (lambda a: a.gather(1, lanes.to(a.device)), (x,)), "cat": (lambda a, b: torch.cat([a, b], 1), (x, y)),
        "stack": (lambda a, b: torch.stack([a, b]), (x, y)), "index_add": (lambda a, b: a.index_add(0, at[:ROWS].to(a.device), b), (x, y)),
        "scatter_add": (lambda a, b: a.scatter_add(1, lanes.to(a.device), b), (x, y)), "flip": (lambda a: a.flip(0), (x,)),
        "masked_fill": (lambda a, b: a.masked_fill(b > 0, 2.0), (x, y)), "roll": (lambda a: a.roll(3, 1), (x,)),
        "tril": (torch.tril, (x,)), "index": (lambda a: a[at.to(a.device)], (x,)), "contiguous": (lambda a: a.t().contiguous(), (x,)),
        "repeat": (lambda a: a.repeat(2, 1), (x,)), "pad": (lambda a: F.pad(a, (1, 2)), (x,)),
    }  # fmt: skip


_DENORMAL = ("add", "mul", "sub", "mm", "sum", "contiguous", "relu", "maximum", "linear", "conv2d", "where", "cat", "abs", "bmm")
"""Cases that are asked of denormal numbers too."""


def probes() -> Iterator[Probe]:
    """All of them: values, then gradients of what has some, then denormal numbers."""
    made = _elementwise() | _reductions() | _products() | _layers() | _moves()
    for name, (fn, tensors) in made.items():
        computation = _computation(name, fn, tensors)
        yield Probe(name=name, op=f"aten::{name}", computation=computation)
        if (graded := _with_gradients(computation)) is not None:
            yield Probe(name=f"{name} backward", op=f"aten::{name}_backward", computation=graded)
    for name in _DENORMAL:
        fn, tensors = made[name]
        tiny = tuple(one * 1e-40 if at == 0 else one for at, one in enumerate(tensors))
        yield Probe(name=f"{name} of denormals", op=f"aten::{name}", computation=_computation(name, fn, tiny), denormal=True)


def _computation(name: str, fn: Callable[..., Any], tensors: tuple[torch.Tensor, ...]) -> Computation:
    def run(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = fn(*given)
        return (found,) if isinstance(found, torch.Tensor) else tuple(found)

    labels = tuple(f"value {at}" for at in range(len(run(*tensors))))
    return Computation(name=name, fn=run, tensors=tensors, labels=labels)


def _with_gradients(computation: Computation) -> Computation | None:
    values = computation([one.clone().requires_grad_() for one in computation.tensors])
    if not any(one.requires_grad for one in values):
        return None
    generator = torch.Generator().manual_seed(99)
    cotangents = [torch.randn(one.shape, generator=generator) if one.requires_grad else None for one in values]
    return with_gradients(computation, wrt=range(len(computation.tensors)), cotangents=cotangents)
