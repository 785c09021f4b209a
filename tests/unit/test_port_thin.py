"""A file is read without the statements that hold nothing of interest, and says the same."""

from __future__ import annotations

import ast
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sapper.port import python, rule
from sapper.port.python import thin
from sapper.port.python.lines import Lines
from sapper.port.source import Source

TEXT = '''\
import torch
from torch.cuda import is_available as ask


def nothing(
    of,
    interest,
) -> None:
    """Text
at the margin, with "cuda" in it nowhere but here.
"""
    print(of)


class Holder:
    def first(self):
        a = [
            1,
        ]  # a comment
        return a

    @property
    def second(self):
        if self.third:
            a = 1
        elif torch.cuda.is_available():
            b = (2)
            return b
        else:
            c = 3
        return 4

    @staticmethod
    async def third():
        a = """
    if not code:
"""
        return a


def by_another_name():
    a = 1
    for b in a: print(b)
    return ask()
'''


def lines_of(text: str, *words: str) -> list[int]:
    return [number for number, line in enumerate(text.split("\n"), 1) if any(word in line for word in words)]


def test_statements_without_interest_are_left_out_and_all_else_keeps_its_place() -> None:
    thinned, left_out = thin.thin(Lines(TEXT), lines_of(TEXT, "torch.cuda.", "ask("))

    kept = [line for line in thinned.split("\n") if line.strip()]
    assert kept == [
        "import torch",
        "from torch.cuda import is_available as ask",
        "nothing = ()",
        "class Holder:",
        "    first = ()",
        "    @property",
        "    def second(self):",
        "        if self.third:",
        "            a = 1",
        "        elif torch.cuda.is_available():",
        "            b = (2)",
        "            return b",
        "        else:",
        "            c = 3",
        "        ________",
        "    def third():",
        "     ___________",
        "def by_another_name():",
        "    pass",
        "    return ask()",
    ]
    whole, rest = ast.parse(TEXT), ast.parse(thinned)
    ends = [{node.name: node.end_lineno for node in tree.body if isinstance(node, ast.ClassDef)} for tree in (whole, rest)]
    assert ends[0] == ends[1]
    assert not {line for first, last in left_out for line in range(first, last + 1)} & set(lines_of(TEXT, "torch.cuda.", "import"))


@pytest.mark.parametrize(
    "text",
    [
        'x = 1\ny = f("# """)\nz = 2\n',  # a string that only looks as if one opened
        "if x:\n\ta = 1\nif y:\n    b = 2\n",  # tabs and blanks
        "x = [\n1,\n2,\n]\n",  # what looks like statements stands in a bracket
        'x = """\n',  # never closed
        "if x\n    a = 1\ntorch.cuda\n",  # a head without an end
    ],
)
def test_where_statements_cannot_be_told_the_text_is_parsed_whole(text: str) -> None:
    last = text.count("\n")
    assert thin.thin(Lines(text), [2, last]) == (text, [])


def test_what_a_variable_hands_on_is_followed_in_functions_that_say_nothing_of_interest() -> None:
    text = (
        "import torch\n\n\n"
        "def current():\n    if torch.cuda.is_available():\n        return torch.cuda.device_count()\n    return -1\n\n\n"
        "def count(given):\n    found = None\n    if given is None:\n        found = current()\n    else:\n"
        "        print(given)\n    return found\n"
    )

    analysis = python.analyse(Source(path="devices.py", language="python", text=text), rule.rules())

    assert [(carrier.name, carrier.kind) for carrier in analysis.carriers] == [("devices.current", "count"), ("devices.count", "count")]


