"""What each stack answers to code that was written for CUDA, with its shim loaded where it has one: ``data/shims/*.toml``.

A fact that is not in a file was not read. The dry run plays these answers; the verdict tables say what follows for a
finding.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal, get_args

import msgspec

from sapper import files
from sapper.port.rule import Reference

_DATA = Path(__file__).parent / "data" / "shims"

Question = Literal[
    "is_available", "device_string", "device_type", "is_cuda", "device_count", "capability", "version_cuda", "backend",
    "typed_double", "missing_dtypes", "autocast_float16", "grad_scaler", "all_reduce_dtypes", "all_gather_dtypes",
    "reduce_scatter_dtypes", "reduce_average", "pinned_memory", "graphs", "jit_script", "has_triton", "nvtx", "cpp_extension",
    "compile_backend", "absent_ops", "visible_devices",
]  # fmt: skip
"""``is_available``: of ``torch.cuda``. ``device_string``: what ``"cuda"`` becomes where it is redirected, ``raises`` where
nothing takes it. ``device_type``: of a tensor on the chip. ``is_cuda``: of such a tensor. ``device_count``: of ``torch.cuda``.
``capability``: of ``torch.cuda.get_device_capability``. ``version_cuda``: ``torch.version.cuda``. ``backend``: what ``"nccl"``
becomes in ``init_process_group``. ``typed_double``: what ``torch.cuda.DoubleTensor`` holds. ``missing_dtypes``: the chip
computes them not at all, or as something else. ``autocast_float16``: what autocast's float16 becomes. ``grad_scaler``:
whether it scales. ``*_dtypes``: what the collective takes. ``reduce_average``: whether it takes ``ReduceOp.AVG``. ``graphs``:
whether CUDA graphs have a counterpart. ``jit_script``: whether it compiles. ``nvtx``: ``stub`` where its calls do nothing.
``cpp_extension``: whether ``torch.utils.cpp_extension`` builds for the chip. ``compile_backend``: of ``torch.compile``.
``absent_ops``: ``cpu`` where they are computed there. ``visible_devices``: the variable that is read."""


class Fact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer, and where it was read."""

    value: bool | int | str | tuple[str, ...]
    source: str
    """A key of the file's ``sources``."""
    note_en: str | None = None
    note_zh: str | None = None


class Shim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stack answers."""

    target: str
    module: str | None = None
    """Import that redirects ``torch.cuda``; None: the answers are those of the stack as it is."""
    sources: dict[str, Reference]
    answers: dict[Question, Fact]

    def answer(self, question: Question) -> bool | int | str | tuple[str, ...] | None:
        """The answer, or None where nothing was read."""
        fact = self.answers.get(question)
        return None if fact is None else fact.value


def questions() -> tuple[Question, ...]:
    """All that is asked, in order."""
    return get_args(Question)


@functools.cache
def shims() -> dict[str, Shim]:
    """All stacks by target."""
    return {path.stem: files.decode(Shim, {"target": path.stem, **files.read_toml(path)}, path) for path in sorted(_DATA.glob("*.toml"))}
