"""A CUDA source rewritten for a stack of the same dialect: names, headers, and branches that are decided there.

Every byte that no edit covers stays. What the names do not settle (warps of another width, assembly, tensor cores, numbers
of NVIDIA's, names that the stack does not have) is returned beside the text, with its lines; nothing is claimed of it.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from sapper.port import native, rule
from sapper.port.kernels import arguments
from sapper.port.kernels.includes import Includes
from sapper.port.kernels.left import Left, foreign, left
from sapper.port.kernels.resolve import Edit, line_end, resolved
from sapper.port.kernels.tables import Stack, Table, table
from sapper.port.native.lexer import Lexed, lex
from sapper.port.native.names import WORD, places
from sapper.port.source import Source

_URL = re.compile(r"\b\w+://[^\s\"'<>)]+|\b(?:github|gitlab|gitee)\.com/[^\s\"'<>)]+")
_PLAIN = re.compile(r"[A-Za-z_]\w*(?:\.cuh?\b)?")
_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include\b", re.MULTILINE)
_ONCE = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+once[^\n]*\n", re.MULTILINE)


class Converted(msgspec.Struct, frozen=True, kw_only=True):
    """A file for the other stack."""

    source: str
    """Path of the original."""
    path: str
    """Where the converted file belongs: beside the original, or in the folder of that stack."""
    original: str
    text: str
    encoding: str
    """Of the original, as a codec's name."""
    edits: tuple[Edit, ...]
    """In the original text, in order and apart from each other; the result is the original with these and nothing else."""
    left: tuple[Left, ...]
    """What a person has to look at, by line of the original; empty is a pure rename."""


def convert(source: Source, to: Stack, *, twins: Mapping[str, str] | None = None, roc: bool = False) -> Converted:
    """One file.

    Args:
        source: Of language ``cuda`` or ``cpp``.
        to: ``musa`` or ``hip``.
        twins: New paths of the project's files by their old ones, for what this one includes; a file that is not converted
            has its own path. What is not here is renamed by the stack's table.
        roc: With the names of the roc libraries, not of the portable ones; HIP alone.
    """
    names, lexed = table(to, roc=roc), lex(source.text)
    found = native.find(source, rule.rules())
    decided = resolved(lexed, names, foreign=foreign(found, source.text))
    cuts = [edit._replace(text=WORD.sub(lambda match: names.word(match[0]), edit.text)) for edit in decided]
    path = (twins or {}).get(source.path) or names.paths.renamed(source.path)
    includes = Includes(source.path, path, twins or {}, names)
    edits = [*_words(lexed, names), *includes.edits(lexed), *arguments.wrapped(lexed.code, names.arguments)]
    runtime = _runtime(source, lexed, names, edits)
    if runtime:
        edits.append(runtime)
    kept = tuple(_merged(cuts, edits))
    text = _applied(source.text, kept)
    rest = left(found, lexed, names, kept)
    return Converted(source=source.path, path=path, original=source.text, text=text, encoding=source.encoding, edits=kept, left=rest)


def _words(lexed: Lexed, names: Table) -> Iterator[Edit]:
    code = lexed.code
    second = names.second if any("cublas_v2.h" in lexed.text[start:end] for start, end in lexed.headers) else {}
    for word in set(WORD.findall(code)):
        new = second.get(word) or names.word(word)
        if new != word:
            for start in places(code, word):
                yield Edit(start, start + len(word), new)
    if names.prose:
        for start, end in [*lexed.comments, *lexed.strings]:
            yield from _prose(lexed.text, start, end, names)


def _prose(text: str, start: int, end: int, names: Table) -> Iterator[Edit]:
    """Words of a comment or a message; addresses of the web stay."""
    addresses = [match.span() for match in _URL.finditer(text, start, end)]
    for match in _PLAIN.finditer(text, start, end):
        if any(first <= match.start() < last for first, last in addresses):
            continue
        name, dot, suffix = match[0].partition(".")
        new = names.word(name) + names.paths.suffixes.get(dot + suffix, dot + suffix)
        if new != match[0]:
            yield Edit(match.start(), match.end(), new)


def _runtime(source: Source, lexed: Lexed, names: Table, edits: list[Edit]) -> Edit | None:
    """The runtime's header, where a file for nvcc left it to the compiler."""
    header = names.runtime
    if header is None or not source.path.endswith(".cu") or not edits:
        return None
    if any(header in edit.text for edit in edits) or any(header in lexed.text[start:end] for start, end in lexed.headers):
        return None
    place = _INCLUDE.search(lexed.code)
    once = _ONCE.search(lexed.code)
    at = place.start() if place else once.end() if once else 0
    return Edit(at, at, f"#include <{header}>{line_end(source.text)}")


def _merged(cuts: list[Edit], edits: list[Edit]) -> Iterator[Edit]:
    """In order; of two that overlap the cut, else the one that begins first."""
    starts = [cut.start for cut in cuts]

    def cut_at(place: int) -> bool:
        index = bisect.bisect_right(starts, place) - 1
        return index >= 0 and place < cuts[index].end

    end = -1
    for edit in sorted([*cuts, *(edit for edit in edits if not cut_at(edit.start))], key=lambda one: (one.start, one.end)):
        if edit.start >= end:
            yield edit
            end = max(end, edit.end)


def _applied(text: str, edits: Iterable[Edit]) -> str:
    parts, end = [], 0
    for edit in edits:
        parts += [text[end : edit.start], edit.text]
        end = edit.end
    return "".join([*parts, text[end:]])
