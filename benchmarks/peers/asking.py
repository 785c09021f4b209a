"""Ask a peer a set of rows, resumably: each answer is on disk before the next question is put."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from environments import Peer, python_of
from row_sets import Row


@dataclass(frozen=True)
class Question:
    """A peer, a set of rows, and how the peer is set up."""

    peer: str
    row_set: str
    variant: str
    conditions: str
    """What a reader must know of the set-up: what was supplied, assumed or chosen."""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name of its answers."""
        return f"{self.peer}.{self.row_set}.{self.variant}"


@dataclass(frozen=True)
class Answers:
    """What a peer said."""

    start_cpu_s: float
    """CPU seconds until the peer was ready: its imports."""
    by_id: Mapping[str, Mapping[str, Any]]


def ask(peer: Peer, question: Question, rows: Sequence[Row], *, work: Path) -> Answers:
    """The peer's answers; those that an earlier, interrupted run left in ``work`` are not asked again."""
    path = work / "answers" / f"{question.key}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = _read(path)
    left = [row for row in rows if row["id"] not in done.by_id]
    if left:
        with path.open("a", encoding="utf-8") as out:
            put(peer, question.options, left, work=work, out=out)
        done = _read(path)
    return Answers(start_cpu_s=done.start_cpu_s, by_id={row["id"]: done.by_id[row["id"]] for row in rows})


def put(peer: Peer, options: Mapping[str, Any], rows: Sequence[Row], *, work: Path, out: IO[str]) -> None:
    """Put ``rows`` to one process of the peer; its lines (see ``protocol.py``) go to ``out``, a real file."""
    line = [python_of(peer, work), peer.adapter, json.dumps(dict(options))]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    subprocess.run(line, input=text, stdout=out, stderr=subprocess.DEVNULL, text=True, check=True, env=_environment())


def _environment() -> dict[str, str]:
    """One thread, as Sapper is measured; and nothing of Sapper's own environment."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "SYSTEMROOT") if name in os.environ}
    return kept | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


def _read(path: Path) -> Answers:
    found: dict[str, Mapping[str, Any]] = {}
    start_cpu_s = 0.0
    for one in _whole_lines(path):
        if "id" in one:
            found[one["id"]] = one
        else:
            start_cpu_s = one["start_cpu_s"]
    return Answers(start_cpu_s=start_cpu_s, by_id=found)


def _whole_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Lines but a last one that an interruption cut."""
    if not path.exists():
        return
    kept = [line for line in path.read_text("utf-8").splitlines(keepends=True) if line.endswith("\n")]
    path.write_text("".join(kept), "utf-8")
    yield from map(json.loads, kept)
