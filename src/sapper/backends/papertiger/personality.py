"""Personality: what a papertiger is like, as a TOML file; the format is described in docs/papertiger.md."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec

from sapper.errors import BadFile, UnknownName
from sapper.files import decode, line_of, parse_toml, read_text

FOLDER = Path(__file__).parent.parent / "data" / "papertiger"
FOLDER_VARIABLE = "SAPPER_PAPERTIGERS"
"""Folders with personalities of the user's own, as in PATH; they come before ours."""
DEFAULT = "honest-fp32"

Format = Literal["fp64", "fp32", "hf32", "tf32", "bf16", "fp16", "fp8_e4m3", "fp8_e5m2"]
Kind = Literal[
    "wrong-kernel", "narrow-accumulation", "low-precision-input", "wrong-constant", "cancellation", "missed-nan", "stale-attributes",
    "stale-output", "tile-edge", "dropped-tail", "silent-fallback", "crash", "hang", "out-of-memory", "nondeterminism", "lost-gradient",
    "scaled-gradient", "flush-denormals", "wrong-rounding", "swapped-arguments", "ignored-strides", "bad-element", "bias", "saturation",
    "integer-overflow", "uninitialised", "leftover",
]  # fmt: skip
KINDS: tuple[str, ...] = get_args(Kind)
TAKEN = frozenset({
    "cpu", "cuda", "fpga", "hip", "hpu", "ipu", "lazy", "maia", "meta", "mps", "mtia", "opencl", "ort", "ideep", "mkldnn", "privateuseone",
    "ve", "vulkan", "xla", "xpu",
})  # fmt: skip
"""Names of device types that PyTorch itself has; an emulated chip can bear none of them."""
DTYPES = frozenset({
    "bfloat16", "bool", "complex128", "complex32", "complex64", "float16", "float32", "float64", "float8_e4m3fn", "float8_e5m2", "int16",
    "int32", "int64", "int8", "uint8", "uint16", "uint32", "uint64",
})  # fmt: skip
Positive = Annotated[int, msgspec.Meta(ge=1)]


