"""The catalogue: chips and systems of the folders on the search path, read when they are asked for.

The search path is the bundled folder, then the folders of the flag ``--chips-dir``, of the environment variable
``SAPPER_CHIPS_PATH`` and of the entry points ``sapper.chips``. All are treated alike; no file overrides another.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from sapper import messages, units
from sapper.chips.names import Head, Index
from sapper.chips.parse import KINDS, parse
from sapper.chips.schema import Chip, System
from sapper.errors import AmbiguousName, BadFile, UnknownName
from sapper.files import parse_toml, read_text

ENVIRONMENT = "SAPPER_CHIPS_PATH"
ENTRY_POINTS = "sapper.chips"
BUNDLED = str(Path(__file__).parent / "data")

_TABLE = re.compile(r"^[ \t]*\[\[?[^\[\]=,]+\]\]?[ \t]*(?:#.*)?$", re.MULTILINE)
_change: contextvars.ContextVar[Callable[[Chip], Chip] | None] = contextvars.ContextVar("sapper_chips_change", default=None)
_flagged: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar("sapper_chips_dirs", default=())

T = TypeVar("T", Chip, System)


class _Lazy(Mapping[str, T]):
    """Entries by id, each file parsed when it is first asked for."""

    def __init__(self, heads: Mapping[str, Head], load: Callable[[Head], Any]) -> None:
        self._heads = heads
        self._load = load
        self._loaded: dict[str, T] = {}

    def __getitem__(self, id_: str) -> T:
        if id_ not in self._loaded:
            self._loaded[id_] = self._load(self._heads[id_])
        return self._loaded[id_]

    def __contains__(self, id_: object) -> bool:
        return id_ in self._heads

    def __iter__(self) -> Iterator[str]:
        return iter(self._heads)

    def __len__(self) -> int:
        return len(self._heads)


class Catalogue:
    """Chips and systems by id, and the names that they bear."""

    def __init__(self, heads: Sequence[Head], change: Callable[[Chip], Chip] = lambda chip: chip) -> None:
        """A catalogue of the files of ``heads``; every chip goes through ``change`` when it is first asked for."""
        self._heads = tuple(heads)
        chips = {head.id: head for head in heads if head.kind != "system"}
        systems = {head.id: head for head in heads if head.kind == "system"}
        self.chips: Mapping[str, Chip] = _Lazy(chips, lambda head: change(cast(Chip, _load(head))))
        """Every chip by id."""
        self.systems: Mapping[str, System] = _Lazy(systems, _load)
        """Every system by id."""
        self.names = Index(chips.values())
        self.system_names = Index(systems.values())

    def changed(self, change: Callable[[Chip], Chip]) -> Catalogue:
        """The same catalogue with every chip as ``change`` makes it."""
        return Catalogue(self._heads, change)

    def resolve(self, name: str) -> Chip:
        """The one chip that ``name`` means: its id, its name or an alias, in any case, with or without the vendor.

        Raises:
            AmbiguousName: Several chips bear the name; the error lists them.
            UnknownName: No chip does; the error lists near names.
        """
        found = self.find(name)
        if len(found) > 1:
            raise self.ambiguous(name, found)
        return found[0]

    def find(self, name: str) -> list[Chip]:
        """All chips that bear ``name``, at least one.

        Raises:
            UnknownName: No chip does.
        """
        ids = self.names.find(name)
        if not ids:
            raise self._unknown(name)
        return [self.chips[id_] for id_ in ids]

    def resolve_system(self, name: str) -> System:
        """The one system that ``name`` means.

        Raises:
            AmbiguousName: Several systems bear the name.
            UnknownName: None does.
        """
        ids = self.system_names.find(name)
        if len(ids) == 1:
            return self.systems[ids[0]]
        if ids:
            listed = "\n".join(f"  {id_}  {self.systems[id_].name}" for id_ in ids)
            raise AmbiguousName("SP-CHIP-002", name=name, count=len(ids), candidates=listed, ids=tuple(ids), first=ids[0])
        raise UnknownName("SP-CHIP-004", name=name, near=", ".join(self.system_names.near(name)) or "-")

    def ambiguous(self, name: str, found: Sequence[Chip]) -> AmbiguousName:
        """The error that lists the chips that ``name`` may mean."""
        width = max(len(chip.id) for chip in found)
        listed = "\n".join(f"  {chip.id:{width}}  {distinction(chip)}" for chip in found)
        ids = tuple(chip.id for chip in found)
        return AmbiguousName("SP-CHIP-002", name=name, count=len(found), candidates=listed, ids=ids, first=ids[0])

    def _unknown(self, name: str) -> UnknownName:
        systems = self.system_names.find(name)
        if systems:
            system = self.systems[systems[0]]
            count = messages.Phrase("chips.unknown") if system.count is None else str(system.count)
            return UnknownName("SP-CHIP-003", name=name, system=system.id, count=count, chip=system.chip)
        near = self.names.near(name)
        if not near:
            return UnknownName("SP-CHIP-005", name=name, ids=())
        return UnknownName("SP-CHIP-001", name=name, near=", ".join(near), ids=tuple(n.partition(" ")[0] for n in near))


def distinction(chip: Chip) -> str:
    """Memory, peak and bandwidth of a chip on one line: what tells it from its namesakes."""
    parts = []
    capacity, bandwidth = chip.memory.capacity_bytes, chip.memory.bandwidth_bytes_per_s
    unknown = messages.text("chips.unknown")
    parts.append(units.gib(capacity.number) if capacity and capacity.number else unknown)
    for dtype in ("bf16", "fp16"):
        fact = chip.peak_flops_per_s.get(dtype)
        if fact and fact.number:
            parts.append(f"{units.scaled(fact.number, 'FLOP/s')} {dtype}")
            break
    parts.append(units.scaled(bandwidth.number, "B/s") if bandwidth and bandwidth.number else unknown)
    return ", ".join(parts)


def use_dirs(dirs: Sequence[str | os.PathLike[str]]) -> None:
    """Put folders (or single files) on the search path of this context, as ``--chips-dir`` does."""
    _flagged.set(tuple(os.fspath(folder) for folder in dirs))


def use_change(change: Callable[[Chip], Chip] | None) -> None:
    """Let every chip of this context's catalogue go through ``change``, such as one that adds the user's own measurements."""
    _change.set(change)


def catalogue(dirs: Sequence[str | os.PathLike[str]] = ()) -> Catalogue:
    """The catalogue of the search path; read once per path.

    Args:
        dirs: Further folders or files, besides those of :func:`use_dirs`, the environment and the entry points.

    Raises:
        BadFile: A folder is missing, a file's head cannot be read, or two files bear one id.
    """
    environment = tuple(part for part in os.environ.get(ENVIRONMENT, "").split(os.pathsep) if part)
    found, change = _catalogue((*(os.fspath(folder) for folder in dirs), *_flagged.get(), *environment)), _change.get()
    return found if change is None else _changed(found, change)


def resolve(name: str) -> Chip:
    """The chip that ``name`` means in the catalogue of the search path; see :meth:`Catalogue.resolve`."""
    return catalogue().resolve(name)


@functools.lru_cache(maxsize=8)
def _changed(found: Catalogue, change: Callable[[Chip], Chip]) -> Catalogue:
    return found.changed(change)


@functools.lru_cache(maxsize=64)
def _catalogue(given: tuple[str, ...]) -> Catalogue:
    heads: dict[str, Head] = {}
    for path in chip_files((BUNDLED, *given, *_from_entry_points())):
        head = read_head(path)
        if head.id in heads:
            raise BadFile("SP-CHIP-006", where=path, id=head.id, first=heads[head.id].path)
        heads[head.id] = head
    return Catalogue(sorted(heads.values(), key=lambda head: (head.path.startswith(BUNDLED) is False, head.vendor, head.path)))


def chip_files(folders: Sequence[str]) -> list[str]:
    """The TOML files of ``folders`` (a file stands for itself), each once.

    Raises:
        BadFile: A folder that is not there or cannot be listed.
    """
    found: dict[str, str] = {}
    for folder in folders:
        path = Path(folder).expanduser()
        try:
            if path.is_file():
                files = [path]
            elif path.is_dir():
                files = sorted(path.rglob("*.toml"))
            else:
                raise BadFile("SP-CHIP-007", where=folder)
        except (OSError, ValueError) as error:
            raise BadFile("SP-CHIP-007", where=folder) from error
        for file in files:
            found.setdefault(os.path.realpath(file), str(file))
    return list(found.values())


@functools.cache
def _from_entry_points() -> tuple[str, ...]:
    if not _has_entry_points():
        return ()
    from importlib import metadata

    return tuple(_folder_of(point) for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda p: p.name))


def _has_entry_points() -> bool:
    """Whether any installed distribution offers chips: importing importlib.metadata to learn that takes 30 ms, this takes 3."""
    section = f"[{ENTRY_POINTS}]".encode()
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for name in os.listdir(folder or "."):
                if name.endswith((".dist-info", ".egg-info")):
                    with contextlib.suppress(OSError), open(os.path.join(folder, name, "entry_points.txt"), "rb") as file:
                        if section in file.read():
                            return True
    return False


def _folder_of(point: Any) -> str:
    """The folder that an entry point names: a path, a function that returns one, or a package whose folder it is."""
    try:
        target = point.load()
        if callable(target):
            target = target()
        if hasattr(target, "__path__"):
            target = next(iter(target.__path__))
        return str(os.fspath(target))
    except Exception as error:  # a plug-in may raise anything; the user must learn which one did
        raise BadFile("SP-CHIP-008", where=f"entry point {point.name}", target=point.value, problem=str(error)) from error


def read_head(path: str) -> Head:
    """Id, names and kind of a file, from what stands before its first table.

    Raises:
        BadFile: Unreadable, malformed, or without the fields that every chip has.
    """
    text = read_text(path)
    first = _TABLE.search(text)
    try:
        table = tomllib.loads(text[: first.start()] if first else text)
    except (tomllib.TOMLDecodeError, RecursionError):
        table = parse_toml(text, path)
    aliases, vendor_zh, kind = table.get("aliases", []), table.get("vendor_zh"), table.get("kind", "chip")
    named = all(isinstance(table.get(key), str) and table[key].strip() for key in ("id", "vendor", "name"))
    listed = isinstance(aliases, list) and all(isinstance(alias, str) for alias in aliases)
    if not named or not listed or kind not in KINDS or not isinstance(vendor_zh, (str, type(None))):
        _refuse(path, text)
    return Head(
        id=table["id"], vendor=table["vendor"], vendor_zh=vendor_zh, name=table["name"], aliases=tuple(aliases), kind=kind, path=path,
    )


def _load(head: Head) -> Chip | System:
    text = read_text(head.path)
    parsed = parse(parse_toml(text, head.path), where=head.path, text=text)
    if parsed.entry is None:
        _refuse(head.path, text)
    assert parsed.entry is not None
    return parsed.entry


def _refuse(path: str, text: str) -> None:
    """Raise the first fault of a file, with the number of the others."""
    faults = parse(parse_toml(text, path), where=path, text=text).faults
    if not faults:
        raise BadFile("SP-CHIP-009", where=path)
    first, more = faults[0], len(faults) - 1
    raise BadFile("SP-CHIP-010", where=first.where, problem=messages.Phrase(first.code, **first.values), file=path, more=more)
