"""What git knows of a tree: is everything in it safe from us, because committed?"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

_QUIET = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "--no-optional-locks")
"""A repository's own configuration may name programs to run; asking for its state starts none of them."""
_TIMEOUT_S = 60


@dataclass(frozen=True)
class State:
    """``folder`` is git's own (``.git``), None outside a repository; ``dirty`` are paths with changes, as git prints them."""

    folder: Path | None
    dirty: tuple[str, ...] = ()
    problem: str | None = None
    """What git said where it would not answer."""


def state(path: Path) -> State:
    """Of the repository that ``path`` lies in, as far as ``path`` goes."""
    inside = path if path.is_dir() else path.parent
    folder = _git(inside, "rev-parse", "--absolute-git-dir")
    if folder is None:
        return State(None)
    if folder.returncode != 0:
        said = folder.stderr.strip()
        return State(None, problem=None if "not a git repository" in said else said)
    found = _git(inside, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--", str(path.resolve()))
    if found is None or found.returncode != 0:
        return State(Path(folder.stdout.strip()), problem=found.stderr.strip() if found else None)
    return State(Path(folder.stdout.rstrip("\n")), _paths(found.stdout))


def _paths(listing: str) -> tuple[str, ...]:
    """Paths of a listing that NULs part; a renamed file is followed by its old name."""
    entries = iter(listing.split("\0"))
    paths = []
    for entry in entries:
        if len(entry) > 3:
            paths.append(entry[3:])
            if entry[0] in "RC":
                next(entries, None)
    return tuple(paths)


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str] | None:
    """None where there is no git, or it does not answer."""
    environment = {**os.environ, "LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *_QUIET, *arguments],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="surrogateescape",
            timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