class Text(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sentence in both languages."""

    en: str = ""
    zh: str = ""


class Precision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the chip computes where nothing is wrong; the fields of :class:`~sapper.backends.papertiger.kernels.Arithmetic`."""

    matmul_input: Format = "fp32"
    accumulator: Format = "fp32"
    chunk: Positive = 64
    result: Format = "fp32"
    transcendental_ulp: Annotated[float, msgspec.Meta(ge=0, le=1024)] = 1.0
    flush_denormals: bool = False
    rounding: Literal["nearest", "toward-zero"] = "nearest"
    nan: Literal["propagate", "number", "zero"] = "propagate"
    """``number``: max, min, relu and clamp return the operand that is a number. ``zero``: every NaN result becomes 0."""
    overflow: Literal["infinity", "saturate"] = "infinity"


class Absent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the chip does not have."""

    ops: tuple[str, ...] = ()
    """Patterns as in file names, of ``aten::name`` or ``aten::name.overload``."""
    dtypes: tuple[str, ...] = ()
    """PyTorch's names: ``float64``."""
    op_dtypes: dict[str, tuple[str, ...]] = {}
    """Dtypes that single ops do not take, by patterns of their names."""


class Memory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Its memory."""

    capacity_bytes: Positive | None = None
    pinned: bool = True
    """Whether ``pin_memory`` gives pinned memory; else it gives the tensor back as it is."""


class Collectives(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What its collectives do not take."""

    absent_dtypes: tuple[str, ...] = ()


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that is wrong with the chip, and where it shows. All selectors given must hold."""

    kind: Kind
    op: tuple[str, ...] | str = "*"
    """Patterns of op names, as in :class:`Absent`."""
    dtype: tuple[str, ...] = ()
    """Dtypes that the op reads; none: all."""
    phase: Literal["any", "forward", "backward"] = "any"
    shape: tuple[int, ...] | None = None
    """Shape of the first tensor, -1 for any size."""
    min_numel: int = 0
    """Elements of the first tensor, at least."""
    modulo: Positive = 1
    """With ``remainder``: only where the first tensor's last dim has this remainder."""
    remainder: int | None = None
    call: int | None = None
    """Only the n-th launch that all other selectors fit, from 1, since the personality was taken on."""
    from_call: Positive = 1
    probability: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    """Of each launch that fits, drawn from the personality's seed."""
    amount: float | None = None
    """Strength, in the unit that the kind defines; its usual strength where None."""
    output: int | None = None
    """Only this output; all floating ones where None."""
    signal: Literal["SIGSEGV", "SIGFPE", "SIGABRT", "SIGKILL"] = "SIGSEGV"
    form: Format = "bf16"
    """Number format of ``narrow-accumulation`` and ``low-precision-input``."""


class Personality(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that makes one papertiger."""

    device: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*$")] = "papertiger"
    """Name of the torch device: ``npu``."""
    vendor: str = ""
    """Whose chip it plays; empty for none."""
    summary: Text = Text()
    source: str = ""
    """Where what is special about it was read."""
    seed: int = 0
    devices: Positive = 1
    """How many of them a process sees."""
    precision: Precision = Precision()
    absent: Absent = Absent()
    memory: Memory = Memory()
    collectives: Collectives = Collectives()
    faults: tuple[Fault, ...] = msgspec.field(name="fault", default=())


def names() -> list[str]:
    """Personalities that are there, the user's own included."""
    return sorted(_files())


def load(name_or_path: str) -> Personality:
    """The personality of a name or a ``.toml`` file.

    Raises:
        UnknownName: No such name.
        BadFile: The file is missing or malformed, or means nothing: the field is named.
    """
    if name_or_path.endswith(".toml"):
        path = name_or_path
    else:
        files = _files()
        if name_or_path not in files:
            near = ", ".join(difflib.get_close_matches(name_or_path, files)) or "-"
            raise UnknownName("SP-TIGER-001", where="--on", name=name_or_path, near=near, known=", ".join(sorted(files)))
        path = str(files[name_or_path])
    text = read_text(path)
    found = decode(Personality, parse_toml(text, path), path, text=text)
    _check(found, path, text=text)
    return found


def _files() -> dict[str, Path]:
    folders = [FOLDER, *(Path(one) for one in reversed(os.environ.get(FOLDER_VARIABLE, "").split(os.pathsep)) if one)]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def _check(found: Personality, path: str, *, text: str) -> None:
    """What types cannot say."""

    def refuse(code: str, key: str, value: object, known: str = "") -> None:
        line = line_of(text, key)
        raise BadFile(code, where=f"{path}:{line}" if line else path, field=key, value=value, known=known)

    if found.device in TAKEN:
        refuse("SP-TIGER-002", "device", found.device)
    named = [
        ("absent.dtypes", found.absent.dtypes), ("collectives.absent_dtypes", found.collectives.absent_dtypes),
        *((f'absent.op_dtypes."{pattern}"', dtypes) for pattern, dtypes in found.absent.op_dtypes.items()),
        *((f"fault[{at}].dtype", one.dtype) for at, one in enumerate(found.faults)),
    ]  # fmt: skip
    for key, dtypes in named:
        for name in dtypes:
            if name not in DTYPES:
                refuse("SP-TIGER-003", key, name)
    patterns = [("absent.ops", pattern) for pattern in found.absent.ops]
    for at, fault in enumerate(found.faults):
        patterns += [(f"fault[{at}].op", pattern) for pattern in ((fault.op,) if isinstance(fault.op, str) else fault.op)]
    for key, pattern in patterns:
        if not re.match(r"aten::|\*|.*::", pattern):
            refuse("SP-TIGER-004", key, pattern)
