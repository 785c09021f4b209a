"""``torch.autocast`` on the chip: the lists of ops that PyTorch documents for CUDA, for the PrivateUse1 key.

Source of the lists: PyTorch documentation, "Automatic Mixed Precision package", sections "CUDA Ops that can autocast to
float16" and "CUDA Ops that can autocast to float32".
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch.utils._pytree import tree_leaves, tree_map

import torch

LOWER = (
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "chain_matmul", "conv1d", "conv2d", "conv3d", "conv_tbc",
    "conv_transpose1d", "conv_transpose2d.input", "conv_transpose3d.input", "convolution", "einsum", "gru_cell", "linear",
    "linalg_multi_dot", "linalg_vecdot", "lstm_cell", "matmul", "mm", "mv", "prelu", "rnn_relu_cell", "rnn_tanh_cell",
    "scaled_dot_product_attention",
)  # fmt: skip
SINGLE = (
    "acos", "asin", "cdist", "cosh", "cosine_embedding_loss", "cosine_similarity", "cross_entropy_loss", "ctc_loss.IntList",
    "ctc_loss.Tensor", "cumprod", "cumsum", "dist", "erfinv", "exp", "expm1", "group_norm", "hinge_embedding_loss", "huber_loss",
    "kl_div", "l1_loss", "layer_norm", "log", "log10", "log1p", "log2", "log_softmax.int", "margin_ranking_loss", "mse_loss",
    "multi_margin_loss", "multilabel_margin_loss", "nll_loss", "nll_loss2d", "norm.Scalar", "norm.ScalarOpt_dim", "nuclear_norm",
    "poisson_nll_loss", "pow.Scalar", "pow.Tensor_Scalar", "pow.Tensor_Tensor", "prod", "reciprocal", "renorm", "rsqrt", "sinh",
    "smooth_l1_loss", "soft_margin_loss", "softmax.int", "softmin", "softplus", "sum", "sum.dim_IntList", "tan",
    "triplet_margin_loss",
)  # fmt: skip
WIDEST = ("addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "index_put", "scatter_add", "tensordot", "vdot", "cat", "stack")

_KEY = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)
_DEVICE = "PrivateUse1"


def register() -> list[Any]:
    """Register all of them; the libraries must be kept."""
    everything = torch.library.Library("_", "IMPL")
    everything.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    for names, choose in ((LOWER, _lower), (SINGLE, _single), (WIDEST, _widest)):
        for name in names:
            packet, _, overload = name.partition(".")
            func = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
            if func is not None:
                aten.impl(name, functools.partial(_cast, func, choose), "AutocastPrivateUse1")
    return [everything, aten]


def _cast(func: Any, choose: Callable[[list[torch.Tensor]], torch.dtype | None], *args: Any, **kwargs: Any) -> Any:
    mine = torch._C._get_privateuse1_backend_name()
    floats = [
        leaf for leaf in tree_leaves((args, kwargs))
        if isinstance(leaf, torch.Tensor) and leaf.device.type == mine and leaf.dtype.is_floating_point and leaf.dtype != torch.float64
    ]  # fmt: skip
    dtype = choose(floats)
    eligible = {id(leaf) for leaf in floats}

    def cast(leaf: Any) -> Any:
        return leaf.to(dtype) if id(leaf) in eligible else leaf

    with torch._C._ExcludeDispatchKeyGuard(_KEY):
        return func(*(args if dtype is None else tree_map(cast, args)), **(kwargs if dtype is None else tree_map(cast, kwargs)))


def _lower(_: list[torch.Tensor]) -> torch.dtype | None:
    found: torch.dtype = torch.get_autocast_dtype(torch._C._get_privateuse1_backend_name())
    return found


def _single(floats: list[torch.Tensor]) -> torch.dtype | None:
    return torch.float32 if floats else None


def _widest(floats: list[torch.Tensor]) -> torch.dtype | None:
    return torch.float32 if any(one.dtype == torch.float32 for one in floats) else None
