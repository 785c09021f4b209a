"""What ops are by nature: those that only move data, those that chips approximate, those that draw random numbers.

Names are those of PyTorch's dispatcher, without overload and without the underscore of the in-place form.
"""

from __future__ import annotations

MOVES = frozenset({
    "_amp_foreach_non_finite_check_and_unscale_", "_amp_update_scale_", "alias", "arange", "as_strided_scatter", "bucketize", "cat",
    "clone", "constant_pad_nd", "copy", "diagonal_scatter", "embedding", "empty_like", "eq", "fill", "flip", "full", "gather", "ge",
    "gt", "im2col", "index", "index_copy", "index_fill", "index_select", "isfinite", "isin", "isinf", "isnan", "isneginf",
    "isposinf", "le", "lt", "masked_fill", "masked_scatter", "masked_select", "ne", "new_empty", "new_empty_strided", "nonzero",
    "put", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "repeat", "repeat_interleave", "replication_pad1d",
    "replication_pad2d", "replication_pad3d", "roll", "rot90", "searchsorted", "select_scatter", "slice_scatter", "stack", "take",
    "triu", "tril", "tril_indices", "triu_indices", "unfold_copy", "view_as_complex_copy", "view_as_real_copy", "view_copy",
    "where", "zero",
})  # fmt: skip
"""Ops that compute nothing: their results are copies, comparisons or positions."""

TRANSCENDENTAL = frozenset({
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "celu", "cos", "cosh", "digamma", "elu", "erf", "erfc", "erfinv",
    "exp", "exp2", "expm1", "gelu", "gelu_backward", "glu", "hypot", "lgamma", "log", "log10", "log1p", "log2",
    "log_sigmoid_forward", "log_softmax", "_log_softmax", "logaddexp", "logcumsumexp", "logit", "logsumexp", "mish", "pow", "rsqrt",
    "sigmoid", "sigmoid_backward", "silu", "silu_backward", "sin", "sinc", "sinh", "_softmax", "softplus", "tan", "tanh",
    "tanh_backward", "xlogy", "special_erfcx", "special_i0e", "special_i1", "special_ndtri",
})  # fmt: skip
"""Functions that chips approximate."""

RANDOM = frozenset({
    "bernoulli", "binomial", "cauchy", "exponential", "geometric", "log_normal", "multinomial", "native_dropout", "normal",
    "poisson", "random", "randperm", "rrelu_with_noise", "uniform", "_sample_dirichlet", "_standard_gamma",
})  # fmt: skip
