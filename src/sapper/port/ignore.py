"""Patterns of ``.gitignore``, read as git reads them (gitignore(5)), without running git.

A repository that is not trusted can make git run programs through its configuration, so its files are read directly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple


class Pattern(NamedTuple):
    """One line: does a path below ``base`` that matches become ignored, or (``negated``) taken again?"""

    base: str
    """Folder of the file that the line stands in, relative to the scanned root: "" or with a slash at its end."""
    regex: re.Pattern[str]
    negated: bool
    folders_only: bool
    above: str = ""
    """Where the file stands above the scanned root: the way from it down to the root, with a slash at its end."""


def parse(lines: Iterable[str], base: str = "", *, above: str = "") -> list[Pattern]:
    """The patterns of a ``.gitignore`` file that stands in ``base``; lines that cannot be patterns are left out."""
    found = []
    for line in lines:
        text = line.rstrip("\r\n")
        text = text[:-1] if text.endswith("\\ ") else text.rstrip(" ")
        negated = text.startswith("!")
        text = text.removeprefix("!") if negated else text.removeprefix("\\") if text[:2] in ("\\#", "\\!") else text
        if not text or (line.startswith("#") and not negated):
            continue
        folders_only = text.endswith("/")
        text = text.rstrip("/")
        if not text:
            continue
        anchored = "/" in text
        try:
            regex = re.compile(("" if anchored else "(?:.*/)?") + _translated(text.removeprefix("/")))
        except re.error:  # such as an inverted range: git ignores nothing by it, and so do we
            continue
        found.append(Pattern(base, regex, negated, folders_only, above))
    return found


def ignored(patterns: Iterable[Pattern], relative: str, *, folder: bool) -> bool:
    """Do ``patterns`` (outer folders first) ignore ``relative``? The last one that matches decides."""
    result = False
    for pattern in patterns:
        if pattern.folders_only and not folder:
            continue
        if pattern.negated != result:
            continue
        if relative.startswith(pattern.base) and pattern.regex.fullmatch(pattern.above + relative[len(pattern.base) :]):
            result = not pattern.negated
    return result


def _translated(glob: str) -> str:
    """A glob as a regular expression: ``*`` and ``?`` stop at slashes, ``**`` spans folders."""
    out, at = [], 0
    while at < len(glob):
        rest = glob[at:]
        if rest.startswith("**/") and (at == 0 or glob[at - 1] == "/"):
            out.append("(?:[^/]+/)*")
            at += 3
        elif rest == "**" and at and glob[at - 1] == "/":
            out.append(".+")
            at += 2
        elif rest[0] == "*":
            run = len(rest) - len(rest.lstrip("*"))
            out.append("[^/]*")
            at += run
        elif rest[0] == "?":
            out.append("[^/]")
            at += 1
        elif rest[0] == "[" and (end := rest.find("]", 2)) > 0:
            inside = rest[1:end]
            inverse = inside[0] in "!^"
            body = inside[1:] if inverse else inside
            out.append(f"[{'^/' if inverse else ''}{body.replace(chr(92), chr(92) * 2).replace('[', chr(92) + '[')}]")
            at += end + 1
        elif rest[0] == "\\" and len(rest) > 1:
            out.append(re.escape(rest[1]))
            at += 2
        else:
            out.append(re.escape(rest[0]))
            at += 1
    return "".join(out)
