"""The command's work: ask git, plan, write all or none, say how to take it back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sapper.errors import InputError
from sapper.port.fix import git, journal
from sapper.port.fix.journal import Undone
from sapper.port.fix.plan import Plan

MOST_DIRTY = 8
"""Paths that a refusal names."""


@dataclass(frozen=True)
class Tree:
    """A tree on disk, and where its journals are."""

    path: Path
    git: git.State

    @property
    def root(self) -> Path:
        """The folder that relative paths start from."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def journals(self) -> Path:
        """The folder of journals."""
        return journal.home(self.root, self.git.folder)


def opened(path: Path) -> Tree:
    """The tree at ``path``.

    Raises:
        InputError: SP-FIX-006: a run was cut short, and has to be taken back first.
    """
    tree = Tree(path, git.state(path))
    if journal.interrupted(tree.journals):
        raise InputError("SP-FIX-006", where=str(path), path=path)
    return tree


def check_clean(tree: Tree) -> None:
    """Refuse a tree whose state git could not give back.

    Raises:
        InputError: SP-FIX-001: changes that are not committed. SP-FIX-002: git does not answer.
    """
    if tree.git.problem is not None:
        raise InputError("SP-FIX-002", where=str(tree.path), problem=tree.git.problem)
    dirty = tree.git.dirty
    if dirty:
        named = ", ".join(f"`{path}`" for path in dirty[:MOST_DIRTY])
        more = len(dirty) - MOST_DIRTY
        code = "SP-FIX-001" if more <= 0 else "SP-FIX-003"
        raise InputError(code, where=str(tree.path), paths=named, **({} if more <= 0 else {"more": more}))


def apply(tree: Tree, plan: Plan) -> None:
    """Write what a plan changes: all files, or none."""
    if plan.contents:
        journal.write(tree.root, plan.contents, folder=tree.journals)


def undo(path: Path, *, force: bool = False) -> Undone:
    """Take the newest run back, whole or cut short."""
    return journal.undo(Tree(path, git.state(path)).journals, force=force)
