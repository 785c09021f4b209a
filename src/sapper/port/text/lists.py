"""Dependencies in the files that list them; each reader gives the entries with their places, and is lenient: what it does
not understand it passes over, since a broken list still has entries.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from sapper.port.source import Source
from sapper.port.text.names import Dependency, Kind, dependency


class Entry(NamedTuple):
    """A dependency with the list that it stands in."""

    asked: Dependency
    kind: Kind
    optional: bool = False
    """In an extra or a group: it is installed only where somebody asks for that."""


_TOML_SECTION = re.compile(r"[ \t]*\[\[?[ \t]*([^\]\n]+?)[ \t]*\]\]?[ \t]*$")
_TOML_KEY = re.compile(r"[ \t]*(?:\"([^\"\n]+)\"|'([^'\n]+)'|([A-Za-z0-9_.-]+))[ \t]*=[ \t]*(.*)", re.DOTALL)
_TOML_STRING = re.compile(r"\"((?:[^\"\\\n]|\\.)*)\"|'([^'\n]*)'")
_TABLES = re.compile(
    r"(?:tool\.poetry\.(?:dev-)?dependencies|tool\.poetry\.group\.[^.]+\.dependencies|packages|dev-packages|"
    r"tool\.pixi\.(?:feature\.[^.]+\.)?(?:pypi-)?dependencies|tool\.conda-lock\.dependencies)(?:\.(?P<name>.+))?"
)
_OPTIONAL = re.compile(
    r"optional-dependencies|dependency-groups|\.group\.|dev-dependencies|dev-packages|\.envs\.|\.feature\.|extra-dependencies"
)
_MARKER = re.compile(r"[ \t]*(?:\([ \t]*)?(?:python_|platform_|sys_platform|os_name|implementation_|extra[ \t]*==|'|\")")
"""What follows a semicolon behind a requirement: when it applies (PEP 508)."""
_SETUP_KEYS = ("install_requires", "setup_requires", "tests_require", "requires")


def entries(source: Source, text: str) -> Iterator[Entry]:
    """The dependencies of a file that lists them; ``text`` is the source's without comments."""
    if source.language == "requirements":
        yield from _requirements(text)
    elif source.language == "pyproject":
        yield from _toml(text)
    elif source.language == "setup":
        yield from _setup_cfg(text)
    elif source.language == "conda":
        yield from _conda(text)
    elif asks_for_packages(source):
        yield from _setup_py(source.text)


