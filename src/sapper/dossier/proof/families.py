"""Families of ops by their names, for a map that a person can read; the names are those of PyTorch's op database and of ATen."""

from __future__ import annotations

import functools
import re

FAMILIES: dict[str, str] = {
    "attention": r"attention|multi_head",
    "normalisation": r"(layer|batch|group|instance|rms)_?norm|local_response_norm|renorm|\.normalize",
    "convolution": r"conv|unfold|fold\b|im2col|col2im",
    "pooling": r"pool",
    "loss": r"loss|cross_entropy|kl_div|cosine_embedding|nll|ctc",
    "activation": (
        r"relu|gelu|silu|elu\b|mish|softplus|softsign|softshrink|hardshrink|tanhshrink|hardtanh|hardsigmoid|hardswish|sigmoid|softmax|"
        r"softmin|threshold|\bglu\b|prelu|tanh|gumbel"
    ),
    "matrix": (
        r"\b(add|badd|addb)?b?mm\b|\b(add)?mv\b|addr\b|_mm\b|matmul|einsum|linear\b|bilinear|tensordot|"
        r"\b(v?dot|inner|outer|ger|kron|multi_dot)\b"
    ),
    "linear algebra": (
        r"linalg|cholesky|\blu|\bqr\b|svd|inverse|\bdet\b|logdet|slogdet|solve|pinv|pinverse|eig|lstsq|orgqr|ormqr|geqrf|"
        r"matrix_exp|matrix_power|lobpcg|cdist|trapezoid|cross\b"
    ),
    "Fourier": r"fft|stft|istft",
    "random": r"rand|normal_|\bnormal\b|bernoulli|multinomial|dropout|uniform|exponential|geometric|cauchy|log_normal|poisson",
    "reduction": (
        r"\b(sum|mean|prod|std|var|amax|amin|aminmax|max|min|all|any|norm|nansum|nanmean|median|nanmedian|mode|quantile|nanquantile|"
        r"logsumexp|count_nonzero|argmax|argmin|cumsum|cumprod|cummax|cummin|logcumsumexp|cumulative_trapezoid|std_mean|var_mean|trace|"
        r"histc?|histogram|bincount|corrcoef|cov|unique|unique_consecutive|sum_to_size)"
    ),
    "index and sort": (
        r"index|gather|scatter|embedding|take|where|masked|topk|sort|searchsorted|bucketize|nonzero|one_hot|isin|kthvalue|put|msort|"
        r"select|slice|argwhere|tril|triu|heaviside"
    ),
    "shape and copy": (
        r"view|reshape|permute|transpose|squeeze|expand|flatten|ravel|\bcat\b|concat|stack|split|chunk|repeat|tile|roll|flip|rot90|"
        r"movedim|moveaxis|narrow|pad|diag|broadcast|clone|contiguous|copy|to\b|_to_copy|resize|as_strided|atleast|unbind|swap|pixel|"
        r"channel_shuffle|interpolate|upsample|grid_sample|affine_grid|unravel|hstack|vstack|dstack|\bt\b|item|meshgrid|detach|"
        r"cartesian|combinations|block_diag|vander"
    ),
    "creation": r"zeros|ones|full|empty|arange|linspace|logspace|eye|scalar_tensor|tensor\b|fill|zero_|complex|polar|window",
    "optimizer": r"_fused_|_foreach_|adam|sgd|addcdiv|addcmul|lerp",
    "special functions": r"special|gamma|erf|bessel|zeta|i0|i1|sinc|digamma|mvlgamma|entr|ndtr|logit|xlog",
}
"""Family -> what its names hold; the first that fits. What is left is elementwise."""
REST = "elementwise"


@functools.cache
def family_of(op: str) -> str:
    """The family of an op such as ``aten::addmm`` or ``nn.functional.gelu``."""
    name = op.partition("#")[0].removeprefix("aten::").partition(".")[0] if "::" in op else op
    return next((family for family, pattern in FAMILIES.items() if re.search(pattern, name)), REST)


def key(family: str) -> str:
    """The family in a message code."""
    return family.lower().replace(" ", "_")
