"""A text by lines, as Python's parser counts them, and where words stand in it."""

from __future__ import annotations

import ast
import bisect
import functools
import itertools
import re
from collections.abc import Iterable, Iterator

from sapper.port.python.docstrings import spans
from sapper.port.vocabulary import Vocabulary, lowered, positions


class Words:
    """Pieces of text, in lower case, by which a line is worth a look.

    Args:
        anywhere: Those that count on any line.
        imported: Those that count on a line that speaks of importing: names of packages, which are used by what is imported.
    """

    def __init__(self, anywhere: Iterable[str], imported: Iterable[str] = ()) -> None:
        self.anywhere, self.imported = tuple(anywhere), tuple(imported)
        self.vocabulary = Vocabulary((*self.anywhere, *self.imported))
        self._anywhere = frozenset(self.anywhere)

    def counts(self, word: str, at: int, lowered: str) -> bool:
        """Whether a word of the vocabulary, which stands at a position of a text in lower case, counts there."""
        return word in self._anywhere or (_begins_name(lowered, at) and _imports(lowered, at))


class Lines:
    """The lines of ``text``; lines count from 1, positions and columns from 0, in characters."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._said: tuple[Words, frozenset[int]] | None = None
        self._rebinding: dict[str, tuple[tuple[int, str], ...]] = {}

    @functools.cached_property
    def all(self) -> list[str]:
        """The lines without their ends."""
        text = self.text
        return (text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text).split("\n")

    @functools.cached_property
    def ends(self) -> list[int]:
        """Where each of :attr:`all` ends, its line feed included, in a text that is made of them."""
        return list(itertools.accumulate(map((1).__add__, map(len, self.all))))

    @functools.cached_property
    def _ends(self) -> list[int]:
        return [match.end() for match in re.finditer(r"\r\n|\n|\r", self.text)] if "\r" in self.text else self.ends

    def line_at(self, position: int) -> int:
        """The line in which a position is."""
        return bisect.bisect_right(self._ends, position) + 1

    def column(self, line: int, column_bytes: int) -> int:
        """The parser's column, which counts bytes of UTF-8, in characters."""
        text = self.all[line - 1] if line <= len(self.all) else ""
        return column_bytes if text.isascii() else len(text.encode("utf-8", "surrogatepass")[:column_bytes].decode("utf-8", "ignore"))

    def lines_of(self, words: Iterable[str], *, whole: bool = False, span: tuple[int, int] | None = None) -> set[int]:
        """Lines in which one of ``words`` stands.

        Args:
            words: What to look for.
            whole: Not as a part of a longer name.
            span: First and last line to look at; None for all.
        """
        start, end = (0, len(self.text)) if span is None else (self._start(span[0]), self._start(span[1] + 1))
        return {self.line_at(position) for position in positions(self.text, words, whole=whole, start=start, end=end)}

    def rebinding(self, name: str) -> tuple[tuple[int, str], ...]:
        """Lines that may bind ``name``, or bind another name to it or (then with those) to its attributes; and some others."""
        if name not in self._rebinding:
            self._rebinding[name] = tuple(self._rebinding_of(name))
        return self._rebinding[name]

    def _rebinding_of(self, name: str) -> Iterator[tuple[int, str]]:
        text, following = self.text, 0
        while (start := text.find(name, following)) >= 0:
            following = start + len(name)
            if text.endswith(_BINDS_NEXT, 0, start):
                yield self.line_at(start), ""
            before = text[start - 1 : start]
            match = _REBOUND.match(text, following)
            if match is None:
                continue
            following = match.end()
            if before == "." or before == "_" or before.isalnum():
                continue
            rest = match["rest"]
            if rest is None or text[text.rfind("\n", 0, start) + 1 : start].rstrip().endswith("="):
                yield self.line_at(start), rest or ""
        yield from ((line, "") for line in self._importing_modules)

    @functools.cached_property
    def _importing_modules(self) -> tuple[int, ...]:
        return tuple(self.line_at(at) for at in positions(self.text, ("import_module",)))

    @functools.cached_property
    def imports(self) -> list[ast.Import | ast.ImportFrom]:
        """The import statements of the text, wherever they stand; those that go on over lines that are no list of names, not."""
        return [node for match in self._import_statements() for node in _imports_of(match[0].lstrip())]

    def _import_statements(self) -> Iterator[re.Match[str]]:
        text, at = self.text, self.text.find("import")
        while at >= 0:
            match = _IMPORT.match(text, text.rfind("\n", 0, at) + 1)
            if match is not None:
                yield match
            following = text.find("\n", at if match is None else match.end())
            at = text.find("import", following) if following >= 0 else -1

    def _start(self, line: int) -> int:
        return self._ends[line - 2] if 1 < line <= len(self._ends) + 1 else 0 if line <= 1 else len(self.text)

    def said(self, words: Words) -> frozenset[int]:
        """Lines of code that say ``words``, without regard to case; worked out once for the same words.

        Lines of comments and of docstrings are none: nothing is found there.
        """
        if self._said is None or self._said[0] is not words:
            self._said = (words, frozenset(self._saying(words)))
        return self._said[1]

    def _saying(self, words: Words) -> Iterator[int]:
        text = self._lowered
        docstrings: list[tuple[int, int]] | None = None
        done = 0  # all before this position is settled
        for word, at in words.vocabulary.places(text):
            if at < done or not words.counts(word, at, text):
                continue
            line = self.line_at(at)
            start, done = self._start(line), self._start(line + 1)
            if self.text[start:at].lstrip().startswith("#"):
                continue
            if docstrings is None:
                docstrings = spans(self.text)
            before = bisect.bisect_right(docstrings, (at, len(text))) - 1
            if before >= 0 and at < docstrings[before][1]:
                done = docstrings[before][1]
            else:
                yield line

    @functools.cached_property
    def _lowered(self) -> str:
        return lowered(self.text)


def _begins_name(text: str, at: int) -> bool:
    """Whether a dotted name begins at a position: a package is no part of another's name (``post_training.modelopt``)."""
    before = text[at - 1 : at]
    return not (before.isalnum() or before in ("_", "."))


def _imports(text: str, at: int) -> bool:
    """Whether the line around a position speaks of importing."""
    end = text.find("\n", at)
    return text.find("import", text.rfind("\n", 0, at) + 1, end if end >= 0 else len(text)) >= 0


_IMPORT = re.compile(r"[ \t]*(?:from[ \t]+[.\w]+[ \t]+import[ \t]*(?:\([^)]*\)|[\w*][\w, \t]*)|import[ \t]+[\w., \t]*\w)")


@functools.lru_cache(maxsize=1 << 13)
def _imports_of(statement: str) -> tuple[ast.Import | ast.ImportFrom, ...]:
    """What a line says that imports, with places of its own; the files of a project import the same, line for line."""
    try:
        tree = ast.parse(statement)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    return tuple(node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)))


_TARGETS = r"[ \t]*(?:,[\w,. \t]*)?\)?"
_BINDS_NEXT = ("def ", "class ", "as ", "getattr(")
"""What stands before a name that is bound, or whose attributes may be bound to another."""
_REBOUND = re.compile(
    rf"{_TARGETS}(?::[^=\n]*)?:?=(?!=)|{_TARGETS}[ \t]+in\b|[ \t]*:|(?P<rest>(?:\.\w+)*)[ \t]*(?:$|\#)", re.MULTILINE
)
"""What follows a name where it may be bound; or (``rest``) what a line ends with and another name may be bound to."""
