"""Models to train: of a Transformers configuration, whose weights are drawn layer by layer where they are needed, or a builder's own."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch._subclasses.fake_tensor import FakeTensorMode

import torch
from sapper.errors import BadValue
from sapper.programs import dataless, faults, library
from sapper.programs.program import Program
from torch import nn


class Model(Protocol):
    """Where a stage gets its module from."""

    @property
    def name(self) -> str:
        """For errors and logs."""

    @property
    def shifts(self) -> bool:
        """Whether its loss compares each label with what it says one place before."""

    def shapes(self) -> Program:
        """The module without data, built under the caller's mode of fake tensors."""

    def empty(self) -> Program:
        """The module whose weights may be on no device yet; :meth:`fill` gives them."""

    def fill(self, module: nn.Module, keep: frozenset[str], *, seed: int) -> None:
        """Put the weights named in ``keep``, and all buffers, on the CPU in fp32 (their own dtype where they have values).

        The values depend on the seed and the names alone, not on what else is kept.
        """


@dataclass(frozen=True, kw_only=True)
class ConfigModel:
    """A model of the Transformers library by its configuration (a parsed config.json)."""

    config: Mapping[str, Any]
    name: str = "config.json"
    attention: str = "sdpa"

    @property
    def shifts(self) -> bool:
        """See :class:`Model`; causal language models of the library do."""
        with library.quiet():
            return library.is_causal(library.config_of(dict(self.config), self.name))

    def shapes(self) -> Program:
        """See :class:`Model`."""
        return self._program(torch.device("cpu"))

    def empty(self) -> Program:
        """See :class:`Model`."""
        return self._program(torch.device("meta"))

    def fill(self, module: nn.Module, keep: frozenset[str], *, seed: int) -> None:
        """See :class:`Model`; each module draws with a seed made of ``seed`` and its name."""
        _materialise(module, keep)
        _draw(module, seed=seed)

    def _program(self, device: torch.device) -> Program:
        config = library.config_of(dict(self.config), self.name)
        if getattr(config, "use_cache", None) is not None:
            config.use_cache = False  # nothing of a training pass is kept for a later token
        for field, value in vars(config).items():
            if field.endswith("layerdrop") and value:
                raise BadValue("SP-MIX-109", where=self.name, field=field, value=str(value))
        with device:
            model = library.model_of(config, attention_impl=self.attention, experts="batched_mm", dtype=torch.float32)
        return Program(module=model.train(), inputs={}, name=self.name)


@dataclass(frozen=True)
class BuiltModel:
    """A module that a function of the user's makes: ``build() -> Program``. It is built whole on the CPU, then cut."""

    build: Callable[[], Program]
    name: str = "module"
    shifts: bool = False

    @property
    def file(self) -> str:
        """Of the builder, to name in errors."""
        path, _, builder = self.name.rpartition(":")
        return path if builder else self.name

    def shapes(self) -> Program:
        """See :class:`Model`."""
        return _training(self.build())

    def empty(self) -> Program:
        """See :class:`Model`."""
        with without_data():
            return _training(self.build())

    def fill(self, module: nn.Module, keep: frozenset[str], *, seed: int) -> None:
        """See :class:`Model`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            whole = self.build().module
        take(module, keep, weights=dict(whole.named_parameters()), buffers=dict(whole.named_buffers()))


def _training(program: Program) -> Program:
    return dataclasses.replace(program, module=program.module.train())


def take(module: nn.Module, keep: frozenset[str], *, weights: dict[str, Any], buffers: dict[str, Any]) -> None:
    """Weights and buffers of another module of the same build, for one without data; buffers that the other lacks stay as they are."""
    names = {id(one): name for name, one in module.named_parameters()}
    for owner_name, owner in module.named_modules():
        for attribute, one in list(owner._parameters.items()):
            if one is not None and names[id(one)] in keep:
                owner._parameters[attribute] = weights[names[id(one)]]
        for attribute, one in list(owner._buffers.items()):
            if one is not None:
                owner._buffers[attribute] = buffers.get(f"{owner_name}.{attribute}" if owner_name else attribute, one)


def _materialise(module: nn.Module, keep: frozenset[str]) -> None:
    names = {id(one): name for name, one in module.named_parameters()}
    made: dict[int, nn.Parameter] = {}
    for owner in module.modules():
        for attribute, one in list(owner._parameters.items()):
            if one is not None and names.get(id(one)) in keep:
                if id(one) not in made:
                    made[id(one)] = nn.Parameter(torch.zeros(one.shape, dtype=one.dtype), requires_grad=one.requires_grad)
                owner._parameters[attribute] = made[id(one)]
        for attribute, one in list(owner._buffers.items()):
            if one is not None and one.device.type == "meta":
                owner._buffers[attribute] = torch.zeros(one.shape, dtype=one.dtype)


@torch.no_grad()
def _draw(module: nn.Module, *, seed: int) -> None:
    """Let the library initialise each module, children first as it does itself, each with a seed of its own."""
    with torch.random.fork_rng(devices=[]):
        for name, inner, owner in _inward(module, "", module):
            torch.manual_seed(seed_of(seed, name))
            owner._init_weights(inner)


def _inward(module: nn.Module, name: str, owner: Any) -> Iterator[tuple[str, nn.Module, Any]]:
    owner = module if hasattr(module, "_init_weights") else owner
    for child, inner in module.named_children():
        yield from _inward(inner, f"{name}.{child}" if name else child, owner)
    if any(one.device.type != "meta" for one in (*module.parameters(), *module.buffers())):
        yield name, module, owner


def seed_of(seed: int, name: str) -> int:
    """A seed for one thing of a job: 63 bits of a digest, so that names that resemble each other share nothing."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big") >> 1


@contextlib.contextmanager
def without_data() -> Iterator[FakeTensorMode]:
    """Tensors made inside have shapes and no values, and what they keep from a program is not talked of."""
    with dataless.without_data() as mode, faults.no_talk():
        yield mode
