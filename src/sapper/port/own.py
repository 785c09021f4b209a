"""A project's own packages: inside vLLM, ``import vllm`` ties nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from sapper.port.rule import Rule

_ROOTS = ("", "src/", "python/", "lib/")


def packages(paths: Iterable[str]) -> frozenset[str]:
    """Names under which the project's own code is imported: packages and modules at its top, in ``src``, or beside a build file.

    A folder further down with the name of a library (``tests/triton``) is not that library.
    """
    paths = set(paths)
    builds = {path.rpartition("/")[0] for path in paths if path.rpartition("/")[2] in ("setup.py", "pyproject.toml")}
    roots = {*_ROOTS, *(f"{folder}/{root}" for folder in builds if folder for root in ("", "src/", "python/"))}
    found = set()
    for path in paths:
        if path.endswith("/__init__.py"):
            folder, _, name = path.removesuffix("/__init__.py").rpartition("/")
        else:
            folder, _, name = path.removesuffix(".py").rpartition("/")
            if not path.endswith(".py"):
                continue
        if not folder or f"{folder}/" in roots:
            found.add(name)
    return frozenset(found)


def without_own(rules: Mapping[str, Rule], paths: Iterable[str]) -> Mapping[str, Rule]:
    """``rules`` without imports of the project's own packages; ``rules`` itself where there are none."""
    own = packages(paths)
    changed = {}
    for code, rule in rules.items():
        mine = {name for name in rule.match.imports if name.partition(".")[0] in own}
        if mine:
            names, imports = (tuple(name for name in given if name not in mine) for given in (rule.match.names, rule.match.imports))
            changed[code] = msgspec.structs.replace(rule, match=msgspec.structs.replace(rule.match, names=names, imports=imports))
    return {**rules, **changed} if changed else rules
