"""Python source of a suspect: its function, and tensors by the shortest expression that yields exactly their values."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from sapper.prove.suspect import Ref, Suspect, mapped

LITERAL_MOST = 16
"""Elements up to which a tensor is written out."""
SEEDS = range(3)
"""Seeds by which a tensor may be made again."""


def function_source(suspect: Suspect, names: Mapping[str, str], *, called: str = "f") -> list[str]:
    """``def f(x, y): ...``, returning one tensor, or a tuple where the suspect has several outputs."""
    inputs = [names[name] for name in suspect.inputs if name not in suspect.cotangents]
    known = dict(names)
    dtypes = dtype_names(suspect)
    lines = [f"def {called}({', '.join([*inputs, *(f'{name}={dtype}' for dtype, name in dtypes.items())])}):"]
    inline = _used_once(suspect)
    for at, step in enumerate(suspect.steps):
        args, kwargs = mapped((step.args, step.kwargs), lambda leaf: _Name(dtypes[leaf]) if _is_wide_dtype(leaf) else leaf)
        source = _call(step.func, args, kwargs, known, inputs)
        if step.name in inline and at == len(suspect.steps) - 1:
            known[step.name] = source
        else:
            known[step.name] = f"v{at}"
            lines.append(f"    v{at} = {source}")
    lines.append(f"    return {', '.join(_spelled(ref, known, inputs) for ref in suspect.outputs) or '()'}")
    return lines


class _Name(str):
    """A name that is written as it is."""

    __slots__ = ()


def dtype_names(suspect: Suspect) -> dict[torch.dtype, str]:
    """Floating and complex dtypes that ops name -> the parameter that stands for each, so that the truth can be computed in fp64."""
    found: dict[torch.dtype, None] = {}

    def look(leaf: Any) -> None:
        if _is_wide_dtype(leaf):
            found[leaf] = None

    mapped([(step.args, step.kwargs) for step in suspect.steps], look)
    return {dtype: "dtype" if len(found) == 1 else f"dtype{at}" for at, dtype in enumerate(found)}


def _is_wide_dtype(leaf: Any) -> bool:
    return isinstance(leaf, torch.dtype) and (leaf.is_floating_point or leaf.is_complex)


def step_source(suspect: Suspect, names: Mapping[str, str]) -> list[str]:
    """``def step(run, x, g): ...``: the gradients of ``run`` by autograd."""
    inputs = [names[name] for name in suspect.inputs if name not in suspect.cotangents]
    cotangents = [names[name] for name in suspect.cotangents if name is not None]
    leaves = [names[name] for name in suspect.wrt]
    lines = [f"def step(run, {', '.join([*inputs, *cotangents])}):"]
    lines += [f"    {name} = {name}.detach().requires_grad_()" for name in leaves]
    call = f"run({', '.join(inputs)})"
    lines.append(f"    return torch.autograd.grad({call}, {_listed(leaves)}, {_listed(cotangents)})[-1]")
    return lines


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"[{', '.join(names)}]"


def _used_once(suspect: Suspect) -> set[str]:
    return {ref.name for ref in suspect.outputs if len(suspect.outputs) == 1}


def _call(func: Any, args: Any, kwargs: Any, known: Mapping[str, str], inputs: list[str]) -> str:
    name, _, overload = func._schema.name.partition("::")[2], "", func._schema.overload_name or "default"
    given = [_spelled(one, known, inputs) for one in args]
    given += [f"{key}={_spelled(one, known, inputs)}" for key, one in kwargs.items()]
    namespace = func._schema.name.partition("::")[0]
    return f"torch.ops.{namespace}.{name}.{overload}({', '.join(given)})"


def _spelled(value: Any, known: Mapping[str, str], inputs: list[str]) -> str:
    """An argument as Python."""
    if isinstance(value, _Name):
        return str(value)
    if isinstance(value, Ref):
        return known[value.name] + ("" if value.item is None else f"[{value.item}]")
    if isinstance(value, (list, tuple)):
        inner = ", ".join(_spelled(one, known, inputs) for one in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    if isinstance(value, torch.device):
        return f"{inputs[0]}.device"
    return number(value)


def number(value: Any) -> str:
    """A number, or a constant of PyTorch such as a dtype."""
    if isinstance(value, float) and not math.isfinite(value):
        return "torch.nan" if math.isnan(value) else ("torch.inf" if value > 0 else "-torch.inf")
    return repr(value)


def tensor_source(tensor: torch.Tensor) -> str:
    """An expression that yields exactly this tensor on the CPU, strides included where they are not plain."""
    if tensor.numel() and not tensor.is_contiguous():
        return _strided(tensor)
    return _constant(tensor) or _small(tensor) or _seeded(tensor) or _packed(tensor)


def _size(tensor: torch.Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))}{',' if tensor.dim() == 1 else ''})"


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal bit by bit, the sign of zeros included."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool(torch.equal(_bits(one), _bits(other)))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.numel(), dtype=tensor.dtype).copy_(tensor.reshape(-1)).view(torch.uint8)


def _dtype(tensor: torch.Tensor) -> str:
    return "" if tensor.dtype == torch.float32 else f", dtype={tensor.dtype}"


def _constant(tensor: torch.Tensor) -> str | None:
    if not tensor.numel():
        return f"torch.zeros({_size(tensor)}{_dtype(tensor)})"
    first = tensor.reshape(-1)[0]
    if tensor.dim() == 0 or not _same(tensor, first.expand(tensor.shape)):
        return None
    for name, value in (("zeros", 0), ("ones", 1)):
        if _same(first, torch.tensor(value).to(tensor.dtype)):
            return f"torch.{name}({_size(tensor)}{_dtype(tensor)})"
    dtype = "" if tensor.dtype == torch.float32 else f", dtype={tensor.dtype}"
    return f"torch.full({_size(tensor)}, {_element(first)}{dtype})"


def _element(value: torch.Tensor) -> str:
    """The shortest decimal that rounds to the value in its dtype."""
    item = value.item()
    if not isinstance(item, float) or not math.isfinite(item):
        return number(item)
    for digits in range(1, 17):
        text = f"{item:.{digits}g}"
        if torch.tensor(float(text), dtype=torch.float64).to(value.dtype).item() == item:
            plain = repr(float(text))
            return plain if math.copysign(1, float(text)) == math.copysign(1, item) else f"-{plain}"
    return repr(item)


def _small(tensor: torch.Tensor) -> str | None:
    if tensor.numel() > LITERAL_MOST:
        return None
    plain = tensor.dtype in (torch.float32, torch.int64, torch.bool)
    dtype = "" if plain and tensor.numel() else f", dtype={tensor.dtype}"
    return f"torch.tensor({_nested(tensor)}{dtype})"


def _nested(tensor: torch.Tensor) -> str:
    if tensor.dim() == 0:
        return _element(tensor)
    return f"[{', '.join(_nested(one) for one in tensor)}]"


def seeded(tensor: torch.Tensor, seed: int) -> torch.Tensor:
    """Values from the standard normal distribution (small integers where it is no float), as :func:`tensor_source` writes them."""
    generator = torch.Generator().manual_seed(seed)
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
        exact = torch.complex64 if tensor.dtype.is_complex else torch.float32
        return torch.randn(tensor.shape, generator=generator, dtype=exact).to(tensor.dtype)
    if tensor.dtype == torch.bool:
        return torch.randint(2, tensor.shape, generator=generator).bool()
    return torch.randint(4, tensor.shape, generator=generator).to(tensor.dtype)


def _seeded(tensor: torch.Tensor) -> str | None:
    for seed in SEEDS:
        if _same(tensor, seeded(tensor, seed)):
            maker = "randn(" if tensor.dtype.is_floating_point or tensor.dtype.is_complex else "randint(4, "
            maker = "randint(2, " if tensor.dtype == torch.bool else maker
            source = f"torch.{maker}{_size(tensor)}, generator=torch.Generator().manual_seed({seed})"
            if tensor.dtype.is_complex:
                source += ", dtype=torch.complex64"
            plain = tensor.dtype in (torch.float32, torch.int64, torch.complex64)
            return source + (")" if plain else f").to({tensor.dtype})")
    return None


def _packed(tensor: torch.Tensor) -> str:
    raw = base64.b64encode(zlib.compress(_bits(tensor).numpy().tobytes(), 9)).decode()
    data = f'torch.frombuffer(bytearray(zlib.decompress(base64.b64decode("{raw}"))), dtype=torch.uint8)'
    return f"{data}.view({tensor.dtype}).reshape{_size(tensor)}"


def needs_packing(source: str) -> bool:
    """Whether a tensor's expression needs ``base64`` and ``zlib``."""
    return "zlib." in source


def _strided(tensor: torch.Tensor) -> str:
    """A dense tensor whose dimensions lie in another order, or one that was expanded."""
    order = sorted(range(tensor.dim()), key=lambda dim: (-tensor.stride(dim), dim))
    dense = tensor.permute(order)
    if dense.is_contiguous():
        back = [order.index(dim) for dim in range(tensor.dim())]
        return f"{tensor_source(dense)}.permute({', '.join(map(str, back))})"
    squeezed = [0 if tensor.stride(dim) == 0 else slice(None) for dim in range(tensor.dim())]
    if 0 in tensor.stride():
        narrow = tensor[tuple(slice(0, 1) if one == 0 else one for one in squeezed)]
        return f"{tensor_source(narrow.contiguous())}.expand{_size(tensor)}"
    steps = 2
    wide = tensor.new_zeros((*tensor.shape[:-1], tensor.shape[-1] * steps))
    wide[..., ::steps] = tensor
    return f"{tensor_source(tensor.contiguous())}.repeat_interleave({steps}, -1)[..., ::{steps}]"
