"""``sapper port fix --kernels``: kernels converted for a stack of CUDA's dialect, beside the originals."""

from __future__ import annotations

import difflib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sapper import messages
from sapper.cli.output import emit_json, talk

if TYPE_CHECKING:
    from sapper.port.kernels import Converted, Project, Stack

MOST_SHOWN = 20
"""Lines that are left, by name."""


def convert(path: Path, to: Stack, *, as_diff: bool, force: bool, as_json: bool) -> int:
    """Exit code 0 where nothing is left to do, 1 where something is (with --diff: where there is a difference)."""
    from sapper.port.fix import journal, run
    from sapper.port.kernels import convert_tree

    tree = run.opened(path)
    if not as_diff and not force:
        run.check_clean(tree)
    project = convert_tree(path, to)
    written = _new(project, tree.root, force=force)
    if not as_diff and written:
        journal.write(tree.root, {one.path: one.text.encode(one.encoding) for one in written}, folder=tree.journals)
    if as_json:
        emit_json({"to": to, "files": [_as_json(one) for one in written], "taken": _taken(project, written)})
    elif as_diff:
        click.echo("".join(map(difference, written)), nl=False)
    else:
        _print(project, written)
    _say(project, written, path, applied=not as_diff)
    return int(bool(written)) if as_diff else int(any(one.left for one in project.files))


def _new(project: Project, root: Path, *, force: bool) -> list[Converted]:
    """What is not there yet; with ``force`` also what is there and differs."""
    new = []
    for one in project.files:
        there = root / one.path
        if one.path not in project.taken or (force and there.is_file() and there.read_bytes() != one.text.encode(one.encoding)):
            new.append(one)
    return new


def _taken(project: Project, written: list[Converted]) -> list[str]:
    paths = {one.path for one in written}
    return [path for path in project.taken if path not in paths]


def difference(one: Converted) -> str:
    """The converted file as a copy with changes, in git's own form, which ``git apply`` takes."""
    head = f"diff --git a/{one.source} b/{one.path}\ncopy from {one.source}\ncopy to {one.path}\n"
    lines = difflib.unified_diff(_lines(one.original), _lines(one.text), f"a/{one.source}", f"b/{one.path}")
    return head + "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _lines(text: str) -> list[str]:
    """Lines as ``patch`` counts them: LF ends one, nothing else."""
    parts = text.split("\n")
    return [*(f"{part}\n" for part in parts[:-1]), *([parts[-1]] if parts[-1] else [])]


def _print(project: Project, written: list[Converted]) -> None:
    from sapper.port.kernels.work import label

    for one in written:
        works = Counter(line.work for line in one.left)
        rest = ", ".join(f"{label(work)} {count}" for work, count in works.items()) or messages.text("port.fix.kernels.clean")
        click.echo(f"{one.source} -> {one.path}: {rest}")
    for path in _taken(project, written):
        click.echo(f"{path}: {messages.text('port.fix.kernels.taken')}")
    lines = [(one.source, line) for one in written for line in one.left]
    if lines:
        click.echo()
        click.echo(messages.text("port.fix.kernels.left"))
        for source, line in lines[:MOST_SHOWN]:
            click.echo(f"  {source}:{line.line}: {label(line.work)}: {line.excerpt.strip()}")
        if len(lines) > MOST_SHOWN:
            click.echo(f"  {messages.text('port.fix.more', count=len(lines) - MOST_SHOWN)}")


def _say(project: Project, written: list[Converted], path: Path, *, applied: bool) -> None:
    for one in project.unread:
        talk("port.scan.unread", place=one.path, why=messages.text(one.code, **one.values), code=one.code)
    if not written:
        talk("port.fix.kernels.nothing")
    elif applied:
        pure = sum(not one.left for one in written)
        talk("port.fix.kernels.wrote", files=len(written), pure=pure, path=path)


def _as_json(one: Converted) -> dict[str, object]:
    return {"source": one.source, "path": one.path, "edits": len(one.edits), "left": one.left}
