"""Norms, softmax, reductions, losses, copies, factories and optimizer steps: priced by what they move.

Their FLOPs are those of the vector unit and in no model-FLOP count; the numbers per element are those of
:mod:`sapper.workloads.kit`.
"""

from __future__ import annotations

import math
from typing import Any

from sapper.capture.rules import Cost, register
from sapper.workloads.op import Kind


def _tensors(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in _tensors(item)]
    return [value] if hasattr(value, "shape") else []


def _largest(*values: Any) -> float:
    return float(max((math.prod(tensor.shape) for tensor in _tensors(list(values))), default=0))


def _by_size(kind: Kind, per_element: float, *, reduces: bool = False) -> Any:
    def rule(*arguments: Any, out: Any = None, **_: Any) -> Cost:
        return Cost(kind=kind, flops=per_element * _largest(*arguments, out), fusible=True, reduces=reduces)

    return rule


register(
    "aten.native_layer_norm", "aten.native_group_norm", "aten.native_batch_norm", "aten._native_batch_norm_legit",
    "aten._native_batch_norm_legit_no_training", "aten._native_batch_norm_legit_functional", "aten.cudnn_batch_norm",
    "aten._batch_norm_with_update", "aten._batch_norm_with_update_functional", "aten._batch_norm_no_update",
    "aten.native_layer_norm_backward", "aten.native_group_norm_backward", "aten.native_batch_norm_backward",
    "aten.batch_norm_backward", "aten.cudnn_batch_norm_backward", "aten.renorm", "aten.local_response_norm",
)(_by_size("norm", 7.0, reduces=True))  # fmt: skip

register("aten._fused_rms_norm", "aten._fused_rms_norm_backward", "aten.rms_norm")(_by_size("norm", 4.0, reduces=True))

register(
    "aten._softmax", "aten._safe_softmax", "aten._log_softmax", "aten.logsumexp", "aten._softmax_backward_data", "aten._log_softmax_backward_data",
    "aten._masked_softmax", "aten.log_sigmoid_forward", "aten.log_sigmoid_backward",
)(_by_size("elementwise", 5.0, reduces=True))  # fmt: skip

register(
    "aten.sum", "aten.mean", "aten.var", "aten.var_mean", "aten.std", "aten.std_mean", "aten.prod", "aten.amax", "aten.amin", "aten.max",
    "aten.min", "aten.aminmax", "aten.argmax", "aten.argmin", "aten.any", "aten.all", "aten.cumsum", "aten.cumprod", "aten.cummax",
    "aten.cummin", "aten.logcumsumexp", "aten.norm", "aten.linalg_vector_norm", "aten._foreach_norm", "aten.count_nonzero", "aten.nansum",
    "aten.median", "aten.trace",
)(_by_size("elementwise", 1.0, reduces=True))  # fmt: skip

register(
    "aten.nll_loss_forward", "aten.nll_loss_backward", "aten.nll_loss2d_forward", "aten.nll_loss2d_backward", "aten.mse_loss",
    "aten.mse_loss_backward", "aten.smooth_l1_loss", "aten.smooth_l1_loss_backward", "aten.huber_loss", "aten.huber_loss_backward",
    "aten.binary_cross_entropy", "aten.binary_cross_entropy_backward", "aten.binary_cross_entropy_with_logits", "aten.kl_div",
    "aten._ctc_loss", "aten._ctc_loss_backward", "aten.multi_margin_loss", "aten.soft_margin_loss",
)(_by_size("loss", 2.0, reduces=True))  # fmt: skip


@register(
    "aten.zeros", "aten.zeros_like", "aten.ones", "aten.ones_like", "aten.full", "aten.full_like", "aten.arange", "aten.eye",
    "aten.scalar_tensor", "aten.linspace", "aten.logspace", "aten.tril_indices", "aten.triu_indices", "aten.new_zeros", "aten.new_ones",
    "aten.new_full", "aten.rand", "aten.randn", "aten.rand_like", "aten.randn_like", "aten.randint", "aten.randint_like", "aten.randperm",
    "aten.fill", "aten.fill_", "aten.zero_", "aten.uniform_", "aten.normal_", "aten.bernoulli", "aten.bernoulli_", "aten.bernoulli.p",
    "aten.exponential_", "aten.random_", "aten.hann_window", "aten.hamming_window", "aten.multinomial", "aten.normal", "aten.lift_fresh_copy",
)
def factory(*arguments: Any, **_: Any) -> Cost:
    """Writes and reads nothing, whatever it was shaped like."""
    count = len(_tensors(list(arguments)))
    return Cost(kind="elementwise", flops=0.0, fusible=True, reads=dict.fromkeys(range(count), 0.0))


@register("aten.empty", "aten.empty_like", "aten.empty_strided", "aten.empty_permuted", "aten.new_empty", "aten.new_empty_strided",
          "aten.lift_fresh", "aten.resize_", "aten.set_", "aten.is_same_size", "aten._assert_async", "aten._assert_scalar", "aten._local_scalar_dense",
          "aten.item", "aten.equal", "aten.record_stream", "aten._functional_sym_constrain_range", "aten.sym_size", "aten.sym_numel",
          "aten._assert_tensor_metadata", "aten.result_type")  # fmt: skip
def nothing(*arguments: Any, **_: Any) -> Cost:
    """Moves nothing that counts."""
    count = len(_tensors(list(arguments)))
    return Cost(kind="elementwise", flops=0.0, fusible=True, reads=dict.fromkeys(range(count), 0.0), writes=0.0)


register(
    "aten._to_copy", "aten.copy", "aten.copy_", "aten.clone", "aten.contiguous", "aten.cat", "aten.stack", "aten.constant_pad_nd", "aten.repeat",
    "aten.roll", "aten.flip", "aten.masked_fill", "aten.masked_fill_", "aten.slice_scatter", "aten.select_scatter", "aten.slice_backward",
    "aten.select_backward", "aten.diagonal_scatter", "aten.tril", "aten.triu", "aten.tril_", "aten.triu_", "aten.reflection_pad1d",
    "aten.reflection_pad2d", "aten.replication_pad1d", "aten.replication_pad2d", "aten.replication_pad3d", "aten.unfold_backward",
    "aten.unfold_copy", "aten.im2col", "aten.col2im", "aten.native_dropout", "aten.native_dropout_backward", "aten.dropout", "aten.glu",
    "aten.glu_backward", "aten.where", "aten.complex", "aten.view_as_complex_copy", "aten.view_as_real_copy", "aten.polar", "aten.floor_divide",
    "aten._pad_circular", "aten.channel_shuffle", "aten.split_with_sizes_copy", "aten.diag_embed", "aten.rot90", "aten.masked_select",
    "aten.reflection_pad1d_backward", "aten.reflection_pad2d_backward", "aten._prelu_kernel", "aten._prelu_kernel_backward", "aten.rrelu_with_noise",
    "aten.cross", "aten.linalg_cross", "aten.hypot", "aten._fused_moving_avg_obs_fq_helper", "aten.bitwise_and", "aten.as_strided_scatter",
)(_by_size("elementwise", 1.0))  # fmt: skip

register(
    "aten._fused_adamw", "aten._fused_adamw_", "aten._fused_adam", "aten._fused_adam_", "aten._fused_sgd", "aten._fused_sgd_",
    "aten._fused_adagrad", "aten._fused_adagrad_", "aten._amp_foreach_non_finite_check_and_unscale_",
)(_by_size("elementwise", 1.0))  # fmt: skip


def is_foreach(name: str) -> bool:
    """Ops that apply a pointwise op to each tensor of a list."""
    return name.startswith("aten._foreach_")
