"""Count the matmul, convolution and attention FLOPs of a real Transformers model, as a rule on fake tensors.

A dispatch mode of our own sees every aten op of one forward pass. Each op is one of three: it has a formula in
``FORMULAS`` (priced), it is known to do no multiply-add worth counting (pointwise, views, reductions, copies: ``FREE``
or tagged so by PyTorch), or it is neither and lands in :attr:`Count.unpriced`, which tests assert to be empty. PyTorch's
own flop counter gives unknown ops zero and says nothing, hence this one.

Shapes: B = sequences (always 1 here), T = tokens, M,N,K = matmul dims. One multiply-add is 2 FLOPs. Attention is counted
as the library runs it, over the full score square: eager attention multiplies by masks, it never skips.

Routed experts run as ``batched_mm``: each token multiplies with the weights of exactly its ``topk`` experts, so the
count is ``tokens * topk`` whatever the routing, and it has no data-dependent shapes. That equals the sum over experts
of the tokens that reach each, which is what a workload counts.

Scans (selective scan, gated delta rule, ...) are elementwise loops or chunked products in the library, in a form that no
device would run. What is executed inside them is kept apart in :attr:`Count.scan_flops`.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import importlib
import math
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import transformers
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import torch

aten = torch.ops.aten


def _matmul(a: Any, b: Any, *_: Any, **__: Any) -> float:
    """``[..., M, K] @ [..., K, N]`` (mm, bmm): 2 M N K per matrix of ``a``."""
    return 2.0 * math.prod(a.shape) * b.shape[-1]


def _addmm(_: Any, a: Any, b: Any, *__: Any, **___: Any) -> float:
    return _matmul(a, b)


def _matvec(a: Any, b: Any, *_: Any, **__: Any) -> float:
    return 2.0 * math.prod(a.shape)


def _addmv(_: Any, a: Any, b: Any, *__: Any, **___: Any) -> float:
    return _matvec(a, b)


def _grouped(a: Any, b: Any, offs: Any = None, *_: Any, **__: Any) -> float:
    """Rows of ``a`` [M, K], sorted by group, each times the matrix of its group in ``b`` [G, K, N]."""
    return 2.0 * a.shape[-2] * a.shape[-1] * b.shape[-1]


def _convolution(
    x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *_: Any, out: Any, **__: Any,
) -> float:
    """2 per tap: weight [C_out, C_in/groups, *kernel] is applied at every output place (input place when transposed)."""
    places = math.prod((x if transposed else out).shape[2:]) * x.shape[0]
    return 2.0 * places * math.prod(weight.shape)


def _sdpa(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> float:
    """q [B, H, Tq, E], k [B, H', Tk, E], v [B, H', Tk, Ev]: scores and weighted sum over the full square."""
    batch, heads, q_len, qk_dim = q.shape
    return 2.0 * batch * heads * q_len * k.shape[-2] * (qk_dim + v.shape[-1])


def _triangular(a: Any, b: Any, *_: Any, **__: Any) -> float:
    """Solve with a triangular ``a`` [..., N, N] for ``b`` [..., N, K]: N^2 K, half of a full product."""
    return float(a.shape[-1]) * math.prod(b.shape)


def _ops(*names: str) -> list[Any]:
    """The op packets among ``names`` that this PyTorch has."""
    return [getattr(aten, name) for name in names if hasattr(aten, name)]


FORMULAS: dict[Any, tuple[str, Callable[..., float]]] = {}
"""Op packet -> (kind, formula of its inputs)."""
for _packet in _ops("mm", "bmm", "_scaled_mm", "matmul", "linear", "_int_mm"):
    FORMULAS[_packet] = ("matmul", _matmul)
FORMULAS[aten.linear] = ("matmul", lambda x, w, *_, **__: _matmul(x, w.t()))
for _packet in _ops("addmm", "baddbmm", "addbmm"):
    FORMULAS[_packet] = ("matmul", _addmm)
for _packet in _ops("mv", "dot", "vdot"):
    FORMULAS[_packet] = ("matmul", _matvec)
FORMULAS[aten.addmv] = ("matmul", _addmv)
for _packet in _ops("_grouped_mm", "_scaled_grouped_mm"):
    FORMULAS[_packet] = ("matmul", _grouped)
for _packet in _ops("linalg_solve_triangular", "triangular_solve"):
    FORMULAS[_packet] = ("matmul", _triangular)
for _packet in _ops(
    "scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable", "_scaled_dot_product_attention_math",
    "_scaled_dot_product_attention_math_for_mps",
):
    FORMULAS[_packet] = ("attention", _sdpa)
for _packet in _ops("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution", "convolution_overrideable"):
    FORMULAS[_packet] = ("conv", _convolution)

FREE = re.compile(
    r"""^(?:
      empty|empty_like|empty_strided|empty_permuted|new_empty|new_empty_strided|new_zeros|new_ones|new_full|zeros|zeros_like
    | ones|ones_like|full|full_like|arange|eye|scalar_tensor|linspace|tril_indices|lift_fresh|tril|triu
    | _to_copy|copy|clone|contiguous|cat|stack|_reshape_alias|constant_pad_nd|repeat|roll|flip|_unsafe_view|resize
    | index|index_put|index_select|gather|scatter|scatter_add|scatter_reduce|index_add|index_copy|masked_fill|masked_scatter
    | slice_scatter|select_scatter|embedding|one_hot|searchsorted|bucketize|topk|sort|argsort|histc|bincount|unfold
    | sum|mean|var|var_mean|std|prod|amax|amin|max|min|argmax|argmin|any|all|cumsum|cumprod|logsumexp|norm|linalg_vector_norm
    | _softmax|_log_softmax|native_layer_norm|native_group_norm|native_batch_norm|_native_batch_norm_legit|_fused_rms_norm
    | _native_batch_norm_legit_no_training|rms_norm|dropout|native_dropout|bernoulli|uniform|normal|randn|rand|rand_like
    | _local_scalar_dense|is_same_size|_assert_async|_assert_scalar|detach|alias|lift|equal|item|upsample_bicubic2d|_pad_circular
    | where|_fused_moving_avg_obs_fq_helper|segment_reduce|bitwise_and|polar|floor_divide|set|_resize_output|glu
    )_?$""",
    re.VERBOSE,
)
"""Ops without multiply-adds that a matmul unit would run: factories, copies, gathers, reductions, norms."""


@dataclass
class Count:
    """What one forward pass of one sequence did, by kind, and what could not be priced."""

    params: int = 0
    """Parameters, tied ones once, buffers not counted."""
    by_kind: collections.Counter[str] = field(default_factory=collections.Counter)
    """FLOPs outside scans: matmul, attention, conv."""
    by_op: collections.Counter[str] = field(default_factory=collections.Counter)
    """FLOPs outside scans, by aten op."""
    scan_flops: float = 0.0
    """FLOPs of the same kinds of op inside scan functions."""
    seen: collections.Counter[str] = field(default_factory=collections.Counter)
    """How often each aten op ran."""
    unpriced: collections.Counter[str] = field(default_factory=collections.Counter)
    """Ops that have neither a formula nor a place among the free ones."""
    shapes: collections.Counter[tuple[str, tuple[tuple[int, ...], ...]]] = field(default_factory=collections.Counter)
    """FLOPs outside scans by op and input shapes: where a disagreement is found."""

    @property
    def flops(self) -> float:
        """Matmul, attention and convolution FLOPs outside scans."""
        return float(sum(self.by_kind.values()))

    def explain(self, limit: int = 12) -> str:
        """The largest entries by shape, a line each, for a failing test."""
        lines = [f"{flops:.6g} {name} {shapes}" for (name, shapes), flops in self.shapes.most_common(limit)]
        return "\n".join(lines)


class Recorder(TorchDispatchMode):
    """Records every aten op into a :class:`Count`."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Count()
        self.in_scan = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "aten" and func.overloadpacket not in FORMULAS and not _is_free(func) and func._can_decompose():
            # Composite ops (einsum, ...) reach a mode whole under some dispatch keys: count what they are made of.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        out = func(*args, **kwargs)
        self._record(func, args, kwargs, out)
        return out

    def _record(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        name = func.overloadpacket.__name__
        self.count.seen[name] += 1
        entry = FORMULAS.get(func.overloadpacket)
        if entry is None:
            if not _is_free(func):
                self.count.unpriced[str(func)] += 1
            return
        kind, formula = entry
        flops = formula(*args, **kwargs, out=out)
        if self.in_scan:
            self.count.scan_flops += flops
            return
        self.count.by_kind[kind] += flops
        self.count.by_op[name] += flops
        shapes = tuple(tuple(arg.shape) for arg in args if isinstance(arg, torch.Tensor))
        self.count.shapes[name, shapes] += flops


@functools.cache
def _is_free(func: Any) -> bool:
    """Pointwise, a view, or listed: no work for a matmul unit."""
    if func.namespace in ("prim", "prims", "profiler"):
        return True
    if torch.Tag.pointwise in func.tags or func.is_view:
        return True
    return func.namespace == "aten" and FREE.match(func.overloadpacket.__name__) is not None


SCANS = re.compile(r"selective_scan|chunk_scan|selective_state_update|delta_rule|delta_attention")
"""Names of the library's scan functions."""


@contextlib.contextmanager
def _scan_scope(model: torch.nn.Module, recorder: Recorder) -> Iterator[None]:
    """While it lasts, the scan functions of the modules that ``model`` came from mark what they run as scan work."""

    def marked(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            recorder.in_scan += 1
            try:
                return function(*args, **kwargs)
            finally:
                recorder.in_scan -= 1

        return run

    undo: list[tuple[Any, str, Any]] = []
    for owner in {type(module) for module in model.modules()}:
        if hasattr(owner, "_rnn_scan"):
            undo.append((owner, "_rnn_scan", owner._rnn_scan))
    for path in {type(module).__module__ for module in model.modules() if type(module).__module__.startswith("transformers.models.")}:
        module = importlib.import_module(path)
        undo += [(module, name, value) for name, value in vars(module).items() if SCANS.search(name) and callable(value)]
    for owner, name, value in undo:
        setattr(owner, name, marked(value))
    try:
        yield
    finally:
        for owner, name, value in undo:
            setattr(owner, name, value)


def model_class(config: transformers.PretrainedConfig) -> type[transformers.PreTrainedModel]:
    """The class named by ``config.architectures``, which decides the heads that a model has."""
    found: type[transformers.PreTrainedModel] = getattr(transformers, config.architectures[0])
    return found


def build(config: transformers.PretrainedConfig, *, attention: str = "eager") -> torch.nn.Module:
    """The real model on the device in force (``meta`` or fake), in evaluation mode, without initialising weights."""
    from transformers.initialization import no_init_weights

    options: dict[str, Any] = {"attn_implementation": attention}
    if model_class(config)._can_set_experts_implementation():
        options["experts_implementation"] = "batched_mm"
    with no_init_weights(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model_class(config)._from_config(config, **options).eval()


def count_params(config: transformers.PretrainedConfig) -> int:
    """Parameters of the real model, tied ones once, buffers not counted; on the meta device."""
    with torch.device("meta"):
        return _params(build(config))


def _params(model: torch.nn.Module) -> int:
    model.tie_weights()
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
        model = build(config, attention=attention)
        tensors = {
            name: torch.zeros(shape, dtype=torch.long) if "ids" in name else torch.zeros(shape, dtype=model.dtype)
            for name, shape in inputs.items()
        }
        recorder = Recorder()
        recorder.count.params = _params(model)
        with _scan_scope(model, recorder), recorder:
            model(**tensors, **_no_cache(model))
    return recorder.count


def _no_cache(model: torch.nn.Module) -> dict[str, Any]:
    """``use_cache=False`` where the model knows the word: a cache would only add copies."""
    return {"use_cache": False} if getattr(model.config, "use_cache", None) is not None else {}
