"""Where a program asks for CUDA by a device: strings, ``torch.device``, ``.cuda()``, ``.is_cuda``, factories, checkpoints.

The functions that take a device are replaced, as the vendors' own redirections do; a call that names no CUDA goes on as it came.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import torch
from sapper.port.dryrun.inside import answers, chip, journal, presented
from sapper.port.dryrun.session import current

FACTORIES = (
    "arange", "as_tensor", "asarray", "bartlett_window", "blackman_window", "empty", "empty_like", "empty_permuted",
    "empty_quantized", "empty_strided", "eye", "from_file", "full", "full_like", "hamming_window", "hann_window", "kaiser_window",
    "linspace", "logspace", "normal", "ones", "ones_like", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like",
    "randperm", "range", "scalar_tensor", "sparse_bsc_tensor", "sparse_bsr_tensor", "sparse_compressed_tensor", "sparse_coo_tensor",
    "sparse_csc_tensor", "sparse_csr_tensor", "tensor", "tril_indices", "triu_indices", "zeros", "zeros_like", "get_device_module",
    "Stream",
)  # fmt: skip
METHODS = ("new_empty", "new_empty_strided", "new_full", "new_ones", "new_tensor", "new_zeros", "to", "pin_memory")
_CUDA = re.compile(r"cuda(?::(\d+))?")
_TYPED = re.compile(r"(?:torch\.)?cuda\.(\w+)Tensor")
_REAL = torch.device
_DEVICES = frozenset({str, _REAL})
"""Types that may be a device."""


def names_cuda(value: Any) -> bool:
    """Whether a value is a CUDA device: ``"cuda:1"`` or a ``torch.device``."""
    if type(value) is str:
        return _CUDA.fullmatch(value) is not None
    return type(value) is _REAL and value.type == "cuda"


def moved(value: Any) -> Any:
    """The chip's device for one that the program names."""
    if type(value) is str:
        _, _, index = value.partition(":")
        return f"{chip.internal_name()}:{index}" if index else chip.internal_name()
    index = value.index
    return _REAL(chip.internal_name()) if index is None else _REAL(chip.internal_name(), index)


def redirected(symbol: str, plain: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Call ``plain``, with CUDA devices among its arguments recorded and led to the chip."""
    if not any(map(names_cuda, arguments)) and not any(map(names_cuda, named.values())):
        return plain(*presented.inward(arguments), **presented.inward(named))

    def real() -> Any:
        return plain(*arguments, **named)

    def instead() -> Any:
        return plain(
            *[moved(one) if names_cuda(one) else one for one in arguments],
            **{key: moved(one) if names_cuda(one) else one for key, one in named.items()},
        )

    where = journal.seen(through_torch=True)
    if where is None:
        return real()
    return answers.respond("device", symbol, where=where, real=real, instead=instead)


def watch_function(holder: Any, name: str, *, symbol: str) -> None:
    """Replace a function or method, so that CUDA devices among its arguments are recorded and led to the chip."""
    plain = getattr(holder, name, None)
    if plain is None or isinstance(plain, type):
        return

    @functools.wraps(plain)
    def called(*arguments: Any, **named: Any) -> Any:
        # Most calls name no device, and some of these functions are called for every op.
        for one in arguments:
            if type(one) in _DEVICES:
                return redirected(symbol, plain, arguments, named)
        for one in named.values():
            if type(one) in _DEVICES:
                return redirected(symbol, plain, arguments, named)
        return plain(*arguments, **named)

    setattr(holder, name, staticmethod(called) if isinstance(inspect.getattr_static(holder, name), staticmethod) else called)


class _Device(type):
    """``torch.device`` as the program sees it; what it makes are PyTorch's own devices."""

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        made = _REAL(*arguments, **named)
        if made.type == "cuda":
            where = journal.seen()
            if where is not None and not journal.exempt(where):
                journal.JOURNAL.touch("device", "torch.device", outcome="works" if current().stack.as_cuda else "carries", where=where)
        return made

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _REAL)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is _REAL

    def __hash__(cls) -> int:
        return hash(_REAL)


class device(metaclass=_Device):
    """Stands for ``torch.device``."""

    __module__ = "torch"
    __doc__ = _REAL.__doc__


def watch() -> None:
    """Watch all of it."""
    from torch.utils import _device

    _device._device_constructors()  # PyTorch's list of factories, which must hold the originals
    for name in FACTORIES:
        watch_function(torch, name, symbol=f"torch.{name}")
    for name in METHODS:
        watch_function(torch.Tensor, name, symbol=f"torch.Tensor.{name}")
    for name in ("fftfreq", "rfftfreq"):
        watch_function(torch.fft, name, symbol=f"torch.fft.{name}")
    for name in ("to", "to_empty"):
        watch_function(torch.nn.Module, name, symbol=f"torch.nn.Module.{name}")
    watch_function(_device.DeviceContext, "__init__", symbol="torch.set_default_device")
    watch_function(torch, "load", symbol="torch.load")
    watch_function(torch.nn.parallel.DistributedDataParallel, "__init__", symbol="torch.nn.parallel.DistributedDataParallel")
    torch.device = device
    _watch_generator()
    _watch_cuda_methods()
    _watch_is_cuda()
    _watch_typed()
    _watch_checkpoints()
    presented.watch()


