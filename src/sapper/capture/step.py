"""One training step of a program on fake tensors: forward, backward, optimizer."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from sapper.capture import library
from sapper.capture.attention import AsOnDevice
from sapper.capture.repeat import Repeats
from sapper.capture.trace import Recorder, Trace
from sapper.capture.units import units_of
from sapper.programs import faults
from sapper.programs.program import Program, tensors_in


def traced(program: Program, path: str, *, backward: bool, every_layer: bool = False) -> Trace:
    """What one step does; to be called under fake tensors.

    Args:
        program: What runs.
        path: The user's file, to name in errors.
        backward: Whether the backward pass and the optimizer run as well.
        every_layer: Run layers that are equal to one that ran, too.

    Raises:
        BadFile: The program raises, or an op needs data.
        Unlike: Layers that look equal may differ; capture again with ``every_layer``.
    """
    module = program.module
    units = units_of(module)
    recorder = Recorder(module, units)
    repeats = Repeats(recorder, module, () if every_layer else units)
    with AsOnDevice(), recorder, library.as_trained(module, recorder):
        with faults.of_the_user(path, "SP-PROG-017"), recorder.watching(), repeats.watching():
            loss = program.loss_of(program.call())
        if backward and trainable(module) and loss is not None and loss.requires_grad:
            recorder.begin_backward()
            with faults.of_the_user(path, "SP-PROG-018"):
                loss.backward()
        repeats.finish()
        if backward:
            recorder.begin_optimizer()
            _update(module, recorder)
    recorder.trace.repeated_layers = repeats.repeated
    return recorder.trace


def trainable(module: Any) -> list[Any]:
    """Weights with gradients."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _update(module: Any, recorder: Recorder) -> None:
    """One AdamW step, as one fused op per dtype; which optimizer a job uses is the job's own (``--optimizer``). It is a later
    step: the states are there already (weights of one shape share theirs, as only the shapes count)."""
    weights = [parameter for parameter in trainable(module) if parameter.grad is not None and not parameter.grad.is_sparse]
    if not weights:
        return
    optimizer = torch.optim.AdamW(weights, fused=True)
    states: dict[Any, Any] = {}
    with recorder.span(muted=True):
        step = torch.zeros((), dtype=torch.float32)
        for weight in weights:
            key = weight.dtype, tuple(weight.shape), weight.stride()
            if key not in states:
                states[key] = torch.empty_like(weight), torch.empty_like(weight)
            first, second = states[key]
            optimizer.state[weight] = {"step": step, "exp_avg": first, "exp_avg_sq": second}
    optimizer.step()


def cast(program: Program, dtype: Any) -> Program:
    """The program with all weights, buffers and inputs as tensors without data, floating ones in ``dtype`` (None: as they are)."""
    made: dict[int, Any] = {}
    for owner in program.module.modules():
        for name, tensor in [*owner._parameters.items(), *owner._buffers.items()]:
            if tensor is None:
                continue
            if id(tensor) not in made:  # a tied weight stays one weight
                made[id(tensor)] = (tensor, _empty(tensor, dtype))
            (owner._parameters if name in owner._parameters else owner._buffers)[name] = made[id(tensor)][1]
    return dataclasses.replace(program, inputs=_cast(program.inputs, dtype))


def _empty(tensor: Any, dtype: Any) -> Any:
    wanted = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=wanted)
    return torch.nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, torch.nn.Parameter) else empty


def _cast(value: Any, dtype: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _empty(value, dtype)
    if isinstance(value, dict):
        return {key: _cast(item, dtype) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(_cast(item, dtype) for item in value)
    return value


def tokens_of(program: Program) -> int:
    """Tokens of a sample: what the builder says, else the length of a batch of token ids, else 1 (an image, a click)."""
    if program.seq is not None:
        return program.seq
    ids = [tensor for tensor in tensors_in(program.inputs) if tensor.dim() == 2 and not tensor.is_floating_point()]
    return int(ids[0].shape[1]) if ids else 1
