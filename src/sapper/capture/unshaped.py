"""Ops whose result's shape depends on values, with the shape that tensors without data can be given."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.nn import functional

import torch


def result_of(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``func`` returns for tensors without data: an empty tensor of the right shape where PyTorch cannot tell it."""
    shaped = _SHAPED.get(getattr(getattr(func, "overloadpacket", None), "_qualified_op_name", ""))
    return func(*args, **kwargs) if shaped is None else shaped(*args, **kwargs)


def ctc_loss(log_probs: Any, targets: Any, *lengths: Any, **named: Any) -> Any:
    """``torch.nn.functional.ctc_loss`` with lengths as tensors: of plain numbers PyTorch fills a tensor that has no data."""
    named = {name: _as_tensor(value) for name, value in named.items()}
    return functional.ctc_loss(log_probs, targets, *map(_as_tensor, lengths), **named)


def _as_tensor(value: Any) -> Any:
    return torch.tensor(value) if isinstance(value, (list, tuple)) else value


def _ctc_loss(log_probs: Any, targets: Any, *_: Any, **__: Any) -> tuple[Any, Any]:
    """Loss [N], and the forward variables [N, T, 2 S + 1] over S labels with a blank around each (Graves et al. 2006).

    S is the width of ``targets`` [N, S], of which a sample may use less; of labels in one row, [sum of lengths], the mean.
    """
    frames, batch, _ = log_probs.shape
    labels = targets.shape[1] if targets.dim() == 2 else math.ceil(targets.shape[0] / max(batch, 1))
    return log_probs.new_empty((batch,)), log_probs.new_empty((batch, frames, 2 * labels + 1))


def _ctc_loss_backward(gradient: Any, log_probs: Any, *_: Any, **__: Any) -> Any:
    """Gradient of the log probabilities [T, N, C]."""
    return log_probs.new_empty(log_probs.shape)


_SHAPED: dict[str, Callable[..., Any]] = {"aten::_ctc_loss": _ctc_loss, "aten::_ctc_loss_backward": _ctc_loss_backward}
"""Op -> its result from the shapes of its arguments."""
