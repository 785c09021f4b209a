"""Programs on real tensors: the same seed gives the same weights and the same inputs, on any machine of the same PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from sapper.errors import BadValue
from sapper.programs import faults, library
from sapper.programs import program as contract
from sapper.programs.program import DTYPES, Program, tensors_in

DEFAULT_SEQ = 64
"""Tokens of a sample of a config's model where the user gives none."""
DEFAULT_BATCH = 2
_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
"""Of two parts of a dtype; what is computed on those of half precision is not what anyone trains with."""
_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A program with data, ready to run on the CPU."""

    program: Program
    target: str
    path: str
    """File of the builder or the config, to name in errors."""
    digest: str
    """SHA-256 of that file's text (of a config: of its values), which tells versions apart."""
    seed: int
    dtype: str
    batch: int | None
    """Samples; None where the inputs share no leading dim."""
    asked_seq: int | None = None
    """Tokens of a sample, as asked for."""
    asked_batch: int | None = None
    dropout_off: int
    """Modules whose dropout was set to 0."""

    def run(self) -> Any:
        """The loss of one forward pass; buffers are as they were afterwards.

        Raises:
            BadFile: The inputs do not fit the module, or it raises.
        """
        with contract.buffers_kept(self.program.module), faults.of_the_user(self.path, "SP-PROG-017"):
            loss = self.program.loss_of(self.program.call())
        if loss is None or not loss.numel() == 1:
            raise BadValue("SP-PROG-020", where=self.path)
        return loss


def open_program(
    target: str, *, seq: int | None = None, batch: int | None = None, dtype: str = "fp32", seed: int = 0, draw: int = 0
) -> Opened:
    """The program that ``target`` names, with seeded weights (or those beside its config) and seeded inputs.

    Dropout is set to 0: the random numbers of two devices differ by right.

    Args:
        target: ``file.py:build``, a config.json, a folder with one and perhaps weights, or the name of a bundled model.
        seq: Tokens of a sample, for builders that take ``seq`` and for configs (64 where not given).
        batch: Samples, for builders that take ``batch`` and for configs (2 where not given).
        dtype: That weights and inputs are cast to: ``fp32``, ``bf16``, ``fp16``, ``fp64``, or ``keep``.
        seed: Of weights and inputs.
        draw: Number of the inputs under this seed: other values of the same shapes.

    Raises:
        SapperError: What the target does wrong, with the place in its own file.
    """
    if dtype != "keep" and dtype not in DTYPES:
        raise BadValue("SP-PROG-002", where="--dtype", value=dtype, known=", ".join((*DTYPES, "keep")))
    with _seeded(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if library.is_config(target):
            program, path, digest = _of_config(target, seq=seq, batch=batch)
        else:
            builder, path = contract.load_builder(target)
            program = contract.build(builder, path, batch=batch, seq=seq)
            digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    off = dropout_off(program.module)
    program = _cast(program, DTYPES.get(dtype))
    if draw:
        other = redrawn(program, seed=seed, draw=draw)
        program = other if _runs(other) else redrawn(program, seed=seed, draw=draw, integers=False)
    return Opened(
        program=program, target=target, path=path, digest=digest, seed=seed, dtype=dtype, batch=contract.batch_of(program),
        dropout_off=off, asked_seq=seq, asked_batch=batch,
    )


def _of_config(target: str, *, seq: int | None, batch: int | None) -> tuple[Program, str, str]:
    path = library.config_path(target)
    raw = library.raw_config(path)
    config = library.config_of(raw, library.config_place(path))
    forms = {"attention_impl": "sdpa", "experts": "batched_mm", "dtype": torch.float32}
    if any(next(path.parent.glob(pattern), None) for pattern in _WEIGHTS):
        model = library.pretrained(path.parent, config, **forms)
    else:
        model = library.model_of(config, weights=True, **forms)
    length, most = seq or DEFAULT_SEQ, getattr(config, "max_position_embeddings", None) or 0
    length = min(length, most) if most > 0 else length  # XLNet says -1 for no limit
    inputs = library.inputs_of(config, model, batch=batch or DEFAULT_BATCH, seq=length, labels=True, values=True)
    program = Program(module=model.train(), inputs=inputs, name=library.config_name(path), seq=length)
    return program, str(path), hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()


def dropout_off(module: Any) -> int:
    """Set dropout to 0 wherever a module keeps its rate, and say in how many modules it was on."""
    found = 0
    for inner in module.modules():
        names = ["p"] if isinstance(inner, torch.nn.modules.dropout._DropoutNd) else [
            name for name, value in vars(inner).items() if "drop" in name and isinstance(value, float)
        ]  # fmt: skip
        on = [name for name in names if getattr(inner, name)]
        for name in on:
            setattr(inner, name, 0.0)
        found += bool(on)
    return found


def redrawn(program: Program, *, seed: int, draw: int, integers: bool = True) -> Program:
    """The same program with other inputs of the same shapes: the values of each tensor in another order.

    So what the program asks of single values (ids in range) still holds; integers in ascending order (offsets, positions) stay.

    Args:
        program: The program.
        seed: Of the order.
        draw: Number of the inputs under this seed.
        integers: Whether integers and booleans change too; some programs ask more of them.
    """
    generator = torch.Generator().manual_seed(1_000_003 * (seed + 1) + draw)

    def other(value: torch.Tensor) -> torch.Tensor:
        real = value.is_floating_point() or value.is_complex()
        if contract.is_ordered(value) or not (real or integers):
            return value
        flat = value.flatten()
        return flat[torch.randperm(flat.numel(), generator=generator)].reshape(value.shape)

    return dataclasses.replace(program, inputs=contract.mapped(program.inputs, other))


def _runs(program: Program) -> bool:
    """Whether the program takes its inputs."""
    with torch.random.fork_rng(devices=[]), torch.no_grad(), contract.buffers_kept(program.module):
        try:
            program.loss_of(program.call())
        except Exception:
            return False
    return True


def parameters(program: Program) -> dict[str, Any]:
    """Weights with gradients by name, tied ones once."""
    return {name: one for name, one in program.module.named_parameters() if one.requires_grad}


def weights_digest(program: Program) -> str:
    """SHA-256 of weights, buffers and inputs, bit by bit."""
    found = hashlib.sha256()
    named = [*program.module.named_parameters(), *program.module.named_buffers()]
    for name, tensor in [*named, *((f"input {at}", one) for at, one in enumerate(tensors_in(program.inputs)))]:
        found.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        found.update(bytes_of(tensor))
    return found.hexdigest()


def bytes_of(tensor: Any) -> bytes:
    """The values, bit by bit, in the order of a contiguous tensor."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return bytes(flat.view(torch.uint8).numpy().tobytes()) if flat.numel() else b""


def _cast(program: Program, dtype: Any) -> Program:
    if dtype is None:
        return program

    with_parts = _COMPLEX.get(dtype)

    def cast(one: torch.Tensor) -> torch.Tensor:
        if one.is_complex():  # Module.to would make it real
            return one if with_parts is None else one.to(with_parts)
        return one.to(dtype) if one.is_floating_point() else one

    return dataclasses.replace(program, module=program.module._apply(cast), inputs=contract.mapped(program.inputs, cast))


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """PyTorch's generator of the CPU at a seed, and as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
