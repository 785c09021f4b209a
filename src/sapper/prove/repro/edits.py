"""Edits that make a suspect simpler: shapes, values, dtypes, attributes. Each is a guess, which a run has to confirm."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from sapper.prove.repro.spell import LITERAL_MOST, SEEDS, seeded
from sapper.prove.suspect import Ref, Step, Suspect, mapped, refs_of

NEIGHBOURS = 3
"""Other calls of the same shapes that run before, to leave state behind."""
SIZES = (1, 2, 3, 4, 8, 16)
"""Sizes that are tried for a dimension, smallest first; then its half and one less."""


def with_inputs(suspect: Suspect, inputs: dict[str, torch.Tensor]) -> Suspect:
    """The same graph on other tensors."""
    return dataclasses.replace(suspect, inputs={**suspect.inputs, **inputs})


def shapes(suspect: Suspect) -> Iterator[Suspect]:
    """Dimensions made shorter: all of one size together, with the sizes that ops name, then one tensor's alone."""
    sizes = sorted({size for one in suspect.inputs.values() for size in one.shape if size > 1}, reverse=True)
    for size in sizes:
        for smaller in _smaller(size):
            for end in (False, True):
                cut = {name: _cut_all(one, size, smaller, end=end) for name, one in suspect.inputs.items()}
                yield dataclasses.replace(with_inputs(suspect, cut), steps=_resized(suspect.steps, size, smaller))
                if _resized(suspect.steps, size, smaller) != suspect.steps:
                    yield with_inputs(suspect, cut)
    for name, one in suspect.inputs.items():
        for dim, size in enumerate(one.shape):
            for smaller in _smaller(size):
                yield with_inputs(suspect, {name: _as_laid_out(one.narrow(dim, 0, smaller), one)})
    for dim in range(2):
        if all(one.dim() > dim and one.shape[dim] == 1 for one in suspect.inputs.values()):
            yield with_inputs(suspect, {name: one.squeeze(dim) for name, one in suspect.inputs.items()})


