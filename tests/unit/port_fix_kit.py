"""What the tests of ``port fix`` share."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

from sapper.port.fix.plan import plan
from sapper.port.fix.policy import Style


def fixed(folder: Path, before: str | bytes, *, style: Style = "accelerator", unsafe: bool = False, path: str = "train.py") -> str:
    """A file after the rewrite (as it was, if nothing is to be done)."""
    raw = before if isinstance(before, bytes) else textwrap.dedent(before).encode()
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(raw)
    made = plan(folder, style=style, grade="unsafe" if unsafe else "safe")
    assert made.left == {}
    return made.contents.get(path, raw).decode()


def git(folder: Path, *arguments: str) -> None:
    """Run git in a folder, as nobody in particular."""
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)
