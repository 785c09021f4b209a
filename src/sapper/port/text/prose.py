"""What is no code in a file of another language than Python and C++: comments, and sentences for people.

Masked text is as long as the text, so that offsets stay: what is taken away becomes blanks.
"""

from __future__ import annotations

import re

from sapper.port.source import Language, Source

_HASH: tuple[Language, ...] = (
    "docker", "requirements", "pyproject", "setup", "conda", "shell", "yaml", "cmake", "make", "config",
)  # fmt: skip
_CMAKE_BLOCK = re.compile(r"#\[(=*)\[.*?\]\1\]", re.DOTALL)
_DIRECTIVE = re.compile(r"#(?:SBATCH|PBS|BSUB|syntax=|!)")
"""Comments that a program reads."""
_LONGEST_LINE = 20_000
"""A longer line is no code that a person wrote, and is left as it is."""

_SENTENCE_WORDS, _SENTENCE_LETTERS = 6, 0.85

_SPOKEN_STRING = re.compile(r"([\"'])(?P<said>[A-Z][a-z]++(?:[ ,.:;!?]++[^\s\"' ,.:;!?]{1,60}+){2,}+[ ,.:;!?]*+)\1")
"""A quotation that begins with a word and a capital, and goes on with more words. There is one way to match a text, so that a long
one is not tried in all ways."""
_SPOKEN_COMMAND = re.compile(
    r"(?:^|[;&|({]|\b(?:then|else|do|RUN))[ \t]*@?-?(?:echo|printf|log\w*|info|warn(?:ing)?|error|die|fatal|>&2 echo)\b(?P<said>[^\n;&|>]*)"
)
_SPOKEN_CMAKE = re.compile(r"\bmessage[ \t]*\((?P<said>[^)]*)\)", re.IGNORECASE)
_SPOKEN_MAKE = re.compile(r"\$\((?:info|warning|error)[ \t](?P<said>[^)\n]*)")
_WORDS = (
    r"name|description|desc|title|summary|help|label|comment|_comment|about|message|placeholder|notes?|keywords|display_name|homepage|"
    r"documentation|repository|author"
)
_SPOKEN_KEY = re.compile(
    rf"^[ \t]*(?:-[ \t]+)?[\"']?(?:{_WORDS})[\"']?[ \t]*[:=][ \t]*(?P<said>\"[^\"\n]*\"|'[^'\n]*'|[^\n]*)", re.IGNORECASE | re.MULTILINE
)
_SPOKEN_JSON = re.compile(rf"[{{,][ \t]*\"(?:{_WORDS})\"[ \t]*:[ \t]*(?P<said>\"[^\"\n]*\")", re.IGNORECASE)
_SPEAKS: dict[Language, tuple[re.Pattern[str], ...]] = {
    "docker": (_SPOKEN_COMMAND, re.compile(r"^[ \t]*(?:LABEL|MAINTAINER)\b(?P<said>.*)", re.IGNORECASE | re.MULTILINE)),
    "shell": (_SPOKEN_COMMAND, _SPOKEN_STRING),
    "yaml": (_SPOKEN_KEY, _SPOKEN_COMMAND, _SPOKEN_STRING),
    "conda": (_SPOKEN_KEY,),
    "config": (_SPOKEN_KEY, _SPOKEN_JSON, _SPOKEN_STRING),
    "pyproject": (_SPOKEN_KEY,),
    "setup": (_SPOKEN_KEY,),
    "cmake": (_SPOKEN_CMAKE,),
    "make": (_SPOKEN_COMMAND, _SPOKEN_MAKE),
}


def masked(source: Source) -> str:
    """The text of ``source`` with blanks for comments and prose."""
    text = source.text
    if source.language in _HASH and "#" in text:
        if source.language == "cmake":
            text = _CMAKE_BLOCK.sub(lambda found: blank(found[0]), text)
        text = _without_comments(text)
    if source.language == "config" and source.path.lower().endswith((".ini", ".cfg", ".properties", ".conf")):
        text = re.sub(r"^[ \t]*;.*", lambda found: blank(found[0]), text, flags=re.MULTILINE)
    for pattern in _SPEAKS.get(source.language, ()):
        text = pattern.sub(lambda found: _silenced(found, "said"), text)
    return text


def is_sentence(line: str) -> bool:
    """Is a line rather words of a language than code: many words, and hardly anything but letters?"""
    words = re.findall(r"[A-Za-z]{2,}", line[:500])
    return len(words) >= _SENTENCE_WORDS and sum(map(len, words)) + line[:500].count(" ") > _SENTENCE_LETTERS * len(line[:500].strip())


def in_documentation(path: str) -> bool:
    """Does a file lie in a folder of documentation?"""
    return any(part in ("doc", "docs", "_static", "website") for part in path.lower().split("/")[:-1])


def blank(text: str) -> str:
    """``text`` with a blank for every character but line ends."""
    return re.sub(r"[^\n]", " ", text)


def _silenced(found: re.Match[str], group: str) -> str:
    start, end = found.start(group) - found.start(), found.end(group) - found.start()
    return found[0][:start] + blank(found[0][start:end]) + found[0][end:]


def _without_comments(text: str) -> str:
    parts: list[str] = []
    done, at = 0, text.find("#")
    while at >= 0:
        start, stop = text.rfind("\n", 0, at) + 1, text.find("\n", at)
        stop = stop if stop >= 0 else len(text)
        if not _DIRECTIVE.match(text, start):
            parts += (text[done:start], _without_comment(text[start:stop]))
            done = stop
        at = text.find("#", stop)
    return "".join((*parts, text[done:]))


def _without_comment(line: str) -> str:
    """A line up to its ``#``: one at the line's start or behind a blank, outside of quotes.

    An apostrophe inside a word opens no quotation, nor does one that never closes.
    """
    if len(line) > _LONGEST_LINE:
        return line
    first = line.find("#")
    if '"' not in line and "'" not in line and (not first or line[first - 1] in " \t\r;("):
        return line[:first] + " " * (len(line) - first)
    quote, previous, doubtful = "", " ", -1
    for at, character in enumerate(line):
        if character == "#" and previous in " \t\r;(":
            if not quote:
                return line[:at] + " " * (len(line) - at)
            if doubtful < 0 and quote == "'":
                doubtful = at
        elif quote:
            if character == quote and (quote == "'" or previous != "\\"):
                quote, doubtful = "", -1
        elif character in "\"'" and previous != "\\" and not (character == "'" and previous.isalnum()):
            quote = character
        previous = character
    return line if doubtful < 0 else line[:doubtful] + " " * (len(line) - doubtful)
