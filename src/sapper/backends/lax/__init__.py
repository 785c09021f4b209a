"""ATen in JAX: an exported program as a function of JAX arrays, op by op through a table of lowerings.

The program is first decomposed by PyTorch into its core ATen ops, composite ones too, so that the table stays small and all
arithmetic is XLA's. Dtypes follow PyTorch's promotion, which differs from JAX's: the exported graph says them.
"""

from __future__ import annotations

from sapper.backends.lax.program import function_of

__all__ = ["function_of"]