def _smaller(size: int) -> list[int]:
    return [one for one in dict.fromkeys((*SIZES, size // 2, size - 1)) if 0 < one < size]


def _cut_all(tensor: torch.Tensor, size: int, smaller: int, *, end: bool) -> torch.Tensor:
    whole = tensor
    for dim, own in enumerate(tensor.shape):
        if own == size:
            tensor = tensor.narrow(dim, size - smaller if end else 0, smaller)
    return _as_laid_out(tensor, whole)


def _as_laid_out(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Its dimensions in the order in memory that another's have; as it is where the other has gaps, or values that share a place."""
    order = sorted(range(like.dim()), key=lambda dim: (-like.stride(dim), dim))
    if not like.permute(order).is_contiguous():
        return tensor
    return tensor.permute(order).contiguous().permute([order.index(dim) for dim in range(like.dim())])


def _resized(steps: tuple[Step, ...], size: int, smaller: int) -> tuple[Step, ...]:
    """Sizes in lists of integers, as ``view`` and ``layer_norm`` take them, changed with the tensors."""

    def change(value: Any) -> Any:
        if isinstance(value, (list, tuple)) and value and all(type(one) is int for one in value):
            return type(value)(smaller if one == size else one for one in value)
        if isinstance(value, (list, tuple)):
            return type(value)(change(one) for one in value)
        return value

    def changed(step: Step) -> Step:
        return dataclasses.replace(step, args=change(step.args), kwargs={key: change(value) for key, value in step.kwargs.items()})

    return tuple(map(changed, steps))


def bypasses(suspect: Suspect) -> Iterator[Suspect]:
    """Steps left out, one of their inputs in the place of what they gave: cuts that gradients survive."""
    for at, step in enumerate(suspect.steps):
        for given in dict.fromkeys(refs_of((step.args, step.kwargs))):

            def instead(leaf: Any, name: str = step.name, given: Ref = given) -> Any:
                return given if isinstance(leaf, Ref) and leaf.name == name and leaf.item is None else leaf

            later = [
                dataclasses.replace(one, args=mapped(one.args, instead), kwargs=mapped(one.kwargs, instead))
                for one in suspect.steps[at + 1 :]
            ]
            outputs = tuple(instead(one) for one in suspect.outputs)
            yield dataclasses.replace(suspect, steps=(*suspect.steps[:at], *later), outputs=outputs).pruned()


def lists(suspect: Suspect) -> Iterator[Suspect]:
    """Ops on lists of tensors, as optimizers use them, on one tensor of each list."""
    for at, step in enumerate(suspect.steps):
        count = max((len(one) for one in step.args if _is_list(one)), default=0)
        if count < 2 or any(one.item is None for one in suspect.outputs if one.name == step.name):
            continue
        for keep in dict.fromkeys(one.item for one in suspect.outputs if one.name == step.name):
            assert keep is not None
            if keep < count:
                yield _with_one(suspect, at, keep=keep, count=count)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(one, Ref) for one in value)


def _with_one(suspect: Suspect, at: int, *, keep: int, count: int) -> Suspect:
    """A step on the tensors of one place of its lists, and no output of its others."""
    step = suspect.steps[at]
    args = tuple(type(one)([one[keep]]) if _is_list(one) and len(one) == count else one for one in step.args)
    places = [place for place, one in enumerate(suspect.outputs) if one.name != step.name or one.item == keep]
    outputs = [suspect.outputs[place] for place in places]
    cotangents = tuple(suspect.cotangents[place] for place in places) if suspect.cotangents else ()
    return dataclasses.replace(
        suspect, steps=(*suspect.steps[:at], dataclasses.replace(step, args=args), *suspect.steps[at + 1 :]),
        outputs=tuple(Ref(name=one.name, item=0) if one.name == step.name else one for one in outputs), cotangents=cotangents,
        labels=tuple(suspect.labels[place] for place in places),
    ).pruned()  # fmt: skip


def together(suspect: Suspect) -> Iterator[Suspect]:
    """Shapes and values of what ran before, changed with the suspect's own."""
    if not suspect.before:
        return
    for candidate in (*shapes(dataclasses.replace(suspect, before=())), *values(dataclasses.replace(suspect, before=()))):
        before = [
            dataclasses.replace(one, inputs={name: _other_values(candidate.inputs[name]) for name in one.inputs})
            for one in suspect.before
            if set(one.inputs) <= set(candidate.inputs)
        ]
        yield dataclasses.replace(candidate, before=tuple(before))


def layouts(suspect: Suspect) -> Iterator[Suspect]:
    """Tensors laid out plainly."""
    odd = {name: one.contiguous() for name, one in suspect.inputs.items() if not one.is_contiguous()}
    if odd:
        yield with_inputs(suspect, odd)
    if len(odd) > 1:
        for name, one in odd.items():
            yield with_inputs(suspect, {name: one})


def values(suspect: Suspect) -> Iterator[Suspect]:
    """Values replaced: all tensors at once, each alone, then element by element."""
    for replaced in zip(*(list(_simple(one)) for one in suspect.inputs.values()), strict=False):
        yield with_inputs(suspect, dict(zip(suspect.inputs, replaced, strict=True)))
    for name, one in suspect.inputs.items():
        for simple in _simple(one):
            yield with_inputs(suspect, {name: simple})
    for name, one in suspect.inputs.items():
        if one.numel() <= LITERAL_MOST:
            yield from (with_inputs(suspect, {name: simple}) for simple in _element_wise(one))


def _simple(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Simpler tensors of the same shape, dtype and order in memory, simplest first."""
    for one in _simple_values(tensor) if tensor.numel() else ():
        yield _as_laid_out(one, tensor)


def _simple_values(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    plain = torch.empty(tensor.shape, dtype=tensor.dtype)
    yield torch.zeros_like(plain)
    yield torch.ones_like(plain)
    for value in _telling(tensor):
        yield torch.full_like(plain, value)
    for seed in SEEDS:
        yield seeded(plain, seed)
    if tensor.dtype.is_floating_point:
        with_integers = tensor.round()
        yield with_integers
        for digits in (1, 2):
            yield _rounded(tensor, digits)
    elif not tensor.dtype.is_complex and tensor.dtype != torch.bool:
        yield torch.arange(tensor.numel(), dtype=torch.int64).reshape(tensor.shape).to(tensor.dtype)


def _telling(tensor: torch.Tensor) -> list[Any]:
    """Values of a tensor that may be what matters: those that are not finite, the largest and the smallest."""
    flat = tensor.reshape(-1)
    if tensor.dtype == torch.bool:
        return []
    if tensor.dtype.is_complex:
        return [flat[0].item()]
    wide = flat.double()
    odd: list[Any] = flat[~torch.isfinite(wide)][:1].tolist()
    finite = flat[torch.isfinite(wide)]
    if not finite.numel():
        return odd
    size = finite.double().abs()
    found = [finite[size.argmax()].item(), finite[size.argmin()].item(), finite[0].item()]
    if tensor.dtype.is_floating_point:
        found = [*[_digits(value, 1) for value in found], *found]
    return [*odd, *dict.fromkeys(found)]


def _digits(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _rounded(tensor: torch.Tensor, digits: int) -> torch.Tensor:
    wide = tensor.double()
    scale = torch.pow(10.0, digits - 1 - wide.abs().clamp_min(1e-300).log10().floor())
    return torch.where(torch.isfinite(wide), (wide * scale).round() / scale, wide).to(tensor.dtype)


def _element_wise(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    flat = tensor.reshape(-1)
    for at in range(flat.numel()):
        for value in (0, 1, *_shorter(flat[at].item())):
            changed = flat.clone()
            changed[at] = value
            if not torch.equal(changed, flat):
                yield changed.reshape(tensor.shape)


def _shorter(value: Any) -> list[float]:
    if not isinstance(value, float) or not math.isfinite(value):
        return []
    return [_digits(value, 1), _digits(value, 2), _digits(value, 3)]


def dtypes(suspect: Suspect) -> Iterator[Suspect]:
    """Every floating tensor in fp32, every small integer in int64."""
    for wanted in (torch.float32, torch.int64):
        changed = {name: one.to(wanted) for name, one in suspect.inputs.items() if _narrow(one, wanted)}
        if changed:
            yield with_inputs(suspect, changed)


def _narrow(tensor: torch.Tensor, wanted: torch.dtype) -> bool:
    if wanted == torch.float32:
        return tensor.dtype.is_floating_point and tensor.dtype not in (torch.float32, torch.float64)
    return tensor.dtype in (torch.int8, torch.int16, torch.int32, torch.uint8)


def attributes(suspect: Suspect) -> Iterator[Suspect]:
    """Arguments that are no tensors: left out, at their defaults, or plain numbers; optional tensors left out."""
    for at, step in enumerate(suspect.steps):
        for simpler in _simpler_step(step):
            steps = (*suspect.steps[:at], simpler, *suspect.steps[at + 1 :])
            yield dataclasses.replace(suspect, steps=steps).pruned()


def _simpler_step(step: Step) -> Iterator[Step]:
    schema = step.func._schema.arguments
    for name in step.kwargs:
        yield dataclasses.replace(step, kwargs={key: value for key, value in step.kwargs.items() if key != name})
    if step.args and len(step.args) <= len(schema) and schema[len(step.args) - 1].has_default_value():
        yield dataclasses.replace(step, args=step.args[:-1])
    for at, value in enumerate(step.args):
        if isinstance(value, Ref) and at < len(schema) and str(schema[at].type).startswith("Optional"):
            yield dataclasses.replace(step, args=(*step.args[:at], None, *step.args[at + 1 :]))
        for simple in _simpler_value(value):
            yield dataclasses.replace(step, args=(*step.args[:at], simple, *step.args[at + 1 :]))


def _simpler_value(value: Any) -> Iterator[Any]:
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int):
        yield from (one for one in (0, 1, 2, value // 2) if abs(one) < abs(value))
    elif isinstance(value, float):
        yield from (one for one in (0.0, 1.0, _digits(value, 1) if math.isfinite(value) else 1.0) if one != value)
    elif isinstance(value, (list, tuple)) and value and all(type(one) is int for one in value):
        for plain in (1, 0):
            if any(one not in (0, 1) for one in value):
                yield type(value)(plain for _ in value)
        for at, own in enumerate(value):
            if own not in (0, 1):
                yield type(value)((*value[:at], 1, *value[at + 1 :]))


def other_attributes(suspect: Suspect) -> Iterator[Suspect]:
    """The same graph and tensors with one attribute changed, so that a cache by shapes may mistake it for the suspect."""
    for at, step in enumerate(suspect.steps):
        for place, value in enumerate(step.args):
            for other in _other_value(value):
                changed = dataclasses.replace(step, args=(*step.args[:place], other, *step.args[place + 1 :]))
                yield dataclasses.replace(suspect, steps=(*suspect.steps[:at], changed, *suspect.steps[at + 1 :]))
        for name, value in step.kwargs.items():
            for other in _other_value(value):
                changed = dataclasses.replace(step, kwargs={**step.kwargs, name: other})
                yield dataclasses.replace(suspect, steps=(*suspect.steps[:at], changed, *suspect.steps[at + 1 :]))


def _other_value(value: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value - 1, value + 1)
    elif isinstance(value, float):
        yield value * 2 + 1


def neighbours(suspect: Suspect) -> list[Suspect]:
    """The same graph on other values, and with other attributes: what a cache by shapes would mistake for it.

    Calls with other attributes come first and last, since some caches keep the first call and some the one before; between them is
    one with the suspect's own attributes, for caches that tell these apart.
    """
    values = with_inputs(suspect, {name: _other_values(one) for name, one in suspect.inputs.items()})
    changed = []
    for candidate in other_attributes(values):
        try:
            candidate.forward(candidate.inputs)
        except Exception:  # an attribute that the op refuses
            continue
        changed.append(candidate)
        if len(changed) == NEIGHBOURS - 1:
            break
    return [*changed[:1], values, *changed[1:], *changed[:1]]


def _other_values(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.dtype.is_floating_point:
        return (tensor * 0.5 + 0.25).to(tensor.dtype)
    return tensor.clone()


def complexity(suspect: Suspect) -> tuple[int, int]:
    """Ops and tensor elements, of what ran before included."""
    parts = [*suspect.before, suspect]
    return sum(len(part.steps) for part in parts), sum(one.numel() for part in parts for one in part.inputs.values())
