"""``# sapper: keep SP-PORT-101``: an author's word that a coupling is meant, in the comment of any language.

Behind code the comment speaks of that line; alone on its line, of the next line that is not a comment; as ``keep-file``,
of the whole file. It names each code (``SP-PORT-1xx`` means the hundred), and may go on with a reason after ``--``::

    torch.cuda.init()  # sapper: keep SP-PORT-101 -- this tool is for NVIDIA alone
"""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from sapper.port.finding import Finding, UnusedKeep
from sapper.port.source import Language, Source

_HINT = "apper:"
"""Stands in every such comment, and in few texts besides."""
_ASKS = re.compile(r"[Ss]apper:[^\S\n]*keep")
_HASH, _SLASH = r"#", r"//|/\*|\*"
_OPENERS: dict[Language, str] = {"cuda": _SLASH, "cpp": _SLASH, "config": rf"{_HASH}|{_SLASH}|;|--|%|<!--"}
"""What begins a comment; a hash where a language is not named. (In C++ a hash begins a directive.)"""
_WORDS = r"[^\S\n]*[Ss]apper:[^\S\n]*keep(?P<file>-file)?\b[:\s]*(?P<rest>.*)"
_CODE = re.compile(r"SP-PORT-\d(?:\d\d|xx)", re.IGNORECASE)


class Keep(msgspec.Struct, frozen=True, kw_only=True):
    """One comment."""

    path: str
    line: int
    """Where the comment stands."""
    codes: tuple[str, ...]
    """Empty where it names none: then it keeps nothing."""
    first: int
    last: int
    """Lines that it speaks of, both included; 1 and a great number for the whole file."""


_END = 2**31


def speaks(text: str) -> bool:
    """Whether a file may have such a comment: one without is read no further."""
    return _HINT in text and _ASKS.search(text) is not None


def apply(source: Source, findings: Sequence[Finding]) -> list[Finding]:
    """The findings of ``source``, those that its comments speak of with the standing ``kept``."""
    return settle(keeps(source), findings)[0]


def keeps(source: Source) -> tuple[Keep, ...]:
    """The comments of a file."""
    if not speaks(source.text):
        return ()
    lines, opener = source.text.split("\n"), _OPENERS.get(source.language, _HASH)
    pattern = re.compile(rf"(?:{opener}){_WORDS}")
    found = _python_comments(source.text, pattern) if source.language == "python" else _comments(lines, pattern)
    alone = [not line.strip() or re.match(rf"\s*(?:{opener})", line) is not None for line in lines]
    return tuple(_keep(source.path, alone, number, match) for number, match in found)


def settle(comments: Iterable[Keep], findings: Iterable[Finding]) -> tuple[list[Finding], list[UnusedKeep]]:
    """All findings, kept where a comment says so, and the codes that kept nothing."""
    by_path: dict[str, list[Keep]] = {}
    for comment in comments:
        by_path.setdefault(comment.path, []).append(comment)
    used: set[tuple[Keep, str]] = set()
    settled = []
    for finding in findings:
        near = by_path.get(finding.place.path, ())
        hits = [(comment, code) for comment in near for code in comment.codes if _speaks(comment, code, finding)]
        used.update(hits)
        settled.append(msgspec.structs.replace(finding, standing="kept") if hits else finding)
    unused = [
        UnusedKeep(path=comment.path, line=comment.line, code=code)
        for group in by_path.values()
        for comment in group
        for code in (comment.codes or (None,))
        if code is None or (comment, code) not in used
    ]
    return settled, sorted(unused, key=lambda one: (one.path, one.line, one.code or ""))


def _speaks(comment: Keep, code: str, finding: Finding) -> bool:
    place = finding.place
    named = finding.code == code or (code.endswith("xx") and finding.code[:-2] == code[:-2])
    return named and comment.first <= place.end_line and comment.last >= place.line


def _keep(path: str, alone: list[bool], number: int, match: re.Match[str]) -> Keep:
    rest = match["rest"].partition("--")[0]
    codes = tuple(dict.fromkeys(code[:8].upper() + code[8:].lower() for code in _CODE.findall(rest)))
    if match["file"]:
        first, last = 1, _END
    elif alone[number - 1]:
        first = last = _next_code(alone, number)
    else:
        first = last = number
    return Keep(path=path, line=number, codes=codes, first=first, last=last)


def _next_code(alone: list[bool], number: int) -> int:
    """The first line below ``number`` that is neither blank nor a comment; ``number`` itself where the file ends."""
    return next((at + 1 for at in range(number, len(alone)) if not alone[at]), number)


def _comments(lines: list[str], pattern: re.Pattern[str]) -> Iterator[tuple[int, re.Match[str]]]:
    for number, line in enumerate(lines, start=1):
        match = pattern.search(line)
        if match:
            yield number, match


def _python_comments(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, re.Match[str]]]:
    """Comments by Python's own tokens, so that words inside a string keep nothing; by lines where it cannot be read."""
    try:
        tokens = [token for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type == tokenize.COMMENT]
    except (tokenize.TokenError, SyntaxError):
        yield from _comments(text.split("\n"), pattern)
        return
    for token in tokens:
        match = pattern.search(token.string)
        if match:
            yield token.start[0], match
