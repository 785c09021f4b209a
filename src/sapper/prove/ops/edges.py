"""Edges: inputs that the database lacks and that real programs have, made from its samples by changing values or layout.

Where the reference refuses such an input, or where its result is not defined, it is no case.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import torch
from sapper.prove.ops.sample import Sample

Change = Callable[[Sample], Sequence[torch.Tensor] | None]
"""New tensors for a sample; None where it has nothing to change."""

SINGULAR = re.compile(
    r"^(linalg|fft\.hfft|svd|eig|qr|geqrf|lu|cholesky|ormqr|inverse|pinverse|logdet|lstsq|symeig|matrix_exp|triangular)|_lowrank$|^norm\.nuc$"
)
"""Matrix decompositions: what they give for infinities, or for matrices that are singular or nearly so, is not defined."""
SPECTRAL = re.compile(r"^(fft\.|stft$|istft$)")
"""Fourier transforms: which outputs an infinity makes infinite and which no number depends on the products with zero that an algorithm
leaves out. NumPy's own transform and MKL's differ there in up to six of seven lengths; a NaN gives NaN in the same places everywhere."""
NARROWER_ELSEWHERE = re.compile(r"^nn\.functional\.linear_cross_entropy")
"""Ops whose algorithm PyTorch chooses by device: on all but the CPU logits are kept in the dtype of the inputs
(``torch/nn/modules/linear_cross_entropy_options.py``, ``_AUTO_DEFAULTS``), where huge ones overflow if it is a narrow one."""
NARROW = (torch.float16, torch.bfloat16)
OWN_INTEGERS = frozenset({"nn.functional.ctc_loss", "searchsorted", "_segment_reduce.offsets"})
"""Ops whose integers may not be any positions: labels from 0 on (of which PyTorch checks nothing, pytorch/pytorch issue 191568), a
permutation, ascending offsets."""
TO_INTEGERS = frozenset({"byte", "char", "short", "int", "long", "to", "histc", "histogram", "histogramdd", "bincount"})
"""What becomes of a NaN or of a number beyond the range of an integer is not defined."""
ANY_INTEGER = frozenset(
    """
    add sub rsub mul eq ne lt le gt ge neg abs sign sum prod mean square amax amin maximum minimum max.binary min.binary
    max.reduction_with_dim max.reduction_no_dim min.reduction_with_dim min.reduction_no_dim argmax argmin cumsum cummax cummin
    sort argsort msort topk kthvalue unique unique_consecutive where gather flip roll cat stack clamp clamp_max clamp_min
    bitwise_and bitwise_or bitwise_xor bitwise_not remainder fmod floor_divide div.floor_rounding div.trunc_rounding true_divide
    float double clone contiguous diff isin equal bucketize searchsorted tril triu masked_fill masked_select nonzero count_nonzero
    """.split()  # noqa: SIM905 - one text reads better than a page of quoted words
)
"""Ops that any integer may be given to: none of its values is an index, a size or a shift."""


def edges(op: str, samples: Sequence[Sample]) -> Iterator[tuple[str, Sample]]:
    """Cases from the samples of an op: for each edge the first sample that it changes."""
    for name, change in _changes(op, narrow=any(one.dtype in NARROW for sample in samples for one in sample.tensors)).items():
        for sample in samples:
            tensors = change(sample)
            if tensors is not None:
                yield name, sample.with_tensors(tensors)
                break


def _changes(op: str, *, narrow: bool) -> dict[str, Change]:
    defined = not SINGULAR.search(op)
    finite = op not in TO_INTEGERS
    chosen: dict[str, Change] = {"strided": _strided, "transposed": _transposed, "empty": _empty, "scalar": _scalar}
    if op not in OWN_INTEGERS:
        chosen |= {"negative-index": _negative_index, "repeated-index": _repeated_index}
    if defined:
        chosen |= {"tiny": _tiny, "denormal": _denormal, "zeros": _zeros, "offset": _offset}
    if defined and finite:
        chosen["nan"] = _nan
        if not (narrow and NARROWER_ELSEWHERE.search(op)):
            chosen["huge"] = _huge
        if not SPECTRAL.search(op):
            chosen |= {"inf": _inf, "masked": _masked}
    if op in ANY_INTEGER:
        chosen["beyond-int32"] = _beyond_int32
    return chosen


def _floats(change: Callable[[torch.Tensor], torch.Tensor], *, first_only: bool = False) -> Change:
    """A change of all floating tensors, or of the first."""

    def apply(sample: Sample) -> list[torch.Tensor] | None:
        at = [at for at, one in enumerate(sample.tensors) if one.is_floating_point() and one.numel()]
        at = at[:1] if first_only else at
        if not at:
            return None
        return [change(one.clone()) if place in at else one for place, one in enumerate(sample.tensors)]

    return apply


def _scaled(by: Callable[[torch.finfo], float]) -> Change:
    return _floats(lambda one: one * by(torch.finfo(one.dtype)))


_tiny = _scaled(lambda info: 1e-8 if info.tiny < 1e-30 else 1e-4)
_huge = _scaled(lambda info: 1e4 if info.max > 1e30 else 1e3)
_denormal = _scaled(lambda info: float(info.tiny) / 16)
_offset = _floats(lambda one: one + (1024 if torch.finfo(one.dtype).eps < 1e-4 else 16), first_only=True)
"""Mean far above the standard deviation: what a variance by the mean of squares does not survive."""


def _zeros_of(one: torch.Tensor) -> torch.Tensor:
    flat = torch.zeros(one.numel(), dtype=one.dtype)
    flat[1::2] = -0.0
    return flat.view(one.shape)


def _planted(*values: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(one: torch.Tensor) -> torch.Tensor:
        flat = one.reshape(-1).clone()
        for at, value in enumerate(values, 1):
            flat[at * len(flat) // (len(values) + 1)] = value
        return flat.view(one.shape)

    return change


_zeros = _floats(_zeros_of)
_nan = _floats(_planted(float("nan")), first_only=True)
_inf = _floats(_planted(float("inf"), float("-inf")), first_only=True)


def _masked(sample: Sample) -> list[torch.Tensor] | None:
    """A row of which nothing may be seen: of a boolean mask where there is one, else of scores at minus infinity."""
    masks = [at for at, one in enumerate(sample.tensors) if one.dtype == torch.bool and one.dim() and one.numel()]
    scores = [at for at, one in enumerate(sample.tensors) if one.is_floating_point() and one.dim() and one.numel()]
    if not masks and not scores:
        return None
    at, hidden = (masks[0], False) if masks else (scores[0], float("-inf"))
    tensors = list(sample.tensors)
    tensors[at] = tensors[at].clone(memory_format=torch.contiguous_format)
    tensors[at].view(-1, tensors[at].shape[-1])[0] = hidden
    return tensors


def _relaid(change: Callable[[torch.Tensor], torch.Tensor], least_dim: int) -> Change:
    def apply(sample: Sample) -> list[torch.Tensor] | None:
        if not any(one.dim() >= least_dim and one.numel() > 1 for one in sample.tensors):
            return None
        return [change(one) if one.dim() >= least_dim and one.numel() > 1 else one for one in sample.tensors]

    return apply


def _every_second(one: torch.Tensor) -> torch.Tensor:
    wide = torch.empty(*one.shape[:-1], one.shape[-1] * 2, dtype=one.dtype)
    wide[..., 1::2] = 99 if one.dtype != torch.bool else True  # what must not be read
    wide[..., ::2] = one
    return wide[..., ::2]


_strided = _relaid(_every_second, 1)
_transposed = _relaid(lambda one: one.transpose(-1, -2).contiguous().transpose(-1, -2), 2)


def _empty(sample: Sample) -> list[torch.Tensor] | None:
    """No element along the first dimension, in all tensors that share its size."""
    size = next((one.shape[0] for one in sample.tensors if one.dim() and one.shape[0]), None)
    if size is None:
        return None
    return [one[:0] if one.dim() and one.shape[0] == size else one for one in sample.tensors]


def _scalar(sample: Sample) -> list[torch.Tensor] | None:
    if not any(one.dim() for one in sample.tensors) or not all(one.numel() for one in sample.tensors):
        return None
    return [one.reshape(-1)[0].clone() for one in sample.tensors]


def _indices(change: Callable[[torch.Tensor], torch.Tensor]) -> Change:
    """A change of index tensors: integers that stand beside a tensor of another kind."""

    def apply(sample: Sample) -> list[torch.Tensor] | None:
        at = [at for at, one in enumerate(sample.tensors) if one.dtype == torch.int64 and one.numel() > 1]
        if not at or not any(one.is_floating_point() for one in sample.tensors):
            return None
        return [change(one.clone()) if place in at else one for place, one in enumerate(sample.tensors)]

    return apply


_negative_index = _indices(lambda one: -1 - one)
_repeated_index = _indices(lambda one: torch.full_like(one, int(one.reshape(-1)[0])))


def _beyond_int32(sample: Sample) -> list[torch.Tensor] | None:
    if not any(one.dtype == torch.int64 and one.numel() for one in sample.tensors) or any(
        one.is_floating_point() for one in sample.tensors
    ):
        return None
    return [one + 2**31 * torch.where(one < 0, -1, 1) if one.dtype == torch.int64 else one for one in sample.tensors]


