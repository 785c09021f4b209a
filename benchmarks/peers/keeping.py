"""What peers and Sapper answered, kept beside the results, so that every figure can be recomputed without asking again."""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from asking import Question
from sapper_side import Said

HERE = Path(__file__).resolve().parent
ANSWERS = HERE / "answers.jsonl.gz"
SAPPER = HERE / "sapper.jsonl.gz"


@dataclasses.dataclass(frozen=True)
class Heard:
    """The answers to one question, with what is needed to score them again."""

    question: Question
    date: str
    start_cpu_s: float
    by_id: Mapping[str, Mapping[str, Any]]


def keep(heard: Iterable[Heard]) -> None:
    """Write the answers: one line for a question, one for each of its answers. A peer's own words stay behind: they name paths."""
    lines = []
    for one in heard:
        head = dataclasses.asdict(one.question) | {"date": one.date, "start_cpu_s": one.start_cpu_s}
        lines.append(json.dumps({"question": head}))
        lines += [json.dumps({name: value for name, value in answer.items() if name != "detail"}) for answer in one.by_id.values()]
    _write(ANSWERS, lines)


def kept_answers() -> dict[str, Heard]:
    """The answers of the last run by the question's key."""
    found: dict[str, Heard] = {}
    by_id: dict[str, Mapping[str, Any]] = {}
    for one in _lines(ANSWERS):
        if "question" in one:
            head = one["question"]
            date, start_cpu_s = head.pop("date"), head.pop("start_cpu_s")
            by_id = {}
            found[Question(**head).key] = Heard(question=Question(**head), date=date, start_cpu_s=start_cpu_s, by_id=by_id)
        else:
            by_id[one["id"]] = one
    return found


def keep_said(said: Mapping[str, Said]) -> None:
    """Write what Sapper said: one line for a split, one for each error and each reason."""
    lines = []
    for split, one in said.items():
        lines.append(json.dumps({"split": split, "version": one.version}))
        for quantity, errors in one.errors.items():
            lines += [json.dumps({"id": row_id, "quantity": quantity, "error": round(error, 6)}) for row_id, error in errors.items()]
        lines += [json.dumps({"id": row_id, "code": code}) for row_id, code in one.codes.items()]
    _write(SAPPER, lines)


def kept_said() -> dict[str, Said]:
    """What Sapper said in the last run, by split."""
    found: dict[str, Said] = {}
    errors: dict[str, dict[str, float]] = {}
    codes: dict[str, str] = {}
    for one in _lines(SAPPER):
        if "split" in one:
            errors, codes = {}, {}
            found[one["split"]] = Said(errors=errors, codes=codes, version=one["version"])
        elif "code" in one:
            codes[one["id"]] = one["code"]
        else:
            errors.setdefault(one["quantity"], {})[one["id"]] = one["error"]
    return found


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode("utf-8"), mtime=0))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.exists():
        yield from map(json.loads, gzip.decompress(path.read_bytes()).decode("utf-8").splitlines())
