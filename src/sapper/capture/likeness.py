"""When two calls of two modules do the same: what is compared, and what makes a comparison impossible."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks", "_load_state_dict_pre_hooks",
)  # fmt: skip
_TABLES = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


class Unlike(Exception):
    """The call cannot stand for another."""



def tensors_of(value: Any) -> list[Any]:
    """The tensors inside nested tuples and keyword arguments, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in tensors_of(item)]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in tensors_of(item)]
    return []


def layout_of(output: Any) -> tuple[str, Any]:
    """What a layer returns, with layouts in place of tensors: a tensor, plain values, tuples of these."""
    if type(output) is torch.Tensor or isinstance(output, torch._subclasses.FakeTensor):
        return "tensor", (output.dtype, tuple(output.shape), output.stride(), output.requires_grad)
    if type(output) is tuple:
        return "tuple", tuple(layout_of(item) for item in output)
    if isinstance(output, PLAIN):
        return "plain", output
    raise Unlike


def call_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments of a call, tensors by their layout and by which of them share memory."""
    seen: dict[int, int] = {}
    return _argument(args, seen), tuple((name, _argument(value, seen)) for name, value in kwargs.items())


def _argument(value: Any, seen: dict[int, int]) -> Any:
    if isinstance(value, torch.nn.Parameter):
        raise Unlike
    if isinstance(value, torch.Tensor):
        storage = value.untyped_storage()
        first = seen.setdefault(storage._cdata, len(seen))
        layout = value.dtype, tuple(value.shape), value.stride(), value.storage_offset(), storage.nbytes()
        return "tensor", layout, value.requires_grad, first
    if type(value) is tuple:
        return tuple(_argument(item, seen) for item in value)
    if isinstance(value, PLAIN):
        return type(value).__name__, value
    raise Unlike


def positions_of(layers: dict[str, Any]) -> frozenset[tuple[str, str]]:
    """(module inside, attribute) that holds, in each layer of a list, the layer's own key in it, such as ``layer_idx``.

    Args:
        layers: Key -> layer.
    """
    values: dict[tuple[str, str], list[bool]] = {}
    for key, layer in layers.items():
        for name, module in layer.named_modules():
            for attribute, value in vars(module).items():
                if type(value) is int:
                    values.setdefault((name, attribute), []).append(str(value) == key)
    return frozenset(place for place, own in values.items() if len(own) > 1 and all(own))


def attributes_of(layer: Any, positions: frozenset[tuple[str, str]]) -> Any:
    """All that can make a layer differ from another of its class; values that are no plain ones by identity.

    Args:
        layer: The layer.
        positions: Attributes that are left out, as :func:`position_hidden` watches them.
    """
    return tuple((name, type(child), _attributes(child, name, positions)) for name, child in layer.named_modules())


def _attributes(module: Any, name: str, positions: frozenset[tuple[str, str]]) -> Any:
    own = [
        (attribute, "position" if (name, attribute) in positions else _attribute(value))
        for attribute, value in sorted(vars(module).items())
        if attribute not in _TABLES
    ]
    tables = [
        (key, None if tensor is None else (type(tensor), tensor.dtype, tuple(tensor.shape), tensor.stride(), tensor.requires_grad))
        for table in (module._parameters, module._buffers)
        for key, tensor in table.items()
    ]
    hooks = any(getattr(module, table, None) for table in _HOOKS)
    return tuple(own), tuple(tables), id(module) if hooks else None


def _attribute(value: Any) -> Any:
    if isinstance(value, PLAIN):
        return type(value).__name__, value
    if type(value) in (tuple, list):
        return type(value).__name__, tuple(_attribute(item) for item in value)
    if isinstance(value, (dict, set)):
        return type(value).__name__, len(value) and id(value)
    return id(value)


def state_of(unit: Any) -> Any:
    """What a module would keep from one call to the next, by identity and size."""
    return [
        (name, id(value), len(value) if isinstance(value, (list, dict, set)) else None)
        for module in unit.modules()
        for name, value in (*vars(module).items(), *module._buffers.items(), *module._parameters.items())
    ]


class Position:
    """Behaves as the integer that it holds, and says whether anything asked."""

    def __init__(self, value: int) -> None:
        self.value = value
        self.used = False

    @property  # type: ignore[misc]  # so that isinstance(layer_idx, int) holds
    def __class__(self) -> type:
        return int



def _asking(name: str) -> Any:
    def method(self: Any, *args: Any) -> Any:
        self.used = True
        plain = tuple(arg.value if type(arg) is Position else arg for arg in args)
        return getattr(self.value, name)(*plain)

    return method


for _name in dir(int):
    if _name.startswith("__") and callable(getattr(int, _name)) and _name not in (
        "__class__", "__init__", "__init_subclass__", "__new__", "__subclasshook__", "__getattribute__", "__setattr__", "__delattr__",
        "__dir__", "__sizeof__",
    ):
        setattr(Position, _name, _asking(_name))


@contextlib.contextmanager
def position_hidden(layer: Any, positions: frozenset[tuple[str, str]]) -> Iterator[Position]:
    """While it lasts, attributes of a layer that hold its position hold a :class:`Position` instead."""
    places = [
        (vars(module), attribute)
        for name, module in layer.named_modules()
        for attribute in list(vars(module))
        if (name, attribute) in positions
    ]
    hidden = Position(places[0][0][places[0][1]] if places else 0)
    for attributes, name in places:
        attributes[name] = hidden
    try:
        yield hidden
    finally:
        for attributes, name in places:
            attributes[name] = hidden.value
