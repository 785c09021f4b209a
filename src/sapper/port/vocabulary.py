"""Which of some hundred words a text holds, and where, in one pass over it.

Looking for each word by itself reads a text as many times as there are words. Where ``ahocorasick-rs`` is installed (the
extra ``port``), an automaton of all words goes through the text, 2 ns a byte. Elsewhere the text is cut into identifiers,
and those that were never seen before are searched; a project says the same few thousand over and over, and that takes
20 ns a byte. What is found is the same.
"""

from __future__ import annotations

import importlib
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from typing import Any


def _library() -> Any:
    """The module of automata, where it is installed and is one that knows what is asked of it here (1.0 and newer)."""
    try:
        found = importlib.import_module("ahocorasick_rs")
    except ImportError:
        return None
    return found if hasattr(found, "BytesAhoCorasick") and hasattr(found, "Implementation") else None


_automata = _library()

_WORD_CHARACTERS = frozenset(f"{string.ascii_letters}{string.digits}_".encode())
_IDENTIFIERS = bytes(code if code in _WORD_CHARACTERS or code >= 128 else 32 for code in range(256))
"""Blanks for whatever ends an identifier."""
_SHORTEST_PIECE = 4
_MOST_REMEMBERED = 400_000
"""Identifiers; files of data can hold any number of them."""


class Vocabulary:
    """``words``, in lower case, each with a letter or a digit in it."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(dict.fromkeys(words))
        self._search: _Automaton | _Identifiers = _Automaton(self.words) if _automata is not None else _Identifiers(self.words)

    def said(self, lowered: bytes) -> set[str]:
        """The words that stand in a text, anywhere; ``lowered`` is the text in lower case, in an encoding that keeps ASCII."""
        return self._search.said(lowered)

    def places(self, lowered: str) -> list[tuple[str, int]]:
        """Each word with each position at which it stands in a text in lower case, about in the order of the positions."""
        return self._search.places(lowered)


class _Automaton:
    """A finite automaton of all words (A. V. Aho and M. J. Corasick, Communications of the ACM 18, 1975)."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        kind = _automata.Implementation.DFA
        self._automaton = _automata.BytesAhoCorasick([word.encode() for word in words], implementation=kind)

    def said(self, lowered: bytes) -> set[str]:
        words = self._words
        return {words[number] for number, _start, _end in self._automaton.find_matches_as_indexes(lowered, overlapping=True)}

    def places(self, lowered: str) -> list[tuple[str, int]]:
        words, data = self._words, _bytes(lowered)
        found = self._automaton.find_matches_as_indexes(data, overlapping=True)
        if len(data) == len(lowered):
            return [(words[number], start) for number, start, _end in found]
        # Positions of characters: what lies between two matches is decoded once.
        at = characters = 0
        told: list[tuple[str, int]] = []
        for start, number in sorted((start, number) for number, start, _end in found):
            characters += len(data[at:start].decode("utf-8", "surrogatepass"))
            at = start
            told.append((words[number], characters))
        return told


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class _Identifiers:
    """Searches the identifiers of a text, each once for all texts."""

    def __init__(self, words: Iterable[str]) -> None:
        self._pieces: dict[bytes, list[str]] = {}
        """Words by their longest part that lies inside an identifier."""
        self._others: list[str] = []
        """Words like ``.to(0`` whose parts are in too many identifiers."""
        self._parts: dict[str, tuple[bytes, frozenset[bytes]]] = {}
        """Words of several parts, with their bytes, and with the parts that are whole identifiers: nothing else is beside them."""
        for word in words:
            found = re.findall(r"\w+", word)
            piece = max(found, key=len)
            if word == piece or len(piece) >= _SHORTEST_PIECE:
                self._pieces.setdefault(piece.encode(), []).append(word)
            else:
                self._others.append(word)
            if word != piece:
                self._parts[word] = (word.encode(), frozenset(part.encode() for part in re.findall(r"(?<=\W)\w+(?=\W)", word)))
        self._longer = _longer(sorted(self._pieces))
        """Pieces that begin with a piece."""
        self._any = re.compile(any_of(self._pieces).encode("latin-1")) if self._pieces else re.compile(rb"(?!)")
        """Finds a piece in each identifier that holds one."""
        self._silent: set[bytes] = set()
        """Identifiers in which no word stands."""
        self._telling: dict[bytes, tuple[str, ...]] = {}

    def places(self, lowered: str) -> list[tuple[str, int]]:
        said = self.said(_bytes(lowered))
        return sorted(((word, at) for word in said for at in _occurrences(lowered, word)), key=lambda place: place[1])

    def said(self, lowered: bytes) -> set[str]:
        found = set(self._others)
        unknown: list[bytes] = []
        identifiers = set(lowered.translate(_IDENTIFIERS).split())
        for identifier in identifiers - self._silent:
            words = self._telling.get(identifier)
            if words is None:
                unknown.append(identifier)
            else:
                found.update(words)
        if unknown:
            found.update(*self._learnt(unknown))
        for word in found & self._parts.keys():
            written, whole = self._parts[word]
            if not (whole <= identifiers and written in lowered):
                found.discard(word)
        return found

    def _learnt(self, identifiers: list[bytes]) -> Iterable[tuple[str, ...]]:
        """The words of identifiers that were never seen before; all are searched as one text, since hardly any says one."""
        together = b" ".join(identifiers)
        telling = {
            together[together.rfind(b" ", 0, found.start()) + 1 : _end(together, found.end())] for found in self._any.finditer(together)
        }
        learnt = {identifier: tuple(word for piece in self._within(identifier) for word in self._pieces[piece]) for identifier in telling}
        if len(self._silent) >= _MOST_REMEMBERED:
            self._silent.clear()
        self._silent.update(identifiers)
        self._silent.difference_update(learnt)
        self._telling.update(learnt)
        return learnt.values()

    def _within(self, identifier: bytes) -> set[bytes]:
        """The pieces that stand in an identifier, also inside of one another."""
        pieces: set[bytes] = set()
        found = self._any.search(identifier)
        while found is not None:
            pieces.add(found[0])
            pieces.update(longer for longer in self._longer[found[0]] if identifier.startswith(longer, found.start()))
            found = self._any.search(identifier, found.start() + 1)
        return pieces


