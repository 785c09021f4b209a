"""Moving modules to the chip and back so that tied weights stay tied.

PyTorch changes a parameter in place only between devices whose tensors it deems compatible; to others it makes a new parameter for
each place where it is used. Where the chip is concerned parameters are swapped, which PyTorch offers as a setting of the whole
process; here it holds for the one move.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch


def adapt(name: str) -> None:
    """Teach ``Module.to``, ``Module.cpu`` and ``Module.NAME`` to swap, and ``DataParallel`` to split."""
    if not hasattr(torch._C, "_scatter"):
        torch._C._scatter = functools.partial(_scatter, name)
    for method in ("to", "cpu", name):
        setattr(torch.nn.Module, method, _swapping(getattr(torch.nn.Module, method), name))


def _scatter(name: str, tensor: torch.Tensor, devices: list[int], chunk_sizes: Any = None, dim: int = 0, streams: Any = None) -> Any:
    """What a PyTorch without CUDA lacks for ``DataParallel``: parts of a tensor, each on a device."""
    parts = tensor.split(chunk_sizes, dim) if chunk_sizes else tensor.chunk(len(devices), dim)
    return [part.to(torch.device(name, index)) for part, index in zip(parts, devices, strict=False)]


def _swapping(plain: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(plain)
    def move(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not (plain.__name__ == name or _names(name, [*args, *kwargs.values()]) or _lies_on(name, self)):
            return plain(self, *args, **kwargs)
        before = torch.__future__.get_swap_module_params_on_conversion()
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            return plain(self, *args, **kwargs)
        except RuntimeError as error:
            if "Couldn't swap" not in str(error):
                raise
        finally:
            torch.__future__.set_swap_module_params_on_conversion(before)
        return plain(self, *args, **kwargs)  # something holds on to a parameter: new ones then

    return move


def _names(name: str, arguments: list[Any]) -> bool:
    """Whether one of the arguments of ``to`` is the chip, or a tensor on it."""
    return any(
        (isinstance(one, str) and one.partition(":")[0] == name)
        or (isinstance(one, torch.device) and one.type == name)
        or (isinstance(one, torch.Tensor) and one.device.type == name)
        for one in arguments
    )


def _lies_on(name: str, module: torch.nn.Module) -> bool:
    return any(one.device.type == name for one in module.parameters())