def _watch_generator() -> None:
    plain = torch.Generator.__new__

    def new(cls: type, *arguments: Any, **named: Any) -> Any:
        return redirected("torch.Generator", functools.partial(plain, cls), arguments, named)

    torch.Generator.__new__ = staticmethod(new)


def _watch_cuda_methods() -> None:
    for owner, symbol in ((torch.Tensor, "torch.Tensor.cuda"), (torch.nn.Module, "torch.nn.Module.cuda")):
        owner.cuda = _cuda_method(owner.cuda, owner.to, symbol)


def _cuda_method(plain: Callable[..., Any], move: Callable[..., Any], symbol: str) -> Callable[..., Any]:
    @functools.wraps(plain)
    def cuda(self: Any, device: Any = None, *rest: Any, **named: Any) -> Any:
        where = journal.seen(through_torch=True)
        real = functools.partial(plain, self, device, *rest, **named)
        if where is None:
            return real()
        index = device if isinstance(device, int) else None if device is None else _REAL(device).index
        target = _REAL(chip.internal_name()) if index is None else _REAL(chip.internal_name(), index)
        return answers.respond("device", symbol, where=where, real=real, instead=lambda: move(self, target))

    return cuda


def _watch_is_cuda() -> None:
    plain = torch.Tensor.is_cuda

    def is_cuda(self: Any) -> Any:
        where = journal.seen()
        if where is None:
            return plain.__get__(self)
        on_chip = self.device.type == chip.internal_name()
        return answers.respond("device", "torch.Tensor.is_cuda", where=where, real=lambda: plain.__get__(self), instead=lambda: on_chip)

    torch.Tensor.is_cuda = property(is_cuda)


def _watch_typed() -> None:
    """Types by their names: ``x.type("torch.cuda.FloatTensor")``, ``torch.set_default_tensor_type``."""
    plain_type, plain_default = torch.Tensor.type, torch.set_default_tensor_type

    @functools.wraps(plain_type)
    def type_(self: Any, dtype: Any = None, *rest: Any, **named: Any) -> Any:
        found = _TYPED.search(_type_name(dtype))
        where = journal.seen(through_torch=True) if found else None
        real = functools.partial(plain_type, self, *(() if dtype is None else (dtype,)), *rest, **named)
        if found is None or where is None:
            return real()
        name = f"{found.group(1)}Tensor"

        def instead() -> Any:
            return plain_type(self, f"torch.{name}").to(chip.internal_name())

        return answers.respond("device", f"torch.cuda.{name}", where=where, real=real, instead=instead)

    @functools.wraps(plain_default)
    def default(kind: Any) -> Any:
        found = _TYPED.search(_type_name(kind))
        where = journal.seen() if found else None
        if found is None or where is None:
            return plain_default(kind)

        def instead() -> None:
            plain_default(f"torch.{found.group(1)}Tensor")
            torch.set_default_device(chip.internal_name())

        real = functools.partial(plain_default, kind)
        return answers.respond("device", "torch.set_default_tensor_type", where=where, real=real, instead=instead)

    torch.Tensor.type, torch.set_default_tensor_type = type_, default


def _type_name(value: Any) -> str:
    return value if isinstance(value, str) else f"{getattr(value, '__module__', '')}.{getattr(value, '__name__', '')}"


def _watch_checkpoints() -> None:
    """Tensors that were saved on CUDA, read without ``map_location``: PyTorch refuses them."""

    def tag(_storage: Any) -> None:
        return None

    def restore(storage: Any, location: str) -> Any:
        if not isinstance(location, str) or not _CUDA.fullmatch(location):
            return None
        where = journal.seen(through_torch=True)
        if where is None:
            return None
        says = (
            "RuntimeError: Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False. If you are running on "
            "a CPU-only machine, please use torch.load with map_location=torch.device('cpu') to map your storages to the CPU."
        )

        def real() -> Any:
            raise RuntimeError(says.partition(": ")[2])

        def instead() -> Any:
            made = torch.UntypedStorage(storage.nbytes(), device=chip.internal_name())
            made.copy_(storage)
            return made

        return answers.respond("checkpoint", "torch.load", where=where, real=real, instead=instead)

    torch.serialization.register_package(1, tag, restore)
