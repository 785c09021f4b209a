"""Tensor parallelism inside a stage: a module's weights cut over the chips of a group, by the model's own plan or the user's.

Weights stay plain parameters that hold a shard each, so that optimizers, reductions and checkpoints need not know, shards may be
unequal (DTensor's are equal chunks), and any PyTorch does. The names of styles are those of Transformers' ``base_model_tp_plan``.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch.nn import functional as F

import torch
from sapper.errors import BadPlan
from sapper.mix.run.cuts import Cut, Rule
from sapper.mix.run.exchange import Enter, Group, Join, Leave, Part, summed
from torch import nn

WHOLE = "replicate"
"""The style that leaves a weight as it is."""
_UNCUT = frozenset({"moe_tp_experts", "replicated_with_grad_allreduce"})
"""Styles that cut nothing themselves."""
_OPEN = frozenset({"colwise_gather_output", "rowwise_split_input", "embedding_rowwise"})
"""Styles whose shards meet before anything else is computed, so that they need not be whole heads."""

Keep = Callable[[str], bool]
"""Whether a stage holds the weight of a name."""


def own_plan(module: nn.Module) -> dict[str, str]:
    """The plan that a Transformers model brings, by patterns of names in ``module``; empty where it brings none."""
    found = dict(getattr(module, "_tp_plan", None) or {})
    base = getattr(module, "base_model_prefix", "")
    inner = getattr(module, base, None) if base else None
    plan = getattr(getattr(inner if inner is not None else module, "config", None), "base_model_tp_plan", None) or {}
    prefix = f"{base}." if inner is not None else ""
    return found | {f"{prefix}{pattern}": style for pattern, style in plan.items()}


def rules(module: nn.Module, plan: Mapping[str, str], *, keep: Keep = lambda name: True) -> dict[str, Rule]:
    """How the weights of ``module``, which are whole, are cut by ``plan`` wherever they are cut; the others are whole everywhere.

    Raises:
        BadPlan: See :func:`shard`.
    """
    found: dict[str, Rule] = {}
    for name, style in _sites(module, plan, keep):
        found |= _rules(module, name, style)
    return found


def shard(
    module: nn.Module, plan: Mapping[str, str], *, group: Group, keep: Keep = lambda name: True, weights: Sequence[float] | None = None
) -> dict[str, Cut]:  # fmt: skip
    """Cut ``module`` in place.

    Args:
        module: Whose weights are whole and equal on all ranks of ``group``.
        plan: Pattern of names (``*`` stands for one part of a name) -> style.
        group: Of the shards, in their order.
        keep: Whether this stage holds the weight of a name; others are left alone.
        weights: Speeds of the shards; None: as even as whole heads allow.

    Returns:
        What this rank holds, by name of the weight; a weight that is not there is whole.

    Raises:
        BadPlan: A style that is not known, a weight that cannot be cut so, or nothing that the plan names.
    """
    shards, own = int(group.size()), int(group.rank())
    cuts: dict[str, Cut] = {}
    for name, style in _sites(module, plan, keep):
        found = _rules(module, name, style)
        _check(module, name, style=style, rules=found, shards=shards)
        for weight, rule in found.items():
            cuts[weight] = rule.cut(shards, own, weights=weights)
            _take(module, weight, cuts[weight])
        widths = [] if style not in _OPEN else _widths(next(iter(found.values())), shards, weights)
        _EDGES[style](_Site(module, name, group, widths, cuts))
    return cuts


@dataclasses.dataclass(frozen=True)
class _Site:
    """Where a style is applied."""

    module: nn.Module
    name: str
    group: Group
    widths: Sequence[int]
    """Of what each shard has of the features that are gathered or split."""
    cuts: Mapping[str, Cut]

    @property
    def here(self) -> Any:
        """The module or weight of the name."""
        owner, _, attribute = self.name.rpartition(".")
        return getattr(self.module.get_submodule(owner), attribute)


def _sites(module: nn.Module, plan: Mapping[str, str], keep: Keep) -> Iterator[tuple[str, str]]:
    """Names and styles of what is cut, entered or left; weights that bear several names stay whole."""
    tied = _tied(module)
    weights = [name for name, _ in module.named_parameters(remove_duplicate=False)]
    names = [*(name for name, _ in module.named_modules()), *weights]
    hits = 0
    for pattern, style in plan.items():
        matches = re.compile(re.escape(pattern).replace(r"\*", r"[^.]+")).fullmatch
        for name in filter(matches, names):
            hits += 1
            inside = [weight for weight in weights if weight == name or weight.startswith(f"{name}.")]
            if style == WHOLE or tied & set(inside) or not all(map(keep, inside)):
                continue
            if style not in _EDGES:
                raise BadPlan("SP-MIX-161", where=name, style=style, known=", ".join(sorted([*_EDGES, WHOLE])))
            yield name, style
    if not plan:
        raise BadPlan("SP-MIX-168", name=type(module).__name__)
    if not hits:
        raise BadPlan("SP-MIX-162", patterns=", ".join(plan), name=type(module).__name__)


def _tied(module: nn.Module) -> set[str]:
    """Names of weights that bear several."""
    names: dict[int, list[str]] = {}
    for name, one in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(one), []).append(name)
    return {name for all_ in names.values() if len(all_) > 1 for name in all_}


def _rules(module: nn.Module, name: str, style: str) -> dict[str, Rule]:
    """Of the weights that ``style`` cuts at ``name``."""
    if style in _UNCUT:
        return {}
    owner_name, _, attribute = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    one = getattr(owner, attribute)
    packed = 2 if style.startswith("packed") else 1
    columns = "row" not in style or style == "embedding_rowwise"
    if isinstance(one, nn.Parameter):
        weights = {name: one}
    elif isinstance(one, nn.Embedding if style == "embedding_rowwise" else nn.Linear):
        names = ("weight", "bias") if columns else ("weight",)
        weights = {f"{name}.{part}": getattr(one, part) for part in names if getattr(one, part, None) is not None}
    else:
        raise BadPlan("SP-MIX-165", where=name, name=type(one).__name__)
    found = {}
    for weight, value in weights.items():
        dim = (0 if value.ndim < 3 else value.ndim - 2) if columns else value.ndim - 1
        size = int(value.shape[dim]) // packed
        found[weight] = Rule(dim, size if style in _OPEN else _heads(owner) or size, tuple(value.shape), packed)
    return found


def _heads(owner: nn.Module) -> int | None:
    """Heads of key and value: no two chips share one."""
    if "attention" not in type(owner).__name__.lower():
        return None
    config = getattr(owner, "config", None)
    return getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None)


def _check(module: nn.Module, name: str, *, style: str, rules: Mapping[str, Rule], shards: int) -> None:
    """Refuse fewer units than shards, and dropout in between: its mask would be another than one device's."""
    for rule in rules.values():
        size = rule.shape[rule.dim] // rule.packed
        if rule.units < shards or size % rule.units:
            raise BadPlan("SP-MIX-163", where=name, units=rule.units, size=size, shards=shards)
    owner = module.get_submodule(name.rpartition(".")[0])
    own = getattr(owner, "attention_dropout", 0.0)
    rate = max([own if isinstance(own, float) else 0.0, *(one.p for one in owner.children() if isinstance(one, nn.Dropout))])
    if rate and rules and style not in _OPEN:
        raise BadPlan("SP-MIX-164", where=name, dropout=rate)


