"""Counting rules: what one call of an ATen op computes and moves, from the shapes of its arguments alone.

A rule is a function of the op's own arguments plus ``out``, and returns a :class:`Cost`. Rules are found by the op's
name (``aten.mm``, without overload), backward ops included. Three things happen to an op that has no rule:

* PyTorch tags it pointwise or it is a view: the first moves its tensors once, the second moves nothing;
* it is a composition of other ops: those are counted;
* else it is **unpriced**: its bytes are counted, its FLOPs are unknown, and it is listed.

A user adds a rule with :func:`register`, in the very file that is captured, or in a package that names a module under
the entry point group ``sapper.capture_rules``::

    from sapper.capture.rules import Cost, register

    @register("mylib.fused_swiglu")
    def fused_swiglu(x, gate_up, down, out):
        rows, hidden = x.shape
        return Cost(kind="matmul", flops=6.0 * rows * hidden * down.shape[0], m=rows, n=hidden, k=3 * down.shape[0])

Letters as in :mod:`sapper.workloads.op`; one multiply-add is 2 FLOPs. No rule imports PyTorch.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass

from sapper.workloads.op import AttentionShape, Kind

GROUP = "sapper.capture_rules"
"""Entry points of packages that bring rules of their own."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one call computes and moves."""

    kind: Kind
    flops: float
    """As a fused kernel executes it (a causal mask halves attention)."""
    flops_full: float | None = None
    """With the full square of scores, where it differs."""
    m: int = 0
    n: int = 0
    k: int = 0
    groups: int = 1
    attention: AttentionShape | None = None
    reads: dict[int, float] | None = None
    """Elements read of tensor arguments that are not read whole: position among the tensor arguments -> elements."""
    writes: float | None = None
    """Elements written, where that is not the size of the results (in-place updates of a few rows)."""
    fusible: bool = False
    """A compiler runs it in one kernel with its pointwise neighbours."""
    reduces: bool = False
    """Not pointwise: a norm, a softmax, a sum."""
    expert: bool = False
    """A grouped matmul over routed experts."""


Rule = Callable[..., Cost]
_RULES: dict[str, Rule] = {}


def register(*names: str) -> Callable[[Rule], Rule]:
    """Make the decorated function the rule of the ops ``names``, such as ``aten.mm``; the last one registered holds."""

    def add(rule: Rule) -> Rule:
        for name in names:
            _RULES[name] = rule
        return rule

    return add


def rule_of(name: str) -> Rule | None:
    """The rule of the op ``name``; None where there is none."""
    _load()
    return _RULES.get(name)


def known() -> tuple[str, ...]:
    """Names of all ops with a rule."""
    _load()
    return tuple(sorted(_RULES))


@functools.cache
def _load() -> None:
    given = dict(_RULES)
    from sapper.capture.rules import attention, conv, memory, product, recurrent, table

    assert all((attention, conv, memory, product, recurrent, table))
    for point in importlib.metadata.entry_points(group=GROUP):
        point.load()
    _RULES.update(given)  # what the captured file registered before goes first
