"""Where a key stands in a TOML or JSON text, since the standard parsers drop the lines.

Keys are dotted, with indices in brackets: ``measured[2].source``. The scanner expects text that has parsed before, and
is used only when a message needs a line.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import re

_TOKEN = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}'  # multi-line strings, which may end in two quotes of their own
    r'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\''
    r"|\#[^\n]*|\n|[\[\]{}=.,:]|[^\s\[\]{}=.,:\"'#]+",
    re.DOTALL,
)
_LAST_PART = re.compile(r"(^|\.)[^.\[\]]*$|\[[^\[\]]*\]$")


def toml_line(text: str, dotted_key: str) -> int | None:
    """Line of a key in TOML text; of the nearest table above it where the key is absent; None where that is too."""
    return _nearest(_toml_lines(text), dotted_key)


@functools.lru_cache(maxsize=8)
def _toml_lines(text: str) -> dict[str, int]:
    """Lines of all keys; a file with many faults is scanned once."""
    scanner = _Scanner(text, assign="=")
    with contextlib.suppress(RecursionError):  # a line is a comfort: of a text this deep, what was found so far will do
        scanner.document()
    return scanner.lines


def json_line(text: str, dotted_key: str) -> int | None:
    """Line of a key in JSON text, with the same fallback as :func:`toml_line`."""
    scanner = _Scanner(text, assign=":")
    with contextlib.suppress(RecursionError):
        scanner.value("")
    return _nearest(scanner.lines, dotted_key)


def _nearest(lines: dict[str, int], key: str) -> int | None:
    while key and key not in lines:
        # A quoted key may hold any character, brackets too: what the pattern does not cut loses its last one.
        key = _LAST_PART.sub("", key) if _LAST_PART.search(key) else key[:-1]
    return lines.get(key)


class _Scanner:
    """Walks the tokens once and notes the line of each key."""

    def __init__(self, text: str, *, assign: str) -> None:
        self.assign = assign
        self.lines: dict[str, int] = {}
        self.at = 0
        self.tokens: list[tuple[str, int]] = []
        line = 1
        for match in _TOKEN.finditer(text):
            if not match[0].startswith("#"):
                self.tokens.append((match[0], line))
            line += match[0].count("\n")

    def peek(self) -> str | None:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else None

    def next(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1][0]

    def note(self, path: str) -> None:
        if self.at < len(self.tokens):
            self.lines.setdefault(path, self.tokens[self.at][1])

    def document(self) -> dict[str, int]:
        """A TOML document: headers and assignments."""
        table = ""
        counts: dict[str, int] = {}
        while (token := self.peek()) is not None:
            if token == "\n":
                self.next()
            elif token == "[":
                table = self.header(counts)
            else:
                self.assignment(table)
        return self.lines

    def header(self, counts: dict[str, int]) -> str:
        """A ``[table]`` or ``[[array of tables]]``; returns the path of the table that it opens."""
        line = self.tokens[self.at][1]
        self.next()
        many = self.peek() == "["
        path = ""
        while (token := self.peek()) not in ("]", "\n", None):
            self.next()
            if token not in ("[", "."):
                if path in counts:
                    path = f"{path}[{counts[path] - 1}]"
                path = _join(path, token or "")
        while self.peek() not in ("\n", None):
            self.next()
        if many:
            counts[path] = counts.get(path, 0) + 1
            self.lines.setdefault(path, line)
            path = f"{path}[{counts[path] - 1}]"
        elif path in counts:
            path = f"{path}[{counts[path] - 1}]"
        self.lines.setdefault(path, line)
        return path

    def assignment(self, path: str) -> None:
        """``key.key = value`` under ``path``."""
        while (token := self.peek()) not in (self.assign, "\n", None):
            if token != ".":
                path = _join(path, token or "")
                self.note(path)
            self.next()
        if self.peek() == self.assign:
            self.next()
            self.value(path)

    def value(self, path: str) -> None:
        """A value that stands at ``path``, with what is inside it."""
        self.blank()
        token = self.peek()
        if token not in ("[", "{"):
            while self.peek() not in ("\n", ",", "]", "}", None):
                self.next()
            return
        self.next()
        index = 0
        while True:
            self.blank()
            inner = self.peek()
            if inner is None or inner in ("]", "}"):
                break
            start = self.at
            if token == "{":
                self.assignment(path)
            else:
                self.note(f"{path}[{index}]")
                self.value(f"{path}[{index}]")
                index += 1
            if self.peek() == "," or self.at == start:
                self.next()
        if self.peek() is not None:
            self.next()

    def blank(self) -> None:
        while self.peek() == "\n":
            self.next()


def _join(path: str, token: str) -> str:
    if token[:1] in ('"', "'"):
        with contextlib.suppress(SyntaxError, ValueError):
            token = str(ast.literal_eval(token))
    return f"{path}.{token}" if path else token
