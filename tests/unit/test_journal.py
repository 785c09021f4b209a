"""The journal of a campaign: nothing lost, nothing done twice."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from sapper.errors import BadFile
from sapper.prove.journal import Journal
from support import environment

HEADER = {"backend": "cpu", "seed": 0, "date": "2026-01-01"}


def test_what_was_added_is_there_again(tmp_path: Path):
    path = tmp_path / "new" / "ops.jsonl"
    with Journal(path, HEADER, key="case") as journal:
        journal.add("a", {"outcome": "ok"})
    with Journal(path, {**HEADER, "date": "2026-02-02"}, key="case") as journal:
        assert journal.done == {"a": {"case": "a", "outcome": "ok"}}
        assert journal.header["date"] == "2026-01-01"


def test_a_torn_last_line_is_dropped_and_written_over(tmp_path: Path):
    path = tmp_path / "ops.jsonl"
    with Journal(path, HEADER) as journal:
        journal.add("a", {})
        journal.add("b", {"long": "x" * 100})
    path.write_bytes(path.read_bytes()[:-20])
    with Journal(path, HEADER) as journal:
        assert set(journal.done) == {"a"}
        journal.add("c", {})
    with Journal(path, HEADER) as journal:
        assert set(journal.done) == {"a", "c"}


def test_another_question_is_refused_with_what_differs_first(tmp_path: Path):
    path = tmp_path / "ops.jsonl"
    Journal(path, HEADER).close()
    with pytest.raises(BadFile) as refused:
        Journal(path, {**HEADER, "backend": "npu"})

    assert refused.value.code == "SP-RUN-004"
    assert refused.value.values == {"name": "backend", "now": '"npu"', "then": '"cpu"'}


@pytest.mark.parametrize("text", ["no journal\n", '{"header": 3}\n', '{"id": "a"}\n', "[]\n"])
def test_what_is_no_journal_is_refused_and_left_alone(text: str, tmp_path: Path):
    path = tmp_path / "ops.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(BadFile, match="SP-RUN-005"):
        Journal(path, HEADER)
    assert path.read_text("utf-8") == text


def test_two_runs_do_not_write_into_one_journal(tmp_path: Path):
    with Journal(tmp_path / "ops.jsonl", HEADER), pytest.raises(BadFile, match="SP-RUN-006"):
        Journal(tmp_path / "ops.jsonl", HEADER)


@pytest.mark.slow
def test_a_full_disk_is_told_and_costs_nothing(tmp_path: Path):
    path = tmp_path / "ops.jsonl"
    code = f"""
import resource, signal
from sapper.errors import BadFile
from sapper.prove.journal import Journal
journal = Journal({str(path)!r}, {{"backend": "cpu"}})
journal.add("a", {{}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, {resource.RLIM_INFINITY}))
try:
    journal.add("b", {{"long": "x" * 300}})
except BadFile as error:
    print(error.code)
resource.setrlimit(resource.RLIMIT_FSIZE, ({resource.RLIM_INFINITY}, {resource.RLIM_INFINITY}))
journal.add("c", {{}})
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "SP-RUN-003"
    with Journal(path, {"backend": "cpu"}) as journal:
        assert set(journal.done) == {"a", "c"}
