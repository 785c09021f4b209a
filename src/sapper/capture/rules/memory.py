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


def _aten(names: str) -> list[str]:
    return [f"aten.{name}" for name in names.split()]


def _by_size(kind: Kind, per_element: float, *, reduces: bool = False) -> Any:
    def rule(*arguments: Any, out: Any = None, **_: Any) -> Cost:
        return Cost(kind=kind, flops=per_element * _largest(*arguments, out), fusible=True, reduces=reduces)

    return rule


register(
    *_aten("""
    native_layer_norm native_group_norm native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training
    _native_batch_norm_legit_functional cudnn_batch_norm _batch_norm_with_update _batch_norm_with_update_functional
    _batch_norm_no_update native_layer_norm_backward native_group_norm_backward native_batch_norm_backward batch_norm_backward
    cudnn_batch_norm_backward renorm local_response_norm
    """)
)(_by_size("norm", 7.0, reduces=True))

register("aten._fused_rms_norm", "aten._fused_rms_norm_backward", "aten.rms_norm")(_by_size("norm", 4.0, reduces=True))

register(
    *_aten("""
    _softmax _safe_softmax _log_softmax logsumexp _softmax_backward_data _log_softmax_backward_data _masked_softmax
    log_sigmoid_forward log_sigmoid_backward
    """)
)(_by_size("elementwise", 5.0, reduces=True))

register(
    *_aten("""
    sum mean var var_mean std std_mean prod amax amin max min aminmax argmax argmin any all cumsum cumprod cummax cummin
    logcumsumexp norm linalg_vector_norm _foreach_norm count_nonzero nansum median trace
    """)
)(_by_size("elementwise", 1.0, reduces=True))

register(
    *_aten("""
    nll_loss_forward nll_loss_backward nll_loss2d_forward nll_loss2d_backward mse_loss mse_loss_backward smooth_l1_loss
    smooth_l1_loss_backward huber_loss huber_loss_backward binary_cross_entropy binary_cross_entropy_backward
    binary_cross_entropy_with_logits kl_div _ctc_loss _ctc_loss_backward multi_margin_loss soft_margin_loss
    """)
)(_by_size("loss", 2.0, reduces=True))


@register(
    *_aten("""
    zeros zeros_like ones ones_like full full_like arange eye scalar_tensor linspace logspace tril_indices triu_indices
    new_zeros new_ones new_full rand randn rand_like randn_like randint randint_like randperm fill fill_ zero_ uniform_ normal_
    bernoulli bernoulli_ bernoulli.p exponential_ random_ hann_window hamming_window multinomial normal lift_fresh_copy
    """)
)
def factory(*arguments: Any, **_: Any) -> Cost:
    """Writes and reads nothing, whatever it was shaped like."""
    count = len(_tensors(list(arguments)))
    return Cost(kind="elementwise", flops=0.0, fusible=True, reads=dict.fromkeys(range(count), 0.0))


@register(
    *_aten("""
    empty empty_like empty_strided empty_permuted new_empty new_empty_strided lift_fresh resize_ set_ is_same_size _assert_async
    _assert_scalar _local_scalar_dense item equal record_stream _functional_sym_constrain_range sym_size sym_numel
    _assert_tensor_metadata result_type
    """)
)
def nothing(*arguments: Any, **_: Any) -> Cost:
    """Moves nothing that counts."""
    count = len(_tensors(list(arguments)))
    return Cost(kind="elementwise", flops=0.0, fusible=True, reads=dict.fromkeys(range(count), 0.0), writes=0.0)


register(
    *_aten("""
    _to_copy copy copy_ clone contiguous cat stack constant_pad_nd repeat roll flip masked_fill masked_fill_ slice_scatter
    select_scatter slice_backward select_backward diagonal_scatter tril triu tril_ triu_ reflection_pad1d reflection_pad2d
    replication_pad1d replication_pad2d replication_pad3d unfold_backward unfold_copy im2col col2im native_dropout
    native_dropout_backward dropout glu glu_backward where complex view_as_complex_copy view_as_real_copy polar floor_divide
    _pad_circular channel_shuffle split_with_sizes_copy diag_embed rot90 masked_select reflection_pad1d_backward
    reflection_pad2d_backward _prelu_kernel _prelu_kernel_backward rrelu_with_noise cross linalg_cross hypot
    _fused_moving_avg_obs_fq_helper bitwise_and as_strided_scatter
    """)
)(_by_size("elementwise", 1.0))

register(
    *_aten("""
    softplus_backward elu_backward hardtanh_backward leaky_relu_backward threshold_backward gelu_backward hardswish_backward
    silu_backward mish_backward logit_backward sigmoid_backward tanh_backward hardsigmoid_backward hardshrink_backward
    softshrink_backward rrelu_with_noise_backward
    """)
)(_by_size("elementwise", 8.0))

register(
    *_aten("""
    _fused_adamw _fused_adamw_ _fused_adam _fused_adam_ _fused_sgd _fused_sgd_ _fused_adagrad _fused_adagrad_
    _amp_foreach_non_finite_check_and_unscale_
    """)
)(_by_size("elementwise", 1.0))


def is_foreach(name: str) -> bool:
    """Ops that apply a pointwise op to each tensor of a list."""
    return name.startswith("aten._foreach_")
