"""Rules: one coupling each, one file each, ``rules/data/<area>/SP-PORT-NNN.toml``.

The file holds what the scanner looks for, what the reader is told (in both languages), and an example which the tests
run: ``before`` must give the finding, and ``fix`` must turn it into ``after``. A rule is added by adding a file.

Numbers by area: 1xx calls of ``torch.cuda``; 2xx device strings and placement; 3xx precision and AMP; 4xx distributed;
5xx compiled code in Python (Triton, JIT-built ops, graphs, torch.compile); 6xx dependencies; 7xx build and environment
(Docker, shell, CMake, CI); 8xx couplings that name no CUDA (defaults, capability logic, carried values); 9xx C++/CUDA.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal

import msgspec

from sapper import files, messages

Class = Literal[
    "device",
    "memory",
    "stream",
    "random",
    "capability",
    "precision",
    "distributed",
    "compile",
    "kernel",
    "library",
    "build",
    "profiling",
    "carried",
]
Grade = Literal["safe", "unsafe", "display", "none"]

_DATA = Path(__file__).parent / "rules" / "data"


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the scanners look for; each reads the fields of its language.

    Python: ``names`` are qualified names after aliases are resolved, ``*`` at the end matches any rest; ``methods`` are
    attributes on receivers of the program's own (``x.cuda()``); ``strings`` are regular expressions for whole literals,
    each counted only where it flows into a device; ``keywords`` are keyword arguments as ``callee:keyword``;
    ``detector`` names a function of ``port/python/detectors``, and ``words`` are pieces of text, without regard to case, by
    which a line is worth its while. Other languages: ``patterns``, one regular expression per entry, on text without comments.
    ``packages`` are dependencies by distribution name (as :mod:`sapper.port.text.names` writes them), ``imports`` by module
    name, each where it is imported; a module that is in ``names`` too is found wherever it is used.
    """

    languages: tuple[str, ...] = ("python",)
    names: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    strings: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    detector: str | None = None
    purposes: dict[str, str] = {}
    """Codes of the rules that take over where a name is asked for something else (:mod:`~sapper.port.python.purpose`)."""


class Words(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a reader is told, in one language. ``title`` is one clause with ``{symbol}``; the others are Markdown."""

    title: str
    what: str
    why: str
    safety: str | None = None
    """When the rewrite may change what the program does."""
    limits: str | None = None
    """What the rule does not see, or sees wrongly."""


class Example(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file before and after ``fix``; ``after`` is None where there is nothing to rewrite."""

    before: str
    after: str | None = None
    path: str = "train.py"


class Reference(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page that the rule rests on, with the date on which it was read."""

    url: str
    date: str


class Rule(msgspec.Struct, frozen=True, kw_only=True, rename={"klass": "class"}, forbid_unknown_fields=True):
    """A rule, as its file has it."""

    code: str
    name: str
    """A slug, such as ``cuda-is-available``."""
    klass: Class
    silent: bool
    """Does the program go on without a word, slower or less exact, where the target has no CUDA?"""
    fix: Grade
    """The best rewrite that ``port fix`` has."""
    match: Match
    en: Words
    zh: Words
    examples: tuple[Example, ...] = ()
    references: tuple[Reference, ...] = ()
    of_use: bool = False
    """Whether the rule is about what a name is used for: then its verdicts come before those of the name."""

    def words(self, lang: str | None = None) -> Words:
        """The texts in ``lang``, by default the language in force."""
        return self.zh if (lang or messages.language()) == "zh" else self.en


@functools.cache
def rules() -> dict[str, Rule]:
    """All rules by code, in order of their codes."""
    found = [files.decode(Rule, files.read_toml(path), path) for path in sorted(_DATA.glob("*/SP-PORT-*.toml"), key=lambda path: path.name)]
    return {rule.code: rule for rule in found}
