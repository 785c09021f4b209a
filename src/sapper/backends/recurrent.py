"""Cells of recurrent networks as formulas: PyTorch's fused ops for them are of devices alone, and have no kernel on the CPU.

Signatures and outputs are those of the ops (``native_functions.yaml`` of PyTorch 2.13); gates stand side by side in the second dim, in
the order input, forget, candidate, output (LSTM) and reset, update, candidate (GRU), as in ``torch.nn.LSTM`` and ``torch.nn.GRU``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import torch

Tensor: TypeAlias = torch.Tensor


def _lstm_cell(
    by_input: Tensor, by_hidden: Tensor, cell: Tensor, input_bias: Tensor | None = None, hidden_bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden state, cell and the activated gates."""
    gates = by_input + by_hidden
    if input_bias is not None and hidden_bias is not None:
        gates = gates + input_bias + hidden_bias
    enter, forget, candidate, leave = gates.chunk(4, 1)
    enter, forget, candidate, leave = enter.sigmoid(), forget.sigmoid(), candidate.tanh(), leave.sigmoid()
    after = forget * cell + enter * candidate
    return leave * after.tanh(), after, torch.cat([enter, forget, candidate, leave], 1)


def _lstm_cell_backward(
    of_hidden: Tensor | None, of_cell: Tensor | None, before: Tensor, after: Tensor, gates: Tensor, has_bias: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of the gates before activation, of the old cell, and of the bias."""
    enter, forget, candidate, leave = gates.chunk(4, 1)
    grad_hidden = torch.zeros_like(after) if of_hidden is None else of_hidden
    curved = after.tanh()
    grad_cell = grad_hidden * leave * (1 - curved * curved)
    grad_cell = grad_cell if of_cell is None else grad_cell + of_cell
    grad_gates = torch.cat([
        grad_cell * candidate * enter * (1 - enter), grad_cell * before * forget * (1 - forget),
        grad_cell * enter * (1 - candidate * candidate), grad_hidden * curved * leave * (1 - leave),
    ], 1)  # fmt: skip
    return grad_gates, grad_cell * forget, grad_gates.sum(0) if has_bias else None


def _gru_cell(
    by_input: Tensor, by_hidden: Tensor, hidden: Tensor, input_bias: Tensor | None = None, hidden_bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Hidden state, and what the backward pass needs: both gates, the candidate, the old state, the hidden part of the candidate."""
    if input_bias is not None and hidden_bias is not None:
        by_input, by_hidden = by_input + input_bias, by_hidden + hidden_bias
    (ir, ii, ic), (hr, hi, hc) = by_input.chunk(3, 1), by_hidden.chunk(3, 1)
    reset, update = (ir + hr).sigmoid(), (ii + hi).sigmoid()
    candidate = (ic + reset * hc).tanh()
    return candidate + update * (hidden - candidate), torch.cat([reset, update, candidate, hidden, hc], 1)


def _gru_cell_backward(grad: Tensor, kept: Tensor, has_bias: bool) -> tuple[Tensor | None, ...]:
    """Gradients of both gate sums, of the old state, and of both biases."""
    reset, update, candidate, hidden, hc = kept.chunk(5, 1)
    of_candidate = grad * (1 - update) * (1 - candidate * candidate)
    of_update = grad * (hidden - candidate) * update * (1 - update)
    of_reset = of_candidate * hc * reset * (1 - reset)
    by_input = torch.cat([of_reset, of_update, of_candidate], 1)
    by_hidden = torch.cat([of_reset, of_update, of_candidate * reset], 1)
    biases = (by_input.sum(0), by_hidden.sum(0)) if has_bias else (None, None)
    return by_input, by_hidden, grad * update, *biases


FORMULAS: Mapping[str, Callable[..., Any]] = MappingProxyType({
    "aten::_thnn_fused_lstm_cell": _lstm_cell, "aten::_thnn_fused_lstm_cell_backward_impl": _lstm_cell_backward,
    "aten::_thnn_fused_gru_cell": _gru_cell, "aten::_thnn_fused_gru_cell_backward": _gru_cell_backward,
})  # fmt: skip
"""By the op's name; each is called as the op is."""
