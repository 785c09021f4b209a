"""Targets: the software stacks that code is ported to, one table each in ``data/targets.toml``.

Keyed by vendor and never by a word that two of them share: `xpu` is Intel and Kunlunxin, `hccl` is Habana and Huawei.
"""

from __future__ import annotations

import difflib
import functools
from pathlib import Path

import msgspec

from sapper import files, messages
from sapper.errors import UnknownName

_DATA = Path(__file__).parent / "data"


class Target(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One target, as ``data/targets.toml`` has it."""

    name: str
    """As ``--to`` takes it: ``ascend``, ``musa``, ``rocm``, ..."""
    en: str
    zh: str
    aliases: tuple[str, ...] = ()
    device: str
    """Device type in PyTorch: ``npu``, ``musa``, ``xpu``, ...; ``cuda`` where the stack presents itself as CUDA."""
    module: str | None = None
    """Module that stands for ``torch.cuda``: ``torch.npu``, ``torch.musa``, ...; None where it is ``torch.cuda`` itself."""
    plugin: str | None = None
    """Package whose import registers the device: ``torch_npu``, ...; None where PyTorch has it built in."""
    shim: str | None = None
    """Import that redirects ``torch.cuda`` at run time (``torch_npu.contrib.transfer_to_npu``); None where there is none."""
    collective: str | None = None
    """Name of its backend of ``torch.distributed``: ``hccl``, ``mccl``, ``nccl``, ..."""
    source: str
    date: str


@functools.cache
def targets() -> dict[str, Target]:
    """All targets by name, in the order of the file."""
    tables = files.read_toml(_DATA / "targets.toml")
    return {name: files.decode(Target, {"name": name, **table}, _DATA / "targets.toml") for name, table in tables.items()}


def find(name: str) -> Target:
    """The target that ``name`` or an alias of it names.

    Raises:
        UnknownName: SP-SCAN-001, with near names.
    """
    wanted = name.strip().lower()
    for target in targets().values():
        if wanted == target.name or wanted in target.aliases:
            return target
    near = difflib.get_close_matches(wanted, targets(), n=3) or list(targets())
    raise UnknownName("SP-SCAN-001", name=name, near=", ".join(f"`{item}`" for item in near))


def label(target: Target) -> str:
    """The target's name for a reader, in the language in force."""
    return target.zh if messages.language() == "zh" else target.en
