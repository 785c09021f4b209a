"""Tensor parallelism inside a stage: a module's weights cut over the chips of a group, by the model's own plan or the user's.

Weights stay plain parameters that hold a shard each, so that optimizers, reductions and checkpoints need not know, shards may be
unequal (DTensor's are equal chunks), and any PyTorch does. The names of styles are those of Transformers' ``base_model_tp_plan``.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.nn import functional as F

import torch
from sapper.errors import BadPlan
from sapper.mix.run.cuts import Cut, cut, deal, ends
from sapper.mix.run.exchange import Enter, Group, Join, Leave, Part, summed
from torch import nn

WHOLE = frozenset({"replicate"})
"""Styles that leave a weight as it is."""
_UNCUT = frozenset({"moe_tp_experts", "replicated_with_grad_allreduce"})
"""Styles that cut nothing themselves."""
_OPEN = frozenset({"colwise_gather_output", "rowwise_split_input", "embedding_rowwise"})
"""Styles whose shards meet before anything else is computed, so that they need not be whole heads."""


def own_plan(module: nn.Module) -> dict[str, str]:
    """The plan that a Transformers model brings, by patterns of names in ``module``; empty where it brings none."""
    found = dict(getattr(module, "_tp_plan", None) or {})
    base = getattr(module, "base_model_prefix", "")
    inner = getattr(module, base, None) if base else None
    plan = getattr(getattr(inner if inner is not None else module, "config", None), "base_model_tp_plan", None) or {}
    prefix = f"{base}." if inner is not None else ""
    return found | {f"{prefix}{pattern}": style for pattern, style in plan.items()}


@dataclasses.dataclass(frozen=True)
class _Site:
    """Where a style is applied."""

    name: str
    group: Group
    counts: Sequence[int]
    """Units of each shard."""

    @property
    def shard(self) -> int:
        return int(self.group.rank())

    def widths(self, size: int) -> list[int]:
        at = ends(size, self.counts)
        return [stop - start for start, stop in itertools.pairwise(at)]


def shard(
    module: nn.Module,
    plan: Mapping[str, str],
    *,
    group: Group,
    weights: Sequence[float] | None = None,
    keep: Callable[[str], bool] = lambda name: True,
) -> dict[str, Cut]:
    """Cut ``module`` in place.

    Args:
        module: Whose weights are whole and equal on all ranks of ``group``.
        plan: Pattern of names (``*`` stands for one part of a name) -> style.
        group: Of the shards, in their order.
        weights: Speeds of the shards; None: as even as whole heads allow.
        keep: Whether this stage holds the weight or module of a name; others are left alone.

    Returns:
        What this rank holds, by name of the weight; a weight that is not there is whole.

    Raises:
        BadPlan: A style that is not known, a weight that cannot be cut so, or nothing that the plan names.
    """
    tied = _tied(module)
    cuts: dict[str, Cut] = {}
    named = dict(module.named_modules())
    params = dict(module.named_parameters(remove_duplicate=False))
    hits, shards = 0, int(group.size())
    for pattern, style in plan.items():
        matches = re.compile(re.escape(pattern).replace(r"\*", r"[^.]+")).fullmatch
        for name in [name for name in [*named, *params] if matches(name)]:
            hits += 1
            if not keep(name) or style in WHOLE or tied & {name, f"{name}.weight"}:
                continue
            if style not in _STYLES:
                raise BadPlan("SP-MIX-161", where=name, style=style, known=", ".join(sorted([*_STYLES, *WHOLE])))
            site = _Site(name, group, _units(named, params, name, style=style, shards=shards, weights=weights))
            cuts.update(_STYLES[style](module, site))
    if not hits:
        raise BadPlan("SP-MIX-162", patterns=", ".join(plan) or "-", name=type(module).__name__)
    return cuts


def _units(
    named: Mapping[str, nn.Module],
    params: Mapping[str, nn.Parameter],
    name: str,
    *,
    style: str,
    shards: int,
    weights: Sequence[float] | None,
) -> list[int]:
    """Units of each shard: heads of key and value in an attention, elements elsewhere.

    Raises:
        BadPlan: Fewer units than shards, or dropout in between: its mask would be another than one device's.
    """
    weight = params.get(name, params.get(f"{name}.weight"))
    if weight is None or style in _UNCUT:
        return [1] * shards
    across = -1 if "row" in style and "embedding" not in style else _column_dim(weight)
    size = int(weight.shape[across]) // (2 if style.startswith("packed") else 1)
    owner = named[name.rpartition(".")[0]]
    units = size if style in _OPEN else _heads(owner) or size
    if units < shards or size % units:
        raise BadPlan("SP-MIX-163", where=name, units=units, size=size, shards=shards)
    if style not in _OPEN and (rate := _dropout(owner)):
        raise BadPlan("SP-MIX-164", where=name, dropout=rate)
    return deal(units, shards, weights=weights)


def _heads(owner: nn.Module) -> int | None:
    if "attention" not in type(owner).__name__.lower():
        return None
    config = getattr(owner, "config", None)
    return getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None)


def _dropout(owner: nn.Module) -> float:
    """The rate of what ``owner`` drops itself."""
    own = getattr(owner, "attention_dropout", 0.0)
    rates = [own if isinstance(own, float) else 0.0, *(one.p for one in owner.children() if isinstance(one, nn.Dropout))]
    return float(max(rates))


def _column_dim(weight: torch.Tensor) -> int:
    return 0 if weight.ndim < 3 else -2


def _tied(module: nn.Module) -> set[str]:
    """Names of weights that bear several."""
    names: dict[int, list[str]] = {}
    for name, one in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(one), []).append(name)
    return {name for all_ in names.values() if len(all_) > 1 for name in all_}


def _take(module: nn.Module, name: str, held: Cut) -> dict[str, Cut]:
    """Let the weight ``name`` hold its shard."""
    owner_name, _, attribute = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    whole: nn.Parameter = getattr(owner, attribute)
    local = torch.cat([whole.detach().narrow(held.dim, start, stop - start) for start, stop in held.ranges], dim=held.dim)
    setattr(owner, attribute, nn.Parameter(local.clone(), requires_grad=whole.requires_grad))
    return {name: held}


def _columns(module: nn.Module, site: _Site, *, packed: int = 1, gather: bool = False) -> dict[str, Cut]:
    """The outputs are cut."""
    found: dict[str, Cut] = {}
    one = _at(module, site.name)
    if isinstance(one, nn.Parameter):
        held = cut(one.shape, _column_dim(one), counts=site.counts, shard=site.shard, packed=packed)
        return _take(module, site.name, held)
    size = _linear(one, site.name).weight.shape[0]
    for attribute in ("weight", "bias"):
        if getattr(one, attribute, None) is not None:
            shape = getattr(one, attribute).shape
            held = cut(shape, 0, counts=site.counts, shard=site.shard, packed=packed)
            found |= _take(module, f"{site.name}.{attribute}", held)
    one.register_forward_pre_hook(functools.partial(_enter_first, group=site.group))
    if gather:
        widths = site.widths(size)
        one.register_forward_hook(lambda _, args, result: Join.apply(result, widths, site.group))
    return found


def _rows(module: nn.Module, site: _Site, *, packed: int = 1, split_input: bool = False) -> dict[str, Cut]:
    """The inputs are cut, the outputs summed; a bias is added once, after the sum."""
    one = _at(module, site.name)
    if isinstance(one, nn.Parameter):
        return _take(module, site.name, cut(one.shape, -1, counts=site.counts, shard=site.shard, packed=packed))
    linear = _linear(one, site.name)
    widths = site.widths(linear.weight.shape[1])
    found = _take(module, f"{site.name}.weight", cut(linear.weight.shape, 1, counts=site.counts, shard=site.shard, packed=packed))

    def forward(one: torch.Tensor) -> torch.Tensor:
        local = Part.apply(one, widths, site.group) if split_input else one
        summed: torch.Tensor = Leave.apply(F.linear(local, linear.weight), site.group)
        return summed if linear.bias is None else summed + linear.bias

    linear.forward = forward
    return found


def _embedding(module: nn.Module, site: _Site) -> dict[str, Cut]:
    """The vocabulary is cut: each shard looks up what it holds."""
    one = _at(module, site.name)
    assert isinstance(one, nn.Embedding)
    held = cut(one.weight.shape, 0, counts=site.counts, shard=site.shard)
    found = _take(module, f"{site.name}.weight", held)
    ((start, stop),) = held.ranges
    pad = one.padding_idx  # the row that learns nothing
    pad = pad - start if pad is not None and start <= pad < stop else None

    def forward(ids: torch.Tensor) -> torch.Tensor:
        here = (ids >= start) & (ids < stop)
        local = F.embedding(torch.where(here, ids - start, 0), one.weight, padding_idx=pad)
        local = local * here.unsqueeze(-1).to(local.dtype)
        return Leave.apply(local, site.group)

    one.forward = forward
    return found


def _experts(module: nn.Module, site: _Site) -> dict[str, Cut]:
    """A module whose own weights are cut: what enters is whole, its results are summed."""
    one = module.get_submodule(site.name)

    def enter(_: nn.Module, args: Any, kwargs: Any) -> Any:
        return tuple(_entered(arg, site.group) for arg in args), {name: _entered(arg, site.group) for name, arg in kwargs.items()}

    one.register_forward_pre_hook(enter, with_kwargs=True)
    one.register_forward_hook(lambda _, args, result: Leave.apply(result, site.group))
    return {}


def _partial(module: nn.Module, site: _Site) -> dict[str, Cut]:
    """Whole weights that each shard uses on its own part: their gradients are parts of a sum."""
    one = _at(module, site.name)
    for weight in [one] if isinstance(one, nn.Parameter) else one.parameters():
        weight.register_hook(functools.partial(summed, group=site.group))
    return {}


def _enter_first(_: nn.Module, args: Any, *, group: Group) -> Any:
    return (_entered(args[0], group), *args[1:])


def _entered(one: Any, group: Group) -> Any:
    return Enter.apply(one, group) if isinstance(one, torch.Tensor) and one.is_floating_point() else one


def _at(module: nn.Module, name: str) -> nn.Module | nn.Parameter:
    owner, _, attribute = name.rpartition(".")
    return getattr(module.get_submodule(owner), attribute)


def _linear(one: nn.Module, name: str) -> nn.Linear:
    if not isinstance(one, nn.Linear):
        raise BadPlan("SP-MIX-165", where=name, name=type(one).__name__)
    return one


_STYLES: dict[str, Callable[[nn.Module, _Site], dict[str, Cut]]] = {
    "colwise": _columns,
    "colwise_gather_output": functools.partial(_columns, gather=True),
    "packed_colwise": functools.partial(_columns, packed=2),
    "rowwise": _rows,
    "rowwise_split_input": functools.partial(_rows, split_input=True),
    "packed_rowwise": functools.partial(_rows, packed=2),
    "embedding_rowwise": _embedding,
    "moe_tp_experts": _experts,
    "replicated_with_grad_allreduce": _partial,
}

