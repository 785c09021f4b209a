"""In which order the Python files of a project are read: those that others import come first.

The order saves work and changes no finding: a file that was read before all was known of what it takes is read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sapper.port.python.names import dotted

_MOST_ALIKE = 8
"""A name that ends more modules than that (``utils``) tells nothing."""


def givers_first(files: Sequence[tuple[str, Sequence[str]]]) -> list[int]:
    """Numbers of files, by path and what each imports, so that where it can be what is imported stands before what imports."""
    modules = _modules([path for path, _imports in files])
    done: set[int] = set()
    ordered: list[int] = []
    for number in range(len(files)):
        stack = [(number, _imported(files[number][1], modules))] if number not in done else []
        done.add(number)
        while stack:
            at, rest = stack[-1]
            following = next((one for one in rest if one not in done), None)
            if following is None:
                ordered.append(at)
                stack.pop()
            else:
                done.add(following)
                stack.append((following, _imported(files[following][1], modules)))
    return ordered


def _modules(paths: Sequence[str]) -> dict[str, list[int]]:
    """Files by each end of their dotted names."""
    found: dict[str, list[int]] = {}
    for number, path in enumerate(paths):
        name = dotted(path)
        while name:
            found.setdefault(name, []).append(number)
            name = name.partition(".")[2]
    return found


def _imported(names: Sequence[str], modules: dict[str, list[int]]) -> Iterator[int]:
    """The files that imports of these names may mean: ``pkg.utils.Stream`` is a module or a name of one."""
    for name in names:
        stem = name.removesuffix(".*")
        for module in (stem, stem.rpartition(".")[0]):
            found = modules.get(module, ())
            if len(found) <= _MOST_ALIKE:
                yield from found
