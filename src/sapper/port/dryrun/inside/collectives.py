"""``torch.distributed``: NCCL by name, led to the vendor's collectives, which Gloo plays."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import torch
from sapper.port.dryrun.inside import answers, chip, imports, journal, presented
from sapper.port.dryrun.inside.placement import watch_function
from sapper.port.dryrun.session import current

_NCCL = re.compile(r"\bnccl\b", re.IGNORECASE)


def watch() -> None:
    """Watch all of it, and make the vendor's collectives known."""
    if not torch.distributed.is_available():
        return
    from sapper.backends.papertiger import collectives

    stack = current().stack
    name = own_name()
    collectives.register(name, chip.internal_name())
    distributed: Any = torch.distributed
    for function in ("init_process_group", "new_group", "new_subgroups", "split_group"):
        for holder in (distributed, distributed.distributed_c10d):
            plain = getattr(holder, function, None)
            if plain is not None:
                setattr(holder, function, _by_name(plain, function))
    _watch_meshes(distributed)
    imports.on_arrival("torch.distributed.fsdp._fully_shard._fsdp_init", _on_the_first)
    plain_available = distributed.is_nccl_available

    @functools.wraps(plain_available)
    def is_nccl_available() -> Any:
        where = journal.seen()
        if where is None:
            return plain_available()
        symbol = "torch.distributed.is_nccl_available"
        return answers.respond("collective", symbol, where=where, real=plain_available, instead=lambda: True)

    distributed.is_nccl_available = is_nccl_available
    if stack.collective:
        setattr(distributed, f"is_{stack.collective}_available", lambda: True)


def _watch_meshes(distributed: Any) -> None:
    """Meshes name the type of their devices; PyTorch derives groups, and the devices of sharded tensors, from it."""
    module = distributed.device_mesh
    watch_function(module, "init_device_mesh", symbol="torch.distributed.init_device_mesh")
    if hasattr(distributed, "init_device_mesh"):
        distributed.init_device_mesh = module.init_device_mesh
    watch_function(module.DeviceMesh, "__init__", symbol="torch.distributed.DeviceMesh")
    watch_function(module.DeviceMesh, "from_group", symbol="torch.distributed.DeviceMesh.from_group")


def _on_the_first(module: Any) -> None:
    """Sharded parameters belong on the process's own device; the chip's tensors all lie on the first, whichever is the current one."""
    plain = getattr(module, "_get_device_from_mesh", None)
    if plain is None:
        return

    @functools.wraps(plain)
    def device(mesh: Any) -> Any:
        found = plain(mesh)
        return torch.device(found.type, 0) if found.type == chip.internal_name() else found

    module._get_device_from_mesh = device


def own_name() -> str:
    """The name that the chip's collectives are registered under: the vendor's, unless PyTorch keeps it for itself."""
    stack = current().stack
    return stack.collective if stack.native and stack.collective else chip.INTERNAL


def _by_name(plain: Callable[..., Any], function: str) -> Callable[..., Any]:
    """A function that takes the name of a backend."""

    @functools.wraps(plain)
    def called(*arguments: Any, **named: Any) -> Any:
        texts = [one for one in (*arguments, named.get("backend")) if isinstance(one, str)]
        if not any(_NCCL.search(one) for one in texts):
            return plain(*presented.inward(_own(arguments)), **presented.inward(_own_named(named)))
        where = journal.seen(through_torch=True)
        if where is None:
            return plain(*arguments, **named)

        def instead() -> Any:
            return plain(*map(_led, arguments), **{key: _led(value) for key, value in named.items()})

        def real() -> Any:
            raise RuntimeError("Distributed package doesn't have NCCL built in")

        return answers.respond("collective", f"torch.distributed.{function}", where=where, real=real, instead=instead)

    return called


def _led(value: Any) -> Any:
    if isinstance(value, str):
        return _NCCL.sub(own_name(), value).replace("cuda", chip.internal_name())
    return torch.device(chip.internal_name(), value.index) if isinstance(value, torch.device) and value.type == "cuda" else value


def _own(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """The vendor's own name, where PyTorch would take it for a backend that it was built without."""
    collective = current().stack.collective
    if not collective or collective == own_name():
        return arguments
    swap = re.compile(rf"\b{re.escape(collective)}\b")
    shown = re.compile(rf"\b{re.escape(current().stack.device)}\b")
    return tuple(shown.sub(chip.INTERNAL, swap.sub(own_name(), one)) if isinstance(one, str) else one for one in arguments)


def _own_named(named: dict[str, Any]) -> dict[str, Any]:
    return {**named, **({"backend": _own((named["backend"],))[0]} if "backend" in named else {})}
