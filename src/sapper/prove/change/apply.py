"""How edits are carried out: on the setting before the program is opened, or on the program."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch.utils.checkpoint import checkpoint

import torch
from sapper import files
from sapper.errors import BadValue
from sapper.programs import faults, library
from sapper.programs.opened import Opened, open_program
from sapper.programs.program import Program, batch_of, load_builder
from sapper.prove.change.edit import Edit, Setting, Size
from sapper.prove.change.functions import Swapped, swaps_of
from sapper.prove.whole import filled


class Unfit(Exception):
    """An edit that means nothing for this program."""


def opened(setting: Setting, edit: Edit | None, size: Size) -> Opened:
    """The program, at a size, with an edit.

    Raises:
        SapperError: The program refuses it.
        Unfit: It means nothing here.
    """
    batch = setting.batch if size.batch is None else size.batch
    seq = setting.seq if size.seq is None else size.seq
    dtype = setting.dtype
    if edit is not None and edit.change == "seq":
        seq = int(edit.args["seq"])
    if edit is not None and edit.change == "dtype":
        dtype = str(edit.args["dtype"])
    with _target(setting.target, edit) as target:
        found = open_program(target, batch=batch, seq=seq, dtype=dtype, seed=setting.seed)
    if seq is not None and found.program.seq not in (None, seq):
        raise Unfit(f"seq {seq}")
    program = dataclasses.replace(found.program, module=found.program.module.train())
    if size.batch is not None and batch_of(program) != size.batch:
        program = resized(program, size.batch)
    if size.layers is not None:
        _shorten(program.module, size.layers)
    if edit is not None and edit.change in CHANGES:
        program = CHANGES[edit.change](program, **edit.args)
    return dataclasses.replace(found, program=program)


@contextlib.contextmanager
def _target(target: str, edit: Edit | None) -> Iterator[str]:
    """The target, or a copy of its config with another field."""
    if edit is None or edit.change != "field":
        yield target
        return
    raw = files.read_json(library.config_path(target))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps({**raw, edit.args["field"]: edit.args["value"]}), "utf-8")
        yield str(path)


def lists_of(module: Any) -> dict[str, Any]:
    """Lists of layers by name: ModuleList and Sequential with two neighbours of one class at least."""
    found = {}
    for name, one in module.named_modules():
        if isinstance(one, (torch.nn.ModuleList, torch.nn.Sequential)) and len(one) > 1:
            kinds = [type(layer) for layer in one]
            if any(a is b and next(layer.parameters(), None) is not None for a, b, layer in zip(kinds, kinds[1:], one, strict=False)):
                found[name] = one
    return found


def _shorten(module: Any, most: int) -> None:
    longer = [one for one in lists_of(module).values() if len(one) > most]
    if not longer:
        raise Unfit(f"{most} layers")
    for one in longer:
        while len(one) > most:
            del one[len(one) - 1]


def resized(program: Program, batch: int) -> Program:
    """The same samples, again and again or the first of them."""
    return _inputs(program, lambda one: one[torch.arange(batch) % one.shape[0]] if one.dim() else one)


def cut(program: Program, length: int) -> Program:
    """Tokens of each sample, again and again or the first of them; of tensors that share the second dim with token ids."""
    return _inputs(program, lambda one: one[:, torch.arange(length) % one.shape[1]] if one.dim() > 1 else one)


def cropped(program: Program, rows: int) -> Program:
    """Images without their last rows and columns."""
    return _inputs(program, lambda one: one[..., :-rows, :-rows].contiguous() if one.dim() == 4 else one)


def narrow_ints(program: Program) -> Program:
    """Integer inputs in 32 bits."""
    return _inputs(program, lambda one: one.to(torch.int32) if one.dtype == torch.int64 else one)


def _inputs(program: Program, change: Callable[[Any], Any]) -> Program:
    def walked(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return change(value)
        if isinstance(value, dict):
            return {key: walked(item) for key, item in value.items()}
        if isinstance(value, (tuple, list)):
            return type(value)(walked(item) for item in value)
        return value

    return dataclasses.replace(program, inputs=walked(program.inputs))


class Around(torch.nn.Module):
    """A module inside of which something is different."""

    def __init__(self, inner: Any, inputs: Callable[[Any], Any] | None = None, mode: Callable[[], Any] = contextlib.nullcontext) -> None:
        super().__init__()
        self.inner = inner
        self._inputs, self._mode = inputs or (lambda one: one), mode

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The inner module's."""
        tensors = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.Tensor)]
        changed = iter([self._inputs(one) for one in tensors])
        args, kwargs = filled((args, kwargs), changed)
        with self._mode():
            return self.inner(*args, **kwargs)


