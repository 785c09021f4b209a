"""What the files of a project say about one another: names of CUDA that they give to others.

``pkg/utils.py`` imports ``Stream`` from ``torch.cuda``; ``pkg/train.py`` takes ``Stream`` from ``pkg.utils`` and nowhere
names CUDA. The index holds what each file gives away; files that import it are read again with the index at hand, and what
they give away in turn is added, until nothing is new.
"""

from __future__ import annotations

import functools
import itertools
import re
import string
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import msgspec

from sapper.port.python import names
from sapper.port.python.carrier import Carrier

if TYPE_CHECKING:
    from sapper.port.python.module import Module

T = TypeVar("T", "Export", "Carrier")

ROUNDS = 8
"""How many files a name may come through, at the least; a scan that reads givers first needs one or two."""


class Export(msgspec.Struct, frozen=True, array_like=True):
    """A name of a file that stands for something of CUDA's."""

    name: str
    """Qualified by the file's path: ``src.pkg.utils.Stream``."""
    meaning: str
    """``torch.cuda.Stream``."""
    origin: str
    """``path:line`` where it is bound."""


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """What all files give away, by the names under which others may import it."""

    exports: dict[str, Export] = {}
    carriers: dict[str, Carrier] = {}
    modules: dict[str, list[str]] = {}
    """Modules that give something away, and the names that they give."""

    def __bool__(self) -> bool:
        return bool(self.modules)

    def __contains__(self, qualified: str) -> bool:
        return qualified in self.exports or qualified in self.carriers

    def beside(self, other: Index) -> Index:
        """What only one of two indices says, or each otherwise."""
        exports = _beside(self.exports, other.exports)
        carriers = _beside(self.carriers, other.carriers)
        return Index(exports=exports, carriers=carriers, modules=_modules(exports, carriers))

    def says_as(self, other: Index) -> bool:
        """Whether ``other`` says of the same names the same."""
        return self.exports == other.exports and self.carriers == other.carriers

    def meaning(self, qualified: str) -> str | None:
        """What a name of the project stands for; None where it is not known to be CUDA's."""
        found = self.exports.get(qualified)
        return found.meaning if found else None


def _beside(one: dict[str, T], other: dict[str, T]) -> dict[str, T]:
    found: dict[str, T] = {}
    for name, item in itertools.chain(one.items(), other.items()):
        if one.get(name) != other.get(name):
            found[name] = item
    return found


EMPTY = Index()


class Ledger:
    """An index that grows file by file.

    A file's dotted path says more than others write (``src.pkg.utils`` is imported as ``pkg.utils``), so each name is known
    by every end of its path; an end that means two things is known for neither.
    """

    def __init__(self, known: Index = EMPTY) -> None:
        """Begin with what is ``known``."""
        modules = {module: list(given) for module, given in known.modules.items()}
        self.index = Index(exports=dict(known.exports), carriers=dict(known.carriers), modules=modules)
        self.heard = 0
        """How often the index has changed."""
        self._seen: dict[tuple[type, str], Export | Carrier] = {(Export, name): item for name, item in known.exports.items()}
        self._seen.update({(Carrier, name): item for name, item in known.carriers.items()})
        self._changed: dict[str, int] = {}
        """At which change something was heard last of a name, or of what a module gives."""

    def add(self, exports: Iterable[Export], carriers: Iterable[Carrier]) -> None:
        """Enter what a file gives away."""
        for export in exports:
            self._enter(export, self.index.exports)
        for carrier in carriers:
            self._enter(carrier, self.index.carriers)

    def _enter(self, item: T, known: dict[str, T]) -> None:
        modules = self.index.modules
        for name in _ends(item.name):
            first = self._seen.setdefault((type(item), name), item)
            module, _, last = name.rpartition(".")
            if first is item:
                known[name] = item
                modules.setdefault(module, []).append(last)
                self._note(name, module)
            elif name not in known:
                self._note(name, module)  # a process that was never told of the name took it for known
            elif _meaning(first) != _meaning(item) and name != first.name:
                del known[name]
                modules[module].remove(last)
                if not modules[module]:
                    del modules[module]
                self._note(name, module)

    def _note(self, *names: str) -> None:
        self.heard += 1
        self._changed.update(dict.fromkeys(names, self.heard))

    def tells_more(self, imported: Iterable[str], heard: int) -> bool:
        """May a file that imports these names be given something else than when so much was ``heard``?"""
        changed = self._changed
        return any(max(changed.get(name, 0), changed.get(name.removesuffix(".*"), 0)) > heard for name in imported)


