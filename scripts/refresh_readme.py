"""Runs the commands of the documents again and puts their output into the transcripts.

A transcript is a ``console`` block: lines that begin with ``$ `` are commands (``> `` goes on with the line before), what
follows is what they printed. A block ``sh`` holds commands without output; both kinds must succeed. Commands of one document
run in one folder that holds a copy of ``examples/`` and nothing else, in the document's language (``*.zh.md``: Chinese).

``python scripts/refresh_readme.py [FILE...]`` rewrites; with ``--check`` it only says which are out of date (exit code 1).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```(console|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_RUN = ("make ", "git ", "cd ", "pip ", "python3 -m venv", "python -m pip")
"""They set a machine up; tests check that the targets of make exist."""

CLOCK = re.compile(r"(priced in |用时 )[\d.,]+ (?:ms|s)\b")
"""How long a command itself took, which differs each time: a line that differs in nothing else stays as it is."""


@dataclass
class Step:
    """A command and what it printed."""

    command: str
    printed: list[str] = field(default_factory=list)


def documents() -> list[Path]:
    """All pages that may hold transcripts."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def steps_of(kind: str, body: str) -> list[Step]:
    """The commands of a block; a shell comment at the end of a line of a ``sh`` block is no part of it."""
    steps: list[Step] = []
    for line in body.splitlines():
        if kind == "sh":
            if line.strip() and not line.startswith("#"):
                steps.append(Step(line))
        elif line.startswith("$ "):
            steps.append(Step(line[2:]))
        elif line.startswith("> ") and steps and not steps[-1].printed:
            steps[-1].command += "\n" + line[2:]
        elif steps:
            steps[-1].printed.append(line)
    return steps


def run(command: str, folder: Path, *, lang: str) -> tuple[int, list[str]]:
    """Exit code and lines of one command as a user of an installed Sapper would see them."""
    shim = folder / ".bin" / "sapper"
    if not shim.exists():
        shim.parent.mkdir()
        shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sapper "$@"\n')
        shim.chmod(0o755)
    path = os.pathsep.join([str(shim.parent), os.environ.get("PATH", "")])
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    env = {name: value for name, value in os.environ.items() if not name.startswith("SAPPER_") and name != "COLUMNS"}
    env |= {"PATH": path, "PYTHONPATH": paths, "SAPPER_LANG": lang, "PYTHONIOENCODING": "utf-8"}
    # `head` closes the pipe early, which is fine: pipefail is not set.
    done = subprocess.run(
        ["sh", "-c", command], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300, check=False
    )
    return done.returncode, done.stdout.decode("utf-8").splitlines()


def settled(before: list[str], now: list[str]) -> list[str]:
    """The lines of now, with those of before where only the clock differs."""
    old = {CLOCK.sub(r"\1", line): line for line in before}
    return [old.get(CLOCK.sub(r"\1", line), line) if CLOCK.search(line) else line for line in (line.rstrip() for line in now)]


def refreshed(text: str, *, lang: str) -> tuple[str, list[str]]:
    """``text`` with transcripts of now, and what failed."""
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(ROOT / "examples", Path(name) / "examples")

        def block(match: re.Match[str]) -> str:
            lines = []
            for step in steps_of(match[1], match[2]):
                code, printed = (0, step.printed) if step.command.startswith(NOT_RUN) else run(step.command, Path(name), lang=lang)
                if code:
                    failed.append(f"`{step.command}` ended with {code}: {' '.join(printed[-3:])}")
                lines += ["$ " + step.command.replace("\n", "\n> "), *settled(step.printed, printed)]
            return match[0] if match[1] == "sh" else "```console\n" + "\n".join(lines) + "\n```"

        return BLOCK.sub(block, text), failed


def main() -> int:
    """Writes or checks."""
    check = "--check" in sys.argv
    chosen = [Path(name).resolve() for name in sys.argv[1:] if not name.startswith("--")] or documents()
    bad = 0
    for path in chosen:
        text = path.read_text("utf-8")
        new, failed = refreshed(text, lang="zh" if path.name.endswith(".zh.md") else "en")
        for problem in failed:
            print(f"{path.relative_to(ROOT)}: {problem}")
        if new != text:
            print(f"{'out of date' if check else 'wrote'}: {path.relative_to(ROOT)}")
            if not check:
                path.write_text(new, "utf-8")
        bad += bool(failed) or (check and new != text)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