def strided(program: Program) -> Program:
    """Inputs with a gap behind each element, made where the module runs."""
    return dataclasses.replace(program, module=Around(program.module, _spread))


def _spread(one: torch.Tensor) -> torch.Tensor:
    return torch.stack([one, one], -1)[..., 0] if one.dim() else one


def transposed(program: Program) -> Program:
    """Inputs whose last two dims lie the other way round in memory."""
    return dataclasses.replace(
        program, module=Around(program.module, lambda one: one.transpose(-1, -2).contiguous().transpose(-1, -2) if one.dim() > 1 else one)
    )


def channels_last(program: Program) -> Program:
    """Images and convolutions with channels as the innermost dim."""
    module = program.module.to(memory_format=torch.channels_last)
    last = torch.channels_last
    return dataclasses.replace(
        program, module=Around(module, lambda one: one.contiguous(memory_format=last) if one.dim() == 4 else one)
    )


def layers(program: Program, of: str, *, how: str, at: int) -> Program:
    """A list of layers without one, with a copy of one more, or with two exchanged."""
    found = lists_of(program.module).get(of)
    if found is None or at >= len(found):
        raise Unfit(of)
    if how == "drop":
        del found[at]
    elif how == "add":
        _insert(found, at + 1, copy.deepcopy(found[at]))
    else:
        found[at], found[at + 1] = found[at + 1], found[at]
    return program


def _insert(found: Any, at: int, layer: Any) -> None:
    if isinstance(found, torch.nn.ModuleList):
        found.insert(at, layer)
        return
    rest = [*list(found)[:at], layer, *list(found)[at:]]
    found._modules.clear()
    for number, one in enumerate(rest):
        found.add_module(str(number), one)


def swap(program: Program, kind: str, *, name: str, frm: str = "") -> Program:
    """Another attention, activation or norm."""
    swaps = swaps_of(kind, name, frm=frm)
    return dataclasses.replace(program, module=Around(program.module, mode=lambda: Swapped(swaps)))


def attribute(program: Program, of: str, *, name: str, value: Any) -> Program:
    """Another value of an attribute in all modules of a class."""
    found = [one for one in program.module.modules() if type(one).__name__ == of and name in vars(one)]
    if not found:
        raise Unfit(f"{of}.{name}")
    for one in found:
        setattr(one, name, value)
    return program


def checkpointed(program: Program) -> Program:
    """Each layer computes its activations again in the backward pass."""
    for found in lists_of(program.module).values():
        for layer in found:
            plain = layer.forward
            layer.forward = functools.partial(_checkpointed, plain)
    return program


def _checkpointed(plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return checkpoint(plain, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)


def evaluated(program: Program) -> Program:
    """The module in evaluation."""
    return dataclasses.replace(program, module=program.module.eval())


def frozen(program: Program, share: float) -> Program:
    """The first part of the weights without gradients."""
    weights = list(program.module.parameters())
    for one in weights[: int(share * len(weights))]:
        one.requires_grad_(False)
    return program


def own(program: Program, spec: str, at: int) -> Program:
    """The user's own function of the module, which changes it in place or returns another."""
    function = own_edits(spec)[at]
    path = spec.rpartition(":")[0] or spec
    with faults.of_the_user(path, "SP-CHANGE-001"):
        changed = function(program.module)
    return program if changed is None else dataclasses.replace(program, module=changed)


def own_edits(spec: str) -> list[Callable[[Any], Any]]:
    """The functions that the user's ``file.py:edits`` returns or holds.

    Raises:
        BadValue: It is no list of functions.
    """
    found, path = load_builder(spec)
    with faults.of_the_user(path, "SP-CHANGE-001"):
        edits = found()
    if not isinstance(edits, (list, tuple)) or not edits or not all(map(callable, edits)):
        raise BadValue("SP-CHANGE-002", where=spec, found=type(edits).__name__)
    return list(edits)


CHANGES: dict[str, Callable[..., Program]] = {
    one.__name__: one
    for one in (
        resized, cut, cropped, narrow_ints, strided, transposed, channels_last, layers, swap, attribute, checkpointed, evaluated, frozen,
        own,
    )
}  # fmt: skip
"""Edits of an open program, by name; ``seq``, ``dtype`` and ``field`` are made before it is opened."""