def _widths(rule: Rule, shards: int, weights: Sequence[float] | None) -> list[int]:
    return [rule.cut(shards, one, weights=weights).local_shape[rule.dim] for one in range(shards)]


def _take(module: nn.Module, name: str, held: Cut) -> None:
    """Let the weight ``name`` hold its shard."""
    owner_name, _, attribute = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    whole: nn.Parameter = getattr(owner, attribute)
    local = torch.cat([whole.detach().narrow(held.dim, start, stop - start) for start, stop in held.ranges], dim=held.dim)
    setattr(owner, attribute, nn.Parameter(local.clone(), requires_grad=whole.requires_grad))


def _columns(site: _Site, *, gather: bool = False) -> None:
    """The outputs are cut."""
    one = site.here
    if isinstance(one, nn.Parameter):
        return
    one.register_forward_pre_hook(lambda _, args: (_entered(args[0], site.group), *args[1:]))
    if gather:
        one.register_forward_hook(lambda _, args, result: Join.apply(result, site.widths, site.group))


def _rows(site: _Site, *, split_input: bool = False) -> None:
    """The inputs are cut, the outputs summed; a bias is added once, after the sum."""
    linear = site.here
    if isinstance(linear, nn.Parameter):
        return

    def forward(one: torch.Tensor) -> torch.Tensor:
        local = Part.apply(one, site.widths, site.group) if split_input else one
        whole: torch.Tensor = Leave.apply(F.linear(local, linear.weight), site.group)
        return whole if linear.bias is None else whole + linear.bias

    linear.forward = forward


def _embedding(site: _Site) -> None:
    """The vocabulary is cut: each shard looks up what it holds."""
    one = site.here
    ((start, stop),) = site.cuts[f"{site.name}.weight"].ranges
    pad = one.padding_idx  # the row that learns nothing
    pad = pad - start if pad is not None and start <= pad < stop else None

    def forward(ids: torch.Tensor) -> torch.Tensor:
        here = (ids >= start) & (ids < stop)
        local = F.embedding(torch.where(here, ids - start, 0), one.weight, padding_idx=pad)
        local = local * here.unsqueeze(-1).to(local.dtype)
        whole: torch.Tensor = Leave.apply(local, site.group)
        return whole

    one.forward = forward


def _experts(site: _Site) -> None:
    """A module whose own weights are cut: what enters is whole, its results are summed."""
    group = site.group

    def enter(_: nn.Module, args: Any, kwargs: Any) -> Any:
        return tuple(_entered(arg, group) for arg in args), {name: _entered(arg, group) for name, arg in kwargs.items()}

    site.here.register_forward_pre_hook(enter, with_kwargs=True)
    site.here.register_forward_hook(lambda _, args, result: Leave.apply(result, group))


def _partial(site: _Site) -> None:
    """Whole weights that each shard uses on its own part: their gradients are parts of a sum."""
    one = site.here
    for weight in [one] if isinstance(one, nn.Parameter) else one.parameters():
        weight.register_hook(functools.partial(summed, group=site.group))


def _entered(one: Any, group: Group) -> Any:
    return Enter.apply(one, group) if isinstance(one, torch.Tensor) and one.is_floating_point() else one


_EDGES: dict[str, Callable[[_Site], None]] = {
    "colwise": _columns,
    "colwise_gather_output": functools.partial(_columns, gather=True),
    "packed_colwise": _columns,
    "rowwise": _rows,
    "rowwise_split_input": functools.partial(_rows, split_input=True),
    "packed_rowwise": _rows,
    "embedding_rowwise": _embedding,
    "moe_tp_experts": _experts,
    "replicated_with_grad_allreduce": _partial,
}
"""Style -> what happens where its region begins and ends."""