def asks_for_packages(source: Source) -> bool:
    """Is a Python file one that lists dependencies?"""
    return source.path.rpartition("/")[2] == "setup.py"


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Offset and text of each line."""
    at = 0
    for line in text.split("\n"):
        yield at, line
        at += len(line) + 1


def _requirements(text: str) -> Iterator[Entry]:
    for at, line in _lines(text):
        found = re.match(r"[ \t]*(?:-e|--editable)[ \t=]+", line)
        start = found.end() if found else 0
        if not found and line.lstrip().startswith("-"):
            continue
        asked = dependency(line[start:], at + start)
        if asked is not None:
            yield Entry(asked, "pip")


def _toml(text: str) -> Iterator[Entry]:
    section, key, depth = "", "", 0
    for at, line in _lines(text):
        if depth == 0:
            header = _TOML_SECTION.match(line)
            if header is not None:
                section = header[1].replace('"', "").replace(" ", "")
                continue
            found = _TOML_KEY.match(line)
            if found is None:
                continue
            key = found[1] or found[2] or found[3]
            value, start = found[4], at + found.start(4)
            if _TABLES.fullmatch(section):
                yield from _table_entry(section, key, value, at + found.start(1 if found[1] else 2 if found[2] else 3))
        else:
            value, start = line, at
        if _holds_requirements(section, key):
            optional = bool(_OPTIONAL.search(f"{section}.{key}"))
            for string in _TOML_STRING.finditer(value):
                group = 1 if string[1] is not None else 2
                asked = dependency(string[group], start + string.start(group))
                if asked is not None:
                    yield Entry(asked, "pip", optional)
        bare = _TOML_STRING.sub("", value)
        depth = max(depth + bare.count("[") - bare.count("]"), 0)


def _holds_requirements(section: str, key: str) -> bool:
    if section == "project.optional-dependencies" or section == "dependency-groups" or section.endswith("dev-dependencies"):
        return True
    return key.endswith(("dependencies", "requires")) and not _TABLES.fullmatch(section)


def _table_entry(section: str, key: str, value: str, at: int) -> Iterator[Entry]:
    """``name = "^1.0"`` or ``name = {version = "1.0", extras = ["x"]}`` of a table of dependencies."""
    found = _TABLES.fullmatch(section)
    if found is None or found["name"]:
        return
    version = re.match(r"[\"']=*([0-9][^\"'*,<>]*)[\"']", value) or re.search(r"version[ \t]*=[ \t]*[\"']=*([0-9][^\"'*,<>]*)[\"']", value)
    extras = re.search(r"extras[ \t]*=[ \t]*\[([^\]]*)\]", value)
    names = tuple(extra.strip(" \"'").lower() for extra in extras[1].split(",")) if extras else ()
    asked = dependency(key, at)
    if asked is not None:
        optional = bool(_OPTIONAL.search(section)) or bool(re.search(r"optional[ \t]*=[ \t]*true", value))
        kind: Kind = "conda" if section.startswith("tool.pixi") and "pypi" not in section else "pip"
        yield Entry(asked._replace(extras=names, version=version[1] if version else None), kind, optional)


def _setup_cfg(text: str) -> Iterator[Entry]:
    section, key = "", ""
    for at, line in _lines(text):
        header = re.match(r"\[([^\]]+)\]", line)
        if header is not None:
            section, key = header[1].strip(), ""
            continue
        start = 0
        found = re.match(r"([\w.-]+)[ \t]*[=:][ \t]*", line)
        if found is not None and not line[:1].isspace():
            key, start = found[1], found.end()
        extra = section == "options.extras_require"
        if not extra and not (section in ("options", "metadata") and key in _SETUP_KEYS):
            continue
        for part in re.finditer(r"[^;\n]+", line[start:]):
            asked = None if _MARKER.match(part[0]) else dependency(part[0], at + start + part.start())
            if asked is not None:
                yield Entry(asked, "pip", extra or key == "tests_require")


def _conda(text: str) -> Iterator[Entry]:
    pip_indent: int | None = None
    for at, line in _lines(text):
        found = re.match(r"([ \t]*)-[ \t]+([\"']?)(.*)", line)
        if found is None:
            continue
        indent, value, start = len(found[1]), found[3], at + found.start(3)
        if re.match(r"pip[\"']?[ \t]*:", value):
            pip_indent = indent
            continue
        if pip_indent is not None and indent <= pip_indent:
            pip_indent = None
        channel = re.match(r"[\w./-]+::", value)
        if channel is not None:
            value, start = value[channel.end() :], start + channel.end()
        spaced = re.match(r"([\w.-]+)[ \t]+[\d=<>!~].*", value)
        asked = dependency(spaced[1] if spaced else value.rstrip("\"' \t\r"), start)
        if asked is not None:
            yield Entry(asked, "conda" if pip_indent is None else "pip")


def _setup_py(text: str) -> Iterator[Entry]:
    """Strings in lists of ``setup.py``: those of ``install_requires`` and of lists that may be handed to it."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    lines = text.split("\n")
    extras = {id(inner) for outer in ast.walk(tree) if _is_extras(outer) for inner in ast.walk(outer)}
    for node in ast.walk(tree):
        if not isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            continue
        for item in node.elts:
            if isinstance(item, ast.Constant) and isinstance(item.value, str) and item.lineno == item.end_lineno:
                line = lines[item.lineno - 1]
                column = len(line.encode()[: item.col_offset].decode("utf-8", "replace"))
                asked = dependency(item.value, starts[item.lineno - 1] + column + 1)
                if asked is not None:
                    yield Entry(asked, "pip", id(item) in extras)


def _is_extras(node: ast.AST) -> bool:
    if isinstance(node, ast.keyword):
        return node.arg in ("extras_require", "tests_require")
    if isinstance(node, ast.Assign):
        target = node.targets[0]
        return isinstance(target, (ast.Name, ast.Subscript)) and "extra" in ast.unparse(target).lower()
    return False
