"""What people changed when they ported: sites, one per line, given by a file or mined from a pair of commits.

A site's tier says how hard it is to find. ``A``: the line has a CUDA word in code, and the person removed or neutralised
it. ``E``: the line has one and stayed, with a branch for another chip beside it. ``C``: the line has none and was changed
all the same; mined candidates are counted only where ``labels.toml`` says that a reader agreed.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import msgspec
from repositories import Repository

CUDA = re.compile(r"cuda|nccl", re.IGNORECASE)
OTHER_CHIP = re.compile(r"npu|xpu|musa|mlu|hpu|gcu|rocm|\bhip\b|ascend|device_type|accelerator|get_device|backend", re.IGNORECASE)
NEAR_LINES = 3
"""A vendor branch stands at most this many lines from the line that it is a branch beside."""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the tree before."""

    file: str
    line: int
    tier: str
    code: bool = True
    """False in comments, docstrings and documents."""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two commits of one repository and what changed between them."""

    id: str
    repository: str
    before: str
    after: str
    role: str
    """``dev``: the rules were written with it in view. ``withheld``: nobody had read it."""
    style: str = ""
    source: str = ""


def given(path: Path) -> Iterator[tuple[Pair, list[Site]]]:
    """Pairs and sites of a JSONL file in the format of ``port_history.jsonl``."""
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        pair = Pair(
            id=row["id"], repository=row["repo"], before=row["before"], after=row["after"], role=row.get("split", "dev"), style=row["style"]
        )
        sites = [Site(file=site["f"], line=site["l"], tier=site["tier"], code=site["ctx"] == "code") for site in row["sites"]]
        yield pair, sites


def mined(pair: Pair, repository: Repository) -> list[Site]:
    """Sites of tiers A and E between the two commits, and candidates of tier C, by aligning the lines of each file."""
    sites: list[Site] = []
    for path in repository.changed(pair.before, pair.after):
        if not path.endswith((".py", ".cu", ".cuh", ".cpp", ".h", ".hpp", ".cc", ".sh", ".yaml", ".yml")):
            continue
        before, after = (repository.text(commit, path) for commit in (pair.before, pair.after))
        sites += _aligned(path, before, after)
    return sites


def _aligned(path: str, before: str, after: str) -> Iterator[Site]:
    old, new = before.splitlines(), after.splitlines()
    prose = prose_lines(before) if path.endswith(".py") else set()
    matcher = difflib.SequenceMatcher(None, [line.strip() for line in old], [line.strip() for line in new], autojunk=False)
    for tag, first, last, new_first, new_last in matcher.get_opcodes():
        replaced = new[new_first:new_last]
        if tag == "insert" and any(OTHER_CHIP.search(line) for line in replaced):
            near = range(max(0, first - NEAR_LINES), min(len(old), first + NEAR_LINES))
            anchors = [index for index in near if CUDA.search(code_of(old[index])) and index + 1 not in prose]
            if anchors:
                yield Site(file=path, line=min(anchors, key=lambda index: abs(index - first)) + 1, tier="E")
        elif tag in ("replace", "delete"):
            for index in range(first, last):
                yield from _site(path, index, old[index], replaced, prose)


def _site(path: str, index: int, line: str, replaced: list[str], prose: set[int]) -> Iterator[Site]:
    if index + 1 in prose or not code_of(line).strip():
        return
    best = max(replaced, key=lambda other: difflib.SequenceMatcher(None, line.strip(), other.strip()).ratio(), default="")
    if CUDA.search(code_of(line)):
        if not CUDA.search(code_of(best)):
            yield Site(file=path, line=index + 1, tier="A")
        elif OTHER_CHIP.search("\n".join(replaced)):
            yield Site(file=path, line=index + 1, tier="E")
    elif OTHER_CHIP.search(best) and best.strip() != line.strip():
        yield Site(file=path, line=index + 1, tier="C")


def code_of(line: str) -> str:
    """A line without a comment that fills or ends it; a ``#`` inside quotes is taken as one where quotes do not balance."""
    at = line.find("#")
    if at < 0 or line.lstrip().startswith("#include") or line.lstrip().startswith("#if"):
        return line.split("//")[0] if "//" in line and "://" not in line else line
    head = line[:at]
    return line if head.count('"') % 2 or head.count("'") % 2 else head


def prose_lines(text: str) -> set[int]:
    """Lines of a Python file that hold only comments or docstrings; empty where the file does not tokenize."""
    lines: set[int] = set()
    fresh = True
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT and token.line[: token.start[1]].strip() == "":
                lines.add(token.start[0])
            elif token.type == tokenize.STRING and fresh:
                lines |= set(range(token.start[0], token.end[0] + 1))
            if token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING):
                fresh = True
            elif token.type not in (tokenize.NL, tokenize.COMMENT):
                fresh = False
    except (tokenize.TokenError, IndentationError, SyntaxError):
        pass
    return lines


def digest(text: str) -> str:
    """The name of a line in data files: no line of anybody's code is kept."""
    return hashlib.sha1(text.strip().encode("utf-8")).hexdigest()[:12]


def traced_back(sites: list[Site], repository: Repository, *, since: str, base: str) -> list[Site]:
    """Of sites of the tree ``since``, those whose lines stood in the older tree ``base``, at their places there."""
    back = []
    for path in sorted({site.file for site in sites}):
        new, old = (repository.text(commit, path).splitlines() for commit in (since, base))
        blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()
        place = {block.b + step: block.a + step for block in blocks for step in range(block.size)}
        for site in sites:
            if site.file == path and site.line - 1 in place:
                back.append(msgspec.structs.replace(site, line=place[site.line - 1] + 1))
    return back
