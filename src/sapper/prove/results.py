"""What a run's folder holds, read back, by a machine that may have neither the device nor PyTorch.

Any part may be absent (its proof was not run) or unreadable (damaged, or of another version); a report says so first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from sapper import files
from sapper.backends.checkup import Checkup
from sapper.errors import BadFile, SapperError
from sapper.prove.change.result import FORMAT, VERSION, ChangeProof, EditResult, Header
from sapper.prove.journal import HEADER
from sapper.prove.model.result import ModelResult
from sapper.prove.ops.result import Ops
from sapper.prove.ops.result import read as read_ops
from sapper.prove.speed.result import Speed
from sapper.prove.train.result import TrainProof

T = TypeVar("T")
Part = Literal["doctor", "ops", "model", "train", "change", "speed"]
PARTS: tuple[Part, ...] = ("doctor", "ops", "model", "train", "change", "speed")
"""In the order of the road: each asks more than the one before it."""
FILES: dict[Part, str] = {
    "doctor": "doctor.json", "ops": "ops.jsonl", "model": "model.json", "train": "train.json", "change": "change.jsonl",
    "speed": "speed.json",
}  # fmt: skip
REPROS = "repros"


@dataclass(frozen=True, kw_only=True)
class Script:
    """A repro script of the folder."""

    path: str
    """Relative to the folder, as verdicts name it."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that proofs have left in one folder; None: not run, or not readable."""

    folder: Path
    doctor: tuple[Checkup, ...] | None = None
    ops: Ops | None = None
    model: ModelResult | None = None
    train: TrainProof | None = None
    change: ChangeProof | None = None
    speed: Speed | None = None
    scripts: tuple[Script, ...] = ()
    unreadable: dict[Part, SapperError] | None = None

    @property
    def ran(self) -> tuple[Part, ...]:
        """Parts that there are results of."""
        return tuple(part for part in PARTS if getattr(self, part, None) is not None)

    @property
    def absent(self) -> tuple[Part, ...]:
        """Parts that nobody has run."""
        return tuple(part for part in PARTS if part not in self.ran and part not in (self.unreadable or {}))


def read(folder: Path) -> Results:
    """The results in ``folder``.

    Raises:
        BadFile: There is no such folder, or none of the files is in it.
    """
    if not folder.is_dir() or not any((folder / name).is_file() for name in FILES.values()):
        raise BadFile("SP-REPORT-001", where=str(folder), names=", ".join(FILES.values()))
    unreadable: dict[Part, SapperError] = {}

    def part(name: Part, reader: Callable[[Path], T]) -> T | None:
        path = folder / FILES[name]
        if not path.is_file():
            return None
        try:
            return reader(path)
        except SapperError as error:
            unreadable[name] = error
            return None

    return Results(
        folder=folder, doctor=part("doctor", _struct(tuple[Checkup, ...])),
        ops=part("ops", read_ops), model=part("model", _struct(ModelResult)), train=part("train", _struct(TrainProof)),
        change=part("change", _read_changes), speed=part("speed", _struct(Speed)), scripts=_scripts(folder), unreadable=unreadable,
    )  # fmt: skip


def _struct(type_: Any) -> Callable[[Path], Any]:
    """A reader of JSON files that hold one ``type_``."""

    def reader(path: Path) -> Any:
        return files.decode(type_, files.read_json(path), path)

    return reader


def _read_changes(path: Path) -> ChangeProof:
    """The journal of edits, finished or not, in the order in which they are tried."""
    lines = [line for _, line in files.read_jsonl(path)]
    first = lines[0].get(HEADER) if lines else None
    if not isinstance(first, dict) or (first.get("format"), first.get("version")) != (FORMAT, VERSION):
        raise BadFile("SP-RUN-005", where=str(path))
    header = files.decode(Header, first, path)
    by_id = {str(line.get("id")): line for line in lines[1:]}
    results = tuple(files.decode(EditResult, by_id[edit.id], path) for edit in header.edits if edit.id in by_id)
    return ChangeProof(header=header, results=results)


def _scripts(folder: Path) -> tuple[Script, ...]:
    found = sorted((folder / REPROS).glob("*.py"))
    return tuple(Script(path=f"{REPROS}/{path.name}", text=files.read_text(path)) for path in found)