def _occurrences(text: str, word: str) -> Iterator[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + 1)


def _longer(pieces: list[bytes]) -> dict[bytes, list[bytes]]:
    """Of sorted pieces, to each those that begin with it: they stand right behind it."""
    found: dict[bytes, list[bytes]] = {piece: [] for piece in pieces}
    for number, piece in enumerate(pieces):
        for other in pieces[number + 1 :]:
            if not other.startswith(piece):
                break
            found[piece].append(other)
    return found


def _end(text: bytes, at: int) -> int:
    stop = text.find(b" ", at)
    return stop if stop >= 0 else len(text)


def any_of(words: Iterable[bytes]) -> str:
    """A regular expression for the shortest of ``words`` that stands at a place: shared beginnings are tried once."""
    return _alternatives(_tree(words))


_Tree = dict[str, "_Tree"]
"""What may follow, by the next character; an empty text where a word ends."""


def _tree(words: Iterable[bytes]) -> _Tree:
    root: _Tree = {}
    for word in words:
        node = root
        for character in word.decode("latin-1"):
            node = node.setdefault(character, {})
        node[""] = {}
    return root


def _alternatives(node: _Tree) -> str:
    if "" in node:
        return ""
    branches = [re.escape(character) + _alternatives(below) for character, below in sorted(node.items())]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def lowered(text: str) -> str:
    """``text`` in lower case, character for character."""
    lower = text.lower()
    # A few letters have a lower case of two characters, after which positions no longer fit.
    return lower if len(lower) == len(text) else text.translate(_ASCII_LOWER)


def positions(text: str, words: Iterable[str], *, whole: bool = False, start: int = 0, end: int | None = None) -> Iterator[int]:
    """Where ``words`` stand in ``text``, one position for each line and word.

    Args:
        text: What to search.
        words: What to look for.
        whole: Not as a part of a longer name.
        start: Where to begin.
        end: Where to stop; None for the end of the text.
    """
    end = len(text) if end is None else end
    for word in words:
        at = text.find(word, start, end)
        while at >= 0:
            if whole and not _stands_alone(text, at, at + len(word)):
                at = text.find(word, at + 1, end)
                continue
            yield at
            following = text.find("\n", at, end)
            at = text.find(word, following + 1, end) if following >= 0 else -1


def _stands_alone(text: str, start: int, end: int) -> bool:
    return not (_continues(text[start - 1 : start]) or _continues(text[end : end + 1]))


def _continues(character: str) -> bool:
    return character == "_" or character.isalnum()