@pytest.mark.parametrize(
    ("text", "lines", "times"),
    [
        ("stream = torch.cuda.Stream()\n", [3], 1),
        ("device = torch.device('cuda')\n", [3], 1),
        ("rank = torch.cuda.current_device()\n", [3], 1),
        ("count = torch.cuda.device_count()\n", [3, 9], 1),
        ("first = torch.cuda.memory_allocated()\ncount = {'first': first}\n", [3, 4, 10], 1),
        ("def many():\n    if x:\n        return torch.cuda.device_count()\n\n\ncount: int = many()\n", [5, 8, 14], 1),
        ("def many(x):\n    n, m = torch.cuda.mem_get_info()\n\n    if x:\n        print(m)\n", [4, 7], 1),
        ("class A:\n  def a(self):\n    self.n = torch.cuda.device_count()\n\n  def f(self):\n    return self.n\n", [5, 8], 1),
        ("count = torch.cuda.device_count(\n)\n", [3, 10], 1),
        ("count = (\n    torch.cuda.device_count()\n)\n", [4, 11], 2),
        ("try:\n    import apex\nexcept ImportError:\n    stream = None\n", [4], 1),
        ("try:\n    import apex\n\n# kept\n    HAS = True\nexcept ImportError:\n    HAS = False\nstream = HAS\n", [4], 1),
        ("if x:\n    try:  # faster\n        from apex import amp as stream\n    except ImportError:\n        pass\n", [5, 11], 1),
        ("try:\n    import numpy\nexcept ImportError:\n    stream = None\n", [], 0),
    ],
)
def test_a_file_is_read_again_only_for_names_of_which_something_is_told(text: str, lines: list[int], times: int) -> None:
    later = "\n\ndef later(x):\n    if stream:\n        x = 1\n    if count:\n        pass\n    print(device, rank, x)\n"
    source = Source(path="train.py", language="python", text=f"import torch\n\n{text}{later}")

    with mock.patch.object(thin, "thin", side_effect=thin.thin) as read:
        analysis = python.analyse(source, rule.rules())

    assert [finding.place.line for finding in analysis.findings] == lines
    assert times == read.call_count


SIMPLE = st.sampled_from(
    [
        "import torch",
        "from torch import cuda as gpu",
        "from torch.cuda import device_count, Stream",
        "torch = None",
        "n = torch.cuda.device_count()",
        "n = n + 1",
        "m = n",
        "m = current()",
        "print(m, n)",
        "t = torch",
        "t.cuda.synchronize()",
        "dev = getattr(torch.version, 'hip', None)",
        'x.to("cuda")',
        "x = dict(\n    a=1,\n    device='cuda',\n)",
        "y = [\n    1,  # (\n    2,\n]",
        "gpu.synchronize()",
        "with_stream = Stream()",
        "return m",
        "return device_count()",
        "return torch.cuda.current_device()",
        "raise ValueError('no GPU')",
        "self.n = n",
        "print(self.n)",
        "global n",
        '"""cuda in a\ndocstring"""',
        "pass",
        "HAS_APEX = True",
        "import apex",
        "print('no CUDA')",
        "return None",
        "z = 3; w = 4",
        "assert z, \\\n    w",
    ]
)
HEADS = st.sampled_from(
    [
        "if torch.cuda.is_available():",
        "if not torch.cuda.is_available():",
        "if z:",
        "for torch in z:",
        "for i in range(n):",
        "while z:",
        "if HAS_APEX:",
        "if not HAS_APEX:",
        "with torch.cuda.stream(s) as n:",
        "try:",
        "def current():",
        "def helper(a, n=1):",
        'def moved(x, device="cuda"):',
        "@wrapped\ndef cuda_helper():",
        "async def other(\n    a,\n    b,\n):",
        "class Thing(Base):",
        "class CudaThing:",
    ]
)
TAILS = {"if": ["", "else:", 'elif device == "npu":'], "try": ["except ImportError:", "finally:"], "for": ["", "else:"]}


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


@st.composite
def compounds(draw: st.DrawFn, inner: st.SearchStrategy[str]) -> str:
    head = draw(HEADS)
    text = f"{head}\n{indented(draw(inner))}"
    tail = draw(st.sampled_from(TAILS.get(head.split()[0].rstrip(":"), [""])))
    return f"{text}\n{tail}\n{indented(draw(inner))}" if tail else text


PROGRAMS = st.recursive(
    st.lists(SIMPLE, min_size=1, max_size=4).map("\n".join),
    lambda inner: st.lists(st.one_of(SIMPLE, compounds(inner)), min_size=1, max_size=4).map("\n".join),
    max_leaves=10,
)


@settings(max_examples=120, deadline=None)
@given(PROGRAMS)
def test_a_file_says_the_same_with_and_without_what_holds_nothing(program: str) -> None:
    source = Source(path="train.py", language="python", text=f"import torch\n{program}\n")
    thinned = python.analyse(source, rule.rules())
    with mock.patch.object(thin, "thin", lambda lines, _interest: thin.Thinned("\n".join(lines.all), [])):
        whole = python.analyse(source, rule.rules())

    if not whole.unread:  # what is left out may hold what does not parse
        assert thinned == whole
