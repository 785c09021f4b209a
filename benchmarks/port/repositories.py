"""Public repositories at the commits that a case names, brought beside the project and never into it.

A folder of clones is given (``--repos``): ``OWNER/NAME``, ``OWNER+NAME/repo`` or ``NAME`` below it, work trees or bare.
What is missing there is cloned without blobs when ``--clone`` says so.
"""

from __future__ import annotations

import subprocess
from pathlib import Path


class Missing(Exception):
    """A repository or a commit is not below the given folder."""


class Repository:
    """One clone, read through git."""

    def __init__(self, name: str, repos: Path, *, clone: bool = False) -> None:
        owner, _, short = name.partition("/")
        places = [repos / owner / short, repos / f"{owner}+{short}" / "repo", repos / short]
        found = next((place for place in places if (place / "HEAD").exists() or (place / ".git").exists()), None)
        if found is None:
            if not clone:
                raise Missing(f"{name} is not below {repos}; clone it there, or say --clone")
            found = places[0]
            subprocess.run(["git", "clone", "--filter=blob:none", "--bare", f"https://github.com/{name}", str(found)], check=True)
        self.name = name
        self.path = found

    def git(self, *arguments: str) -> bytes:
        """What a git command prints."""
        done = subprocess.run(["git", "-C", str(self.path), *arguments], capture_output=True, check=False)
        if done.returncode:
            raise Missing(f"{self.name}: git {' '.join(arguments[:3])}: {done.stderr.decode('utf-8', 'replace').strip()[:200]}")
        return done.stdout

    def text(self, commit: str, path: str) -> str:
        """A file at a commit; empty where it is not there."""
        try:
            return self.git("show", f"{commit}:{path}").decode("utf-8", "replace")
        except Missing:
            return ""

    def changed(self, before: str, after: str) -> list[str]:
        """Files that are in both commits and differ."""
        raw = self.git("diff", "--name-only", "--no-renames", "--diff-filter=M", "-z", before, after)
        return [name for name in raw.decode("utf-8", "surrogateescape").split("\0") if name]

    def checkout(self, commit: str, where: Path) -> Path:
        """The files of a commit below ``where``, made once; what a partial clone lacks (data, images) is left out."""
        target = where / f"{self.name.replace('/', '+')}@{commit[:10]}"
        if target.exists():
            return target
        part = target.with_suffix(".part")
        rows = self.git("ls-tree", "-r", "-z", commit).decode("utf-8", "surrogateescape").split("\0")
        blobs = {path: fields.split()[2] for fields, _, path in (row.partition("\t") for row in rows) if fields.startswith("100")}
        reader = subprocess.Popen(
            ["git", "-C", str(self.path), "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert reader.stdin is not None and reader.stdout is not None
        for path, blob in blobs.items():
            reader.stdin.write(f"{blob}\n".encode())
            reader.stdin.flush()
            kind, *size = reader.stdout.readline().split()[1:]
            if kind != b"blob":
                continue
            data = reader.stdout.read(int(size[0]))
            reader.stdout.read(1)
            place = part / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        reader.stdin.close()
        reader.wait()
        part.rename(target)
        return target
