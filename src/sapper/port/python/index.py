"""What the files of a project say about one another: names of CUDA that they give to others.

``pkg/utils.py`` imports ``Stream`` from ``torch.cuda``; ``pkg/train.py`` takes ``Stream`` from ``pkg.utils`` and nowhere
names CUDA. The index holds what each file gives away; files that import it are read again with the index at hand, and what
they give away in turn is added, until nothing is new.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

import msgspec

from sapper.port.python import names
from sapper.port.python.carrier import Carrier

if TYPE_CHECKING:
    from sapper.port.python.module import Module

T = TypeVar("T", "Export", "Carrier")

ROUNDS = 3
"""How many files a name may come through."""


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

    def without(self, other: Index) -> Index:
        """What ``other`` does not know; empty where it knows all."""
        exports = {name: export for name, export in self.exports.items() if name not in other.exports}
        carriers = {name: carrier for name, carrier in self.carriers.items() if name not in other.carriers}
        return Index(exports=exports, carriers=carriers, modules=_modules(exports, carriers))

    def meaning(self, qualified: str) -> str | None:
        """What a name of the project stands for; None where it is not known to be CUDA's."""
        found = self.exports.get(qualified)
        return found.meaning if found else None


EMPTY = Index()


def of(exports: Iterable[Export], carriers: Iterable[Carrier]) -> Index:
    """The index of what files give away.

    A file's dotted path says more than others write (``src.pkg.utils`` is imported as ``pkg.utils``), so each name is known
    by every end of its path; an end that means two things is known for neither.
    """
    by_name = _known_by(exports, lambda export: export.meaning)
    carrying = _known_by(carriers, lambda carrier: (carrier.kind, carrier.origin))
    return Index(exports=by_name, carriers=carrying, modules=_modules(by_name, carrying))


def _modules(*qualified: Iterable[str]) -> dict[str, list[str]]:
    modules: dict[str, list[str]] = {}
    for name in itertools.chain(*qualified):
        modules.setdefault(name.rpartition(".")[0], []).append(name.rpartition(".")[2])
    return modules


def _known_by(given: Iterable[T], meaning: Callable[[T], object]) -> dict[str, T]:
    found: dict[str, T] = {}
    twice: set[str] = set()
    for item in given:
        for name in _ends(item.name):
            if meaning(found.setdefault(name, item)) != meaning(item):
                twice.add(name)
    return {name: item for name, item in found.items() if name not in twice or name == item.name}


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
            yield from (word[1].decode("utf-8", "replace") for word in _WORD.finditer(match[3]))
            continue
        source = match[1].decode("utf-8", "replace")
        base = names.absolute(module, package=package, level=len(source) - len(source.lstrip(".")), name=source.lstrip(".") or None)
        yield from (f"{base}.{word[1].decode('utf-8', 'replace')}" for word in _WORD.finditer(match[2]))


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


def concerned(data: bytes, path: str, index: Index) -> bool:
    """Does a file import something of the index, or a module that gives something away and of it what it gives?"""
    return any(True for _name in _taken(data, path, index))


def given_to(data: bytes, path: str, index: Index) -> Index:
    """What of the index a file imports."""
    taken = set(_taken(data, path, index))
    names_of_cuda = {name: export for name, export in index.exports.items() if name in taken}
    carriers = {name: carrier for name, carrier in index.carriers.items() if name in taken}
    return Index(exports=names_of_cuda, carriers=carriers, modules=_modules(names_of_cuda, carriers))


def _taken(data: bytes, path: str, index: Index) -> Iterator[str]:
    for name in imports(data, path):
        if name in index:
            yield name
        module = name.removesuffix(".*")
        for given in index.modules.get(module, ()):
            if module != name or f".{given}".encode() in data:
                yield f"{module}.{given}"
