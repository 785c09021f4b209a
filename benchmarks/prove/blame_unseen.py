"""Cases of blame that were made after the truth table, of kinds that it had not seen; counted before it was mended and after.

    python benchmarks/prove/blame_cases.py --unseen --out benchmarks/prove/results/blame_unseen.jsonl

Each stands for something that happens when a model is brought to a chip: a norm written by the unstable formula, an exporter that drops
an epsilon, a compiler that adds in another order, weights that are laid out for the chip once and then updated, dropout drawn from
another generator, half precision that overflows by the program's own doing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch.nn import functional

import torch
from sapper.prove.verdict import Blame, Outcome


class Unseen(NamedTuple):
    """The fields of a case of ``blame_cases``."""

    name: str
    blame: Blame
    backend: str
    seen: Outcome
    fn: object
    tensors: tuple[torch.Tensor, ...]


def unseen() -> Iterator[Unseen]:
    """All of them."""
    yield from _excused()
    yield from _accused()


def _excused() -> Iterator[Unseen]:
    """Controls: the stack must not be blamed."""
    shifted, x = _normal(8, 256, shift=2e3), _normal(16, 64)
    yield Unseen("norm by the mean of squares", "model", "papertiger", "wrong", _unstable_norm, (shifted,))
    terms = (torch.full((64,), 1e8), torch.full((64,), -1e8), _normal(64))
    yield Unseen("a cancelling sum in another order", "model", "papercompiler:pass=reassociated-sums", "wrong", _added, terms)
    half = _normal(64, scale=300.0).half()
    yield Unseen("squares beyond fp16", "model", "papertiger", "nan", lambda x: ((x * x).sqrt(),), (half,))
    yield Unseen("memory that the program never wrote", "model", "papertiger", "nondeterministic", _unwritten, (_normal(4096),))
    yield Unseen("a log-ratio of nearly equal numbers", "model", "papercompiler", "wrong", _log_ratio, (_normal(64).abs() + 1,))
    image, many = _normal(1, 1, 40, 64), _normal(200, 64).abs().bfloat16()
    yield Unseen("bilinear upsampling by 1.7", "reference", "papertiger", "wrong", _upsampled, (image,))
    yield Unseen("gradients gathered in bf16", "reference", "papertiger", "wrong", _gathered, (many,))
    equal = torch.tensor([[2.0, 1.0, 2.0, 1.0, 2.0, 0.0], [3.0] * 6])
    yield Unseen("order of equal keys in a sort", "legal", "papercompiler:kernel=ties", "wrong", _order, (equal,))
    beyond = torch.tensor([300.0, -5.0, 3e10, 17.0])
    yield Unseen("conversion of what does not fit", "legal", "papercompiler:kernel=saturating", "wrong", _to_bytes, (beyond,))
    yield Unseen("dropout drawn elsewhere", "legal", "papertiger", "wrong", lambda x: (functional.dropout(x, 0.5, True),), (x,))
    many = _normal(4, 999)
    yield Unseen("atomic additions", "legal", "papercompiler:kernel=atomics", "nondeterministic", lambda x: (x.sum(-1),), (many,))


def _accused() -> Iterator[Unseen]:
    """Faults."""
    x, y = _normal(16, 64), _normal(64, 32, seed=1)
    second_moment = torch.tensor([0.0, 1e-14, 1e-4])
    yield Unseen("exporter drops an epsilon", "exporter", "papercompiler:exporter=epsilon-dropped", "nan", _adam, (second_moment,))
    small = (torch.full((64,), 1e-20), torch.full((64,), 1e-20), _normal(64).abs() * 1e20)
    product = lambda x, y, z: (z * x * y,)  # noqa: E731
    yield Unseen("product reassociated into zero", "compiler", "papercompiler:pass=reassociated-products", "wrong", product, small)
    yield Unseen("weights laid out before their update", "state", "papercompiler:kernel=packed", "wrong", _updated, (x, y))
    yield Unseen("products read as TF32", "compiler", "papertiger:honest-tf32", "imprecise", lambda x, y: (x @ y,), (x, y))
    empty = 'tiger:kind = "uninitialised"\nop = "aten::mm"'
    yield Unseen("output without terms not written", "kernel", empty, "wrong", lambda x, y: (x[:, :0] @ y[:0],), (x, y))


def _normal(*shape: int, scale: float = 1.0, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale + shift


def _unstable_norm(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    mean = x.mean(-1, keepdim=True)
    return ((x - mean) / (x.square().mean(-1, keepdim=True) - mean.square() + 1e-5).sqrt(),)


def _added(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x + y + z,)


def _unwritten(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x + torch.empty_like(x),)


def _log_ratio(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (((x * (1 + 1e-6)) / x).log() * 1e6,)


def _upsampled(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (functional.interpolate(x, scale_factor=1.7, mode="bilinear"),)


def _gathered(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    into = torch.zeros(4, x.shape[1], dtype=x.dtype, device=x.device)
    return (into.index_put((torch.zeros(len(x), dtype=torch.int64, device=x.device),), x, accumulate=True),)


def _order(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x.sort(-1).indices,)


def _to_bytes(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x.to(torch.uint8),)


def _adam(v: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (1 / (v.sqrt() + 1e-8),)


def _updated(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (x @ weight, x @ (weight * 0.5))
