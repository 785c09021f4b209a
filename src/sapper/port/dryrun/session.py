"""What the processes of a dry run are told, and what they write down; nothing here needs PyTorch."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Literal

import msgspec

VARIABLE = "SAPPER_TRY_SESSION"
"""Environment variable that names the session's file."""
FILE = "session.json"

Outcome = Literal["fails", "silent", "ignored", "carries", "lacks", "shim", "works", "unknown"]
"""What the vendor's stack makes of a touch. ``fails``: it raises. ``silent``: it goes on on another path, mostly the CPU's.
``ignored``: it has no effect. ``carries``: it names CUDA and fails where that is used. ``lacks``: neutral code that asks for
something that the chip does not have. ``shim``: the vendor's redirection takes it. ``works``: as it is. ``unknown``: nobody
has said what becomes of it."""

Kind = Literal["api", "device", "comparison", "flag", "environment", "command", "import", "collective", "checkpoint", "autocast", "chip"]
"""``chip``: not CUDA, but something that the chip lacks: a dtype, an op, pinned memory."""


Answer = Literal["shim", "not", "unknown"]
"""``shim``: the redirection takes it. ``not``: it does not, and the name is left as PyTorch without CUDA has it."""


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """The software stack that is played."""

    target: str
    device: str
    """Device type that the program sees: ``npu``."""
    collective: str | None
    """Backend of ``torch.distributed``: ``hccl``."""
    plugins: tuple[str, ...] = ()
    """Packages whose import succeeds because the stack has them: ``torch_npu``."""
    device_modules: tuple[str, ...] = ()
    """Their modules that are the device's own: ``torch_npu.npu`` is ``torch.npu``."""
    plugin_names: dict[str, tuple[str, ...]] = {}
    """What else they offer to an import, by module."""
    shim_module: str | None = None
    """Import that redirects ``torch.cuda``; taken as switched on when the program imports it."""
    personality: str
    """Of the emulated chip: a name or a file."""
    native: bool = True
    """Whether PyTorch lets a plug-in bear the device's name; else the chip has a name of its own and is shown as ``device``."""
    as_cuda: bool = False
    """The stack presents itself as CUDA (ROCm, Kunlunxin, Iluvatar)."""
    answers: dict[str, Answer] = {}
    """What the shim makes of names (``torch.cuda.is_available``), ``*`` at the end for any rest; of others nothing is known."""


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a process needs to know."""

    folder: str
    """Where each process writes a file of JSON lines."""
    root: str
    """The project; files under it are the user's own."""
    stack: Stack
    shim: bool
    strict: bool
    """Answer as the vendor's stack does, failures included; else go on as ported code would."""
    autoload: bool = True
    """Whether ``import torch`` brings the plug-in with it, as ``TORCH_DEVICE_BACKEND_AUTOLOAD`` says."""
    watched: dict[str, tuple[int, ...]] = {}
    """Lines of findings, by path relative to the root: those that the run reaches are told."""
    packages: tuple[str, ...] = ()
    """Modules that need CUDA, such as ``flash_attn``; an import of one is told."""
    exempt: dict[str, tuple[int, ...]] = {}
    """Lines that are CUDA's own by intent (guarded, a vendor's branch, kept): they get the stack's true answer."""


class Note(msgspec.Struct, frozen=True):
    """A sentence of ours about a touch: ``port.try.note.KEY`` of the messages, and what fills it."""

    key: str
    values: dict[str, str] = {}


class Touch(msgspec.Struct, kw_only=True):
    """One place where the program touched CUDA, or asked the chip for what it lacks."""

    kind: Kind
    symbol: str
    outcome: Outcome
    path: str
    """Relative to the root for the user's own files; as Python knows it for others."""
    line: int
    end_line: int
    function: str
    owner: str = ""
    """Package that the file belongs to; empty for the user's own."""
    via: str | None = None
    """``path:line`` of the user's own that led there, where the place is in a package."""
    says: str | None = None
    """What the stack says: the error's type and text, or the answer."""
    note: Note | None = None
    """What is lost, where the stack says nothing."""
    literal: bool = True
    """Whether the line itself names CUDA; False: the device came from elsewhere in the program."""
    thread: str = "MainThread"
    process: int = 0
    rank: str | None = None
    count: int = 1


class Unit(msgspec.Struct, kw_only=True):
    """What one process did."""

    process: int
    parent: int
    command: tuple[str, ...]
    torch: str | None = None
    rank: str | None = None
    on_chip: dict[str, int] = {}
    """Launches on the chip, by op."""
    on_host: dict[str, int] = {}
    """Computations on the CPU, by op, of the main thread and of backward passes."""
    copied_in: int = 0
    copied_out: int = 0
    ended: bool = False
    """Whether it came to its end; counts of one that did not are what was known last."""


@functools.cache
def current() -> Session:
    """The session that this process belongs to, read from the file that the environment names."""
    return msgspec.json.decode(Path(os.environ[VARIABLE]).read_bytes(), type=Session)
