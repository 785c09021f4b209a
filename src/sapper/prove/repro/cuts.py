"""Cuts of a suspect's graph: which steps are enough. What a cut-off part had computed becomes an input."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from sapper.prove.suspect import Ref, Step, Suspect, mapped, materialised, refs_of

Shows = Callable[[Suspect], bool]


def cut(suspect: Suspect, shows: Shows) -> Suspect:
    """The fewest steps that still show the defect, by bisection from the end and from the front, then one by one.

    A wrong value stays wrong downstream more often than not, so the first prefix whose last value is wrong ends in the guilty
    step; where that guess fails, the steps are tried one by one.
    """
    if suspect.wrt or len(suspect.steps) < 2:
        return suspect
    found = _shortest_prefix(suspect, shows)
    found = _shortest_suffix(found, shows)
    return _without_single_steps(found, shows)


def _shortest_prefix(suspect: Suspect, shows: Shows) -> Suspect:
    known = suspect.values()
    low, high, best = 0, len(suspect.steps) - 1, suspect
    while low < high:
        middle = (low + high) // 2
        for candidate in prefixes(suspect, middle, known):
            if shows(candidate):
                best, high = candidate, middle
                break
        else:
            low = middle + 1
    return best


def prefixes(suspect: Suspect, last: int, known: Mapping[str, Any]) -> Iterator[Suspect]:
    """The graph up to a step, once for each of its results."""
    step = suspect.steps[last]
    value = known[step.name]
    items = [None] if isinstance(value, torch.Tensor) else [at for at, one in enumerate(value) if isinstance(one, torch.Tensor)]
    for item in items:
        short = dataclasses.replace(
            suspect, steps=suspect.steps[: last + 1], outputs=(Ref(name=step.name, item=item),), labels=("value",), cotangents=()
        )
        yield short.pruned()


def _shortest_suffix(suspect: Suspect, shows: Shows) -> Suspect:
    known = suspect.values()
    low, high, best = 0, len(suspect.steps) - 1, suspect
    while low < high:
        middle = (low + high + 1) // 2
        candidate = suffix(suspect, middle, known)
        if shows(candidate):
            best, low = candidate, middle
        else:
            high = middle - 1
    return best


def suffix(suspect: Suspect, first: int, known: Mapping[str, Any]) -> Suspect:
    """The graph from a step on."""
    return _with_given(suspect, suspect.steps[first:], known)


def _with_given(suspect: Suspect, steps: tuple[Step, ...], known: Mapping[str, Any]) -> Suspect:
    """Only these steps; whatever else they need is an input with the value that the CPU computes."""
    own = {step.name for step in steps}
    inputs = dict(suspect.inputs)
    needed = [ref for ref in (*refs_of([(step.args, step.kwargs) for step in steps]), *suspect.outputs) if ref.name not in own]
    renamed: dict[Ref, Ref] = {}
    for ref in needed:
        if ref.name in inputs or ref in renamed:
            continue
        value = known[ref.name] if ref.item is None else known[ref.name][ref.item]
        if not isinstance(value, torch.Tensor):
            inputs.update({f"{ref.name}_{at}": one for at, one in enumerate(materialised(value))})
            continue
        name = ref.name if ref.item is None else f"{ref.name}_{ref.item}"
        inputs[name] = value.detach()
        renamed[ref] = Ref(name=name)

    def change(leaf: Any) -> Any:
        return renamed.get(leaf, leaf) if isinstance(leaf, Ref) else leaf

    kept = tuple(dataclasses.replace(step, args=mapped(step.args, change), kwargs=mapped(step.kwargs, change)) for step in steps)
    outputs = tuple(renamed.get(ref, ref) for ref in suspect.outputs)
    return dataclasses.replace(suspect, inputs=inputs, steps=kept, outputs=outputs).pruned()


def _without_single_steps(suspect: Suspect, shows: Shows) -> Suspect:
    at = 0
    while at < len(suspect.steps) and len(suspect.steps) > 1:
        if suspect.steps[at].name in {ref.name for ref in suspect.outputs}:
            at += 1
            continue
        candidate = _with_given(suspect, (*suspect.steps[:at], *suspect.steps[at + 1 :]), suspect.values())
        if len(candidate.steps) < len(suspect.steps) and shows(candidate):
            suspect = candidate
        else:
            at += 1
    return suspect


def single_steps(suspect: Suspect) -> list[Suspect]:
    """Each step alone with all its results, on the values that the CPU computes for it."""
    known = suspect.values()
    found = []
    for step in suspect.steps:
        value = known[step.name]
        items = [None] if isinstance(value, torch.Tensor) else [at for at, one in enumerate(value) if isinstance(one, torch.Tensor)]
        outputs = tuple(Ref(name=step.name, item=item) for item in items)
        labels = tuple(f"value {at}" for at in range(len(items)))
        found.append(_with_given(dataclasses.replace(suspect, outputs=outputs, labels=labels, wrt=(), cotangents=()), (step,), known))
    return found
