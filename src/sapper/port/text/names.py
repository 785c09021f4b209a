"""Names of dependencies: how lists and commands write them, and which rule knows them.

A rule's ``packages`` are distribution names with, where needed, ``*`` for any rest, ``[extra]`` for one extra, ``==`` for
exact versions only, and the kind before a colon: ``conda:cudnn``, ``system:libnccl*`` (apt, yum, ...); without a kind,
packages of PyPI, which conda installs too.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from sapper.port.rule import Rule

Kind = Literal["pip", "conda", "system"]

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_REQUIREMENT = re.compile(rf"(?P<name>{_NAME})[ \t]*(?:\[(?P<extras>[^\]\n]*)\])?[ \t]*(?P<version>(?:[=<>!~]=?=?|@)[^;#\n]*)?")
_URL = re.compile(r"(?:git\+|hg\+)?(?:https?|ssh|git|file)://\S+|git@\S+")
_WHEEL = re.compile(r"([A-Za-z0-9_.]+)-([0-9][^-/]*)-(?:[^-/]+-)?[^-/]+-[^-/]+-[^-/]+\.whl")
_ARCHIVE = re.compile(r"([A-Za-z0-9_.-]+?)-([0-9][\w.]*)\.(?:tar\.gz|zip|tar\.bz2)")
_EXACT = re.compile(r"===?[ \t]*([^,;\s*]+)(?:$|[,;\s])|(?<![<>!~=])=([^=,;\s*]+)$")


CPU_BUILD = "+cpu"
"""What a version of PyTorch ends with that has no CUDA."""


class Dependency(NamedTuple):
    """One entry of a list or of a command."""

    name: str
    """Normalised as PEP 503 says."""
    extras: tuple[str, ...]
    version: str | None
    """Only if exact."""
    start: int
    end: int
    """Of the name with its extras, or of the URL, in the text."""


def normalised(name: str) -> str:
    """A distribution name as PEP 503 compares it: lower case, runs of ``-_.`` as one hyphen."""
    return re.sub(r"[-_.]+", "-", name).lower()


def dependency(text: str, start: int) -> Dependency | None:
    """The dependency that ``text``, found at ``start``, asks for: ``name[extra]==1.0``, ``name @ URL``, a URL, a wheel."""
    lead = len(text) - len(text.lstrip())
    text, start = text.strip(), start + lead
    url = _URL.match(text)
    if url is not None:
        return _from_url(url[0], start)
    found = _REQUIREMENT.match(text)
    if found is None:
        return None
    if text.endswith(".whl"):
        return _from_url(text, start)
    rest = text[found.end() :].lstrip()
    if rest and rest[0] not in ";,)#\\'\"":
        return None
    version = _EXACT.search(found["version"] or "")
    extras = tuple(normalised(extra.strip()) for extra in (found["extras"] or "").split(",") if extra.strip())
    end = found.end("extras") + 1 if found["extras"] is not None else found.end("name")
    exact = (version[1] or version[2]) if version else None
    return Dependency(normalised(found["name"]), extras, exact, start, start + end)


def _from_url(url: str, start: int) -> Dependency | None:
    """What a URL installs: the wheel's or archive's name, or the repository's."""
    end = start + len(url.rstrip("\"',)"))
    egg = re.search(r"#egg=([\w.-]+)", url)
    path = re.split(r"[#?]", url)[0].rstrip("/\"',)")
    last = path.rpartition("/")[2]
    for shape in (_WHEEL, _ARCHIVE):
        found = shape.search(last.replace("%2B", "+"))
        if found:
            return Dependency(normalised(found[1]), (), found[2], start, end)
    name = egg[1] if egg else last.partition("@")[0].removesuffix(".git")
    return Dependency(normalised(name), (), None, start, end) if name else None


class Known:
    """The packages of a set of rules."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._exact: dict[tuple[Kind, str], list[tuple[str, bool, Rule]]] = {}
        self._globs: list[tuple[Kind, str, str, bool, Rule]] = []
        for rule in rules:
            for entry in rule.match.packages:
                self._add(entry, rule)

    def _add(self, entry: str, rule: Rule) -> None:
        kind: Kind = "conda" if entry.startswith("conda:") else "system" if entry.startswith("system:") else "pip"
        name, _, extra = entry.rpartition(":")[2].removesuffix("==").removesuffix("]").partition("[")
        pinned = entry.endswith("==")
        if "*" in name:
            self._globs.append((kind, name, extra, pinned, rule))
        else:
            self._exact.setdefault((kind, normalised(name)), []).append((extra, pinned, rule))

    def rule_of(self, asked: Dependency, kind: Kind) -> Rule | None:
        """The rule that knows a dependency of a list of ``kind``; the exact name counts before a pattern."""
        kinds: tuple[Kind, ...] = ("pip", "conda") if kind == "conda" else (kind,)
        for wanted in kinds:
            for extra, pinned, rule in self._exact.get((wanted, asked.name), ()):
                if _fits(asked, extra, pinned=pinned):
                    return rule
            for its_kind, glob, extra, pinned, rule in self._globs:
                if its_kind == wanted and fnmatch.fnmatchcase(asked.name, glob) and _fits(asked, extra, pinned=pinned):
                    return rule
        return None


def _fits(asked: Dependency, extra: str, *, pinned: bool) -> bool:
    if pinned and (asked.version is None or asked.version.endswith(CPU_BUILD)):
        return False
    return not extra or any(fnmatch.fnmatchcase(own, extra) for own in asked.extras)
