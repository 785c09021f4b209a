"""What the table of silences says of names of ``torch.cuda``, asked again of a PyTorch without CUDA."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from sapper.port.verdicts import silence_table  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.version.cuda is not None or torch.version.hip is not None, reason="this PyTorch has CUDA"),
]
SAID = {
    symbol: row.silence for row in silence_table().cells for symbol in row.symbols if symbol.startswith("torch.cuda.") and "*" not in symbol
}


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    names = [name for name in SAID if _is_there(name)]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "called_without_cuda.py")],
        input=json.dumps(names), text=True, capture_output=True, check=True, cwd=tmp_path_factory.mktemp("called"),
    )  # fmt: skip
    return json.loads(done.stdout)


def _is_there(name: str) -> bool:
    """Whether this PyTorch has the name; what an older one lacks is not asked of it."""
    found = torch
    for part in name.split(".")[1:]:
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def test_most_names_are_there_to_be_asked(heard: dict[str, str]) -> None:
    assert len(heard) > 0.9 * len(SAID)


def test_what_is_loud_raises(heard: dict[str, str]) -> None:
    assert [name for name, answer in heard.items() if SAID[name] == "loud" and answer == "ok"] == []


def test_what_is_silent_raises_nothing(heard: dict[str, str]) -> None:
    assert {name: answer for name, answer in heard.items() if SAID[name] == "silent" and answer != "ok"} == {}
