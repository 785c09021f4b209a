"""What the reader of Python sees: names through imports and aliases, and how a line stands."""

from __future__ import annotations

from sapper.port import python, rule
from sapper.port.finding import Finding
from sapper.port.source import Source

AVAILABLE = "SP-PORT-101"


def found_in(text: str, path: str = "train.py") -> list[Finding]:
    source = Source(path=path, language="python", text=text)
    return [finding for finding in python.resolve([python.analyse(source, rule.rules())], rule.rules()) if finding.code == AVAILABLE]


def spans(text: str) -> list[str]:
    lines = text.split("\n")
    return [lines[finding.place.line - 1][finding.place.column : finding.place.end_column] for finding in found_in(text)]


def test_a_name_is_found_through_every_way_to_import_it() -> None:
    text = """
import torch
import torch as T
import torch.cuda as tc
from torch import cuda
from torch import cuda as c2
tcuda = torch.cuda
torch.cuda.is_available(), T.cuda.is_available(), tc.is_available(), cuda.is_available(), c2.is_available()
tcuda.is_available(), getattr(torch, "cuda").is_available()
"""
    expected = ["torch.cuda.is_available", "T.cuda.is_available", "tc.is_available", "cuda.is_available", "c2.is_available"]

    assert spans(text) == [*expected, "tcuda.is_available", 'getattr(torch, "cuda").is_available']


def test_an_import_inside_a_function_binds_only_there_and_a_parameter_hides_one() -> None:
    text = """
from torch.cuda import is_available

def other(is_available):
    return is_available()

def mine():
    from torch.cuda import is_available as ask
    return ask()

def ask_nothing():
    return ask()
"""
    assert [finding.place.line for finding in found_in(text)] == [2, 8, 9]


def test_comments_docstrings_and_foreign_names_are_no_findings() -> None:
    text = '''
"""torch.cuda.is_available() is what we used to call."""
import torch  # torch.cuda.is_available()
mine.cuda.is_available()
cuda.is_available()
log("torch.cuda.is_available() said no")
'''
    assert found_in(text) == []


def test_columns_count_characters() -> None:
    assert spans('import torch\nprint("设备", torch.cuda.is_available())\n') == ["torch.cuda.is_available"]


def test_what_runs_only_after_asking_for_cuda_is_guarded_and_what_asks_ties() -> None:
    text = """
import torch

if torch.cuda.is_available():
    torch.cuda.is_available()
else:
    torch.cuda.is_available()
if not torch.cuda.is_available():
    raise SystemExit
torch.cuda.is_available()
"""
    assert [finding.standing for finding in found_in(text)] == ["ties", "guarded", "ties", "ties", "guarded"]


def test_a_branch_beside_another_vendors_is_the_vendors_own() -> None:
    text = """
import torch

if is_npu_available():
    pass
elif torch.cuda.is_available():
    torch.cuda.is_available()
"""
    assert [finding.standing for finding in found_in(text)] == ["ties", "vendor"]
