"""What the reader of Python sees: names through imports and aliases, and how a line stands."""

from __future__ import annotations

from sapper.port import python, rule
from sapper.port.finding import Finding
from sapper.port.source import Source

AVAILABLE = {"SP-PORT-101", *rule.rules()["SP-PORT-101"].match.purposes.values()}


def found_in(text: str, path: str = "train.py") -> list[Finding]:
    source = Source(path=path, language="python", text=text)
    return [finding for finding in python.resolve([python.analyse(source, rule.rules())], rule.rules()) if finding.code in AVAILABLE]


def found_in_project(files: dict[str, str]) -> list[Finding]:
    """As a scan does it: all files, then again those that import what others give away."""
    sources = {path: Source(path=path, language="python", text=text) for path, text in files.items()}
    analyses = {path: python.analyse(source, rule.rules()) for path, source in sources.items()}
    for _ in range(python.ROUNDS):
        known = python.index(analyses.values())
        for path, source in sources.items():
            data = source.text.encode()
            given = python.given_to(data, python.imports(data, path), known)
            if given:
                analyses[path] = python.analyse(source, rule.rules(), known=given)
    return python.resolve(analyses.values(), rule.rules())


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


def train():
    if not torch.cuda.is_available():
        return
    torch.cuda.is_available()
"""
    assert [finding.standing for finding in found_in(text)] == ["ties", "guarded", "ties", "ties", "ties", "ties", "guarded"]


def test_a_branch_beside_another_vendors_is_the_vendors_own() -> None:
    text = """
import torch

if is_npu_available():
    pass
elif torch.cuda.is_available():
    torch.cuda.is_available()
"""
    assert [finding.standing for finding in found_in(text)] == ["ties", "vendor"]


def test_a_name_is_followed_through_the_files_of_the_project() -> None:
    files = {
        "src/pkg/utils.py": "from torch.cuda import is_available\nimport torch\naccelerator = torch.cuda\n",
        "src/pkg/__init__.py": "from .utils import is_available, accelerator as chip\n",
        "src/pkg/train.py": "import pkg\nfrom pkg.utils import *\n\n"
        "def go():\n    is_available()\n    pkg.is_available()\n    pkg.chip.is_available()\n",
        "src/pkg/other.py": "from elsewhere.utils import is_available\n\nis_available()\n",
    }
    found = {(finding.place.path, finding.place.line, finding.because) for finding in found_in_project(files) if finding.code in AVAILABLE}

    assert found == {
        ("src/pkg/utils.py", 1, None),
        ("src/pkg/__init__.py", 1, "src/pkg/utils.py:1"),
        ("src/pkg/train.py", 5, "src/pkg/utils.py:1"),
        ("src/pkg/train.py", 6, "src/pkg/__init__.py:1"),
        ("src/pkg/train.py", 7, "src/pkg/__init__.py:1"),
    }


THIN = '''
import torch
from torch.cuda import is_available as ask


def nothing(
    of,
    interest,
) -> None:
    """Text
at the margin."""
    print(of)
    print(interest)


class Holder:
    def first(self):
        a = 1
        b = 2
        return a + b

    @property
    def second(self):
        return torch.cuda.is_available()

    @staticmethod
    async def third():
        a = [
1, 2]
        b = 2
        return a, b


def by_another_name():
    a = 1
    b = 2
    return ask()
'''


def test_what_is_left_out_of_the_parse_changes_no_finding() -> None:
    assert [(finding.place.line, finding.excerpt.strip()) for finding in found_in(THIN)] == [
        (3, "from torch.cuda import is_available as ask"),
        (24, "return torch.cuda.is_available()"),
        (37, "return ask()"),
    ]


def test_a_file_of_comments_alone_is_read_like_any_other() -> None:
    source = Source(path="__init__.py", language="python", text="# Runs on CUDA.\n# Nothing more.\n")
    assert python.analyse(source, rule.rules()).unread == ()


def test_python_2_is_read_line_by_line_and_said_to_be() -> None:
    text = """
import torch

def report():
    try:
        print torch.cuda.is_available()
    except ValueError, error:
        exec "pass"
    return torch.cuda.is_available()

<<<<<<< HEAD
x = torch.cuda.is_available() y
"""
    analysis = python.analyse(Source(path="old.py", language="python", text=text), rule.rules())

    assert [(one.code, one.scanned) for one in analysis.unread] == [("SP-PYTHON-001", "partly")]
    assert [finding.place.line for finding in analysis.findings if finding.code in AVAILABLE] == [6, 9, 12]


def test_what_a_dependency_gives_is_found_by_the_name_that_it_is_imported_under() -> None:
    text = """\
from mooncake import engine as transfer
import modelopt.torch.quantization as mtq

model = mtq.quantize(model)
server = transfer.TransferEngine()
self.engine = self.modelopt
"""
    analysis = python.analyse(Source(path="serve.py", language="python", text=text), rule.rules())

    found = [(finding.place.line, finding.symbol) for finding in analysis.findings]
    assert found == [(1, "mooncake.engine"), (2, "modelopt"), (4, "modelopt"), (5, "mooncake.engine")]
