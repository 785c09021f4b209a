"""Count the matmul, convolution and attention FLOPs of a real Transformers model with the recorder of ``sapper.capture``.

Attention is counted as the library runs it, over the full score square: eager attention multiplies by masks, it never
skips. Routed experts run as ``batched_mm``: each token multiplies with the weights of exactly its ``topk`` experts, so
the count is ``tokens * topk`` whatever the routing, in any dtype. That equals the sum over experts of the tokens that
reach each, which is what a workload counts.

Scans (selective scan, gated delta rule, ...) are elementwise loops or chunked products in the library, in a form that no
device would run. What is executed inside them is kept apart in :attr:`Count.scan_flops`.
"""

from __future__ import annotations

import collections
import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import transformers
from torch._subclasses.fake_tensor import FakeTensorMode

import torch
from sapper.capture.library import model_of, scan_regions
from sapper.capture.trace import Node, Recorder

COUNTED = ("matmul", "attention", "conv")
"""Kinds whose FLOPs a matmul unit runs."""


@dataclass
class Count:
    """What one forward pass of one sequence did, by kind, and what could not be priced."""

    params: int = 0
    """Parameters, tied ones once, buffers not counted."""
    by_kind: collections.Counter[str] = field(default_factory=collections.Counter)
    """FLOPs outside scans: matmul, attention, conv."""
    scan_flops: float = 0.0
    """FLOPs of the same kinds of op inside scan functions."""
    seen: collections.Counter[str] = field(default_factory=collections.Counter)
    """How often each op ran, views left out."""
    unpriced: collections.Counter[str] = field(default_factory=collections.Counter)
    """Ops without a rule."""
    shapes: collections.Counter[tuple[str, tuple[str, ...]]] = field(default_factory=collections.Counter)
    """FLOPs outside scans by op and inputs: where a disagreement is found."""

    @property
    def flops(self) -> float:
        """Matmul, attention and convolution FLOPs outside scans."""
        return float(sum(self.by_kind.values()))

    def explain(self, limit: int = 12) -> str:
        """The largest entries by shape, a line each, for a failing test."""
        return "\n".join(f"{flops:.6g} {name} {shapes}" for (name, shapes), flops in self.shapes.most_common(limit))

    def add(self, node: Node) -> None:
        """Count one op."""
        self.seen[node.op.removeprefix("aten.")] += 1
        if not node.priced:
            self.unpriced[node.op] += 1
        flops = node.cost.flops if node.cost.flops_full is None else node.cost.flops_full
        if node.cost.kind not in COUNTED:
            return
        if node.region is not None:
            self.scan_flops += flops
            return
        self.by_kind[node.cost.kind] += flops
        self.shapes[node.op, tuple(value.text for value in node.reads)] += flops


def count_params(config: transformers.PretrainedConfig) -> int:
    """Parameters of the real model, tied ones once, without memory."""
    with torch.device("meta"):
        return _params(model_of(config, attention_impl="eager"))


def counted(function: Callable[..., Any], *tensors: Any, module: Any = None) -> Count:
    """What ``function(*tensors)`` does."""
    recorder = Recorder(module)
    scans = contextlib.nullcontext() if module is None else scan_regions(module, recorder)
    with scans, recorder, recorder.watching():
        function(*tensors)
    found = Count(params=0 if module is None else _params(module))
    for node in recorder.trace.nodes:
        found.add(node)
    return found


def _params(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def count(
    config: transformers.PretrainedConfig, inputs: dict[str, tuple[int, ...]], *, attention: str = "eager", fake: bool = True,
) -> Count:
    """Trace one forward pass.

    Args:
        config: Configuration with ``architectures``.
        inputs: Shape by argument name; names with ``ids`` become integers, others floats.
        attention: ``eager`` or ``sdpa``.
        fake: On fake tensors, which need no memory; False computes for real on the CPU, which is faster where the model is tiny.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True) if fake else contextlib.nullcontext()
    with mode, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = model_of(config, attention_impl=attention, experts="batched_mm").eval()
        tensors = {
            name: torch.zeros(shape, dtype=torch.long) if "ids" in name else torch.zeros(shape, dtype=model.dtype)
            for name, shape in inputs.items()
        }
        return counted(lambda: model(**tensors, **_no_cache(model)), module=model)


def _no_cache(model: torch.nn.Module) -> dict[str, Any]:
    """``use_cache=False`` where the model knows the word: a cache would only add copies."""
    return {"use_cache": False} if getattr(model.config, "use_cache", None) is not None else {}