def _meaning(item: Export | Carrier) -> object:
    return item.meaning if isinstance(item, Export) else (item.kind, item.origin)


def _modules(*qualified: Iterable[str]) -> dict[str, list[str]]:
    modules: dict[str, list[str]] = {}
    for name in itertools.chain(*qualified):
        modules.setdefault(name.rpartition(".")[0], []).append(name.rpartition(".")[2])
    return modules


def _ends(name: str) -> Iterator[str]:
    while "." in name:
        yield name
        name = name.partition(".")[2]


def exports(module: Module) -> Iterator[Export]:
    """What ``module`` gives away: names of its own scope that lead to CUDA."""
    for name, qualified in module.bindings.everywhere():
        meaning = module.through(qualified)
        if module.hides(meaning):
            yield Export(f"{module.name}.{name}", meaning, f"{module.source.path}:{module.bindings.line_of(name)}")


_IMPORT = re.compile(rb"[ \t]*(?:from[ \t]+(\.*[\w.]*)[ \t]+import[ \t]*(\([^)]*\)|[^\n#;]*)|import[ \t]+([\w., \t]+))")
_WORD = re.compile(rb"(\w[\w.]*|\*)(?:[ \t]+as[ \t]+\w+)?")


def imports(data: bytes, path: str) -> Iterator[str]:
    """Qualified names that a file imports, read from its text; ``pkg.*`` for all of a module."""
    module, package = names.dotted(path), path.endswith("__init__.py")
    for match in _import_statements(data):
        if match[3] is not None:
            yield from _words(match[3])
            continue
        source = match[1].decode("utf-8", "replace")
        base = names.absolute(module, package=package, level=len(source) - len(source.lstrip(".")), name=source.lstrip(".") or None)
        yield from (f"{base}.{word}" for word in _words(match[2]))


@functools.lru_cache(maxsize=1 << 13)
def _words(listed: bytes) -> tuple[str, ...]:
    """The names of a list; the files of a project import the same, line for line."""
    return tuple(word[1].decode("utf-8", "replace") for word in _WORD.finditer(listed))


def _import_statements(data: bytes) -> Iterator[re.Match[bytes]]:
    at = data.find(b"import")
    while at >= 0:
        match = _IMPORT.match(data, data.rfind(b"\n", 0, at) + 1)
        if match is not None:
            yield match
        following = data.find(b"\n", at if match is None else match.end() - 1)
        at = data.find(b"import", following) if following >= 0 else -1


def may_concern(imported: Iterable[str], index: Index) -> bool:
    """May a file that imports these names take something of the index?"""
    return any(name in index or name.removesuffix(".*") in index.modules for name in imported)


def concerning(imported: Iterable[str], index: Index) -> Index:
    """The part of the index that files which import these names may take of."""
    taken: set[str] = set()
    for name in imported:
        module = name.removesuffix(".*")
        taken.update((name, *(f"{module}.{given}" for given in index.modules.get(module, ()))))
    return _only(taken, index)


def _only(names: Iterable[str], index: Index) -> Index:
    exports = {name: index.exports[name] for name in names if name in index.exports}
    carriers = {name: index.carriers[name] for name in names if name in index.carriers}
    return Index(exports=exports, carriers=carriers, modules=_modules(exports, carriers))


def given_to(data: bytes, imported: Iterable[str], index: Index) -> Index:
    """What of the index a file of this content takes, which imports these names."""
    return _only(dict.fromkeys(_taken(data, imported, index)), index)


def _taken(data: bytes, imported: Iterable[str], index: Index) -> Iterator[str]:
    """Names of the index that are imported, and those of an imported module that the text says behind a dot."""
    for name in imported:
        if name in index:
            yield name
        module = name.removesuffix(".*")
        for given in index.modules.get(module, ()):
            if module != name or _says_attribute(data, given):
                yield f"{module}.{given}"


_NAME_GOES_ON = frozenset(f"{string.ascii_letters}{string.digits}_".encode()) | frozenset(range(128, 256))


def _says_attribute(data: bytes, name: str) -> bool:
    """Whether ``.name`` stands in a text, and not as the beginning of a longer name."""
    written = f".{name}".encode()
    at = data.find(written)
    while at >= 0:
        end = at + len(written)
        if end == len(data) or data[end] not in _NAME_GOES_ON:
            return True
        at = data.find(written, end)
    return False
