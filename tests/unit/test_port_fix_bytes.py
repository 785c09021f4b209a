"""The bytes of a rewritten file: only those inside edits change, whatever the encoding and the line ends."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from port_fix_kit import fixed

from sapper.port.fix.change import Need
from sapper.port.fix.file import Rewritten, rewritten
from sapper.port.fix.imports import insertions
from sapper.port.fix.policy import Accelerator, OwnFile, Policy
from sapper.port.fix.rewrite.context import Facts
from sapper.port.fix.text import Piece, Span, Text, applied, spliced
from sapper.port.fix.verify import faithful
from sapper.port.read import decoded
from sapper.port.source import Source

LINES = (
    "x = torch.ones(3).cuda()",
    "torch.cuda.synchronize()",
    'd = "cuda" if torch.cuda.is_available() else "cpu"',
    "s = torch.cuda.amp.GradScaler()",
    'print(f"{torch.cuda.device_count()} cards", "\u663e\u5361")',
    'note = "\u5728 cuda \u4e0a"; y = x.cuda()  # \u6ce8\u91ca cuda',
    "z = (x\n     .cuda()  # why\n     .float())",
    "with torch.cuda.stream(s), torch.cuda.amp.autocast(): pass",
    "if x.is_cuda:\n\tpass",
    'def f(a, d="cuda:0"):\n    return a.to(d)',
    "from torch.cuda import Stream; stream = Stream()",
    "text = '''\ncuda\x0cpage\n'''",
    "q = 1; \\\nw = x.cuda()",
    "pass",
    "",
    "# cuda",
)
ENCODINGS = {"utf-8": b"", "utf-8-sig": b"", "gb18030": b"# -*- coding: gb18030 -*-\n", "gbk": b"# coding=gbk\n"}


PROSE = re.compile("#[^\\r\\n]*|\"\u5728[^\"]*\"")
"""Comments, and what the lines above say in quotes to a reader."""


def file_of(lines: list[str], encoding: str, line_end: str, last: bool) -> bytes:
    head = ["import torch", "import os"]
    cookie = ENCODINGS[encoding].decode()
    text = cookie + "\n".join([*head, *lines]) + ("\n" if last else "")
    return text.replace("\n", line_end).encode(encoding)


def rewrite(raw: bytes, policy: Policy) -> tuple[Source, Rewritten]:
    source = decoded(raw, "a.py", "python")
    assert isinstance(source, Source)
    return source, rewritten(source, raw, policy=policy, facts=Facts(), grade="unsafe", wanted=lambda line, change: True)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lines=st.lists(st.sampled_from(LINES), min_size=1, max_size=7),
    encoding=st.sampled_from(sorted(ENCODINGS)),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    last=st.booleans(),
    own=st.booleans(),
)
def test_any_mixture_keeps_its_bytes_parses_and_is_done_once(lines: list[str], encoding: str, line_end: str, last: bool, own: bool) -> None:
    raw = file_of(lines, encoding, line_end, last)
    policy: Policy = OwnFile(None) if own else Accelerator()
    source, first = rewrite(raw, policy)
    assert first.left is None
    ast.parse(first.raw)
    text = first.raw.decode(source.encoding)
    said = PROSE.findall(source.text)
    assert [words for words in PROSE.findall(text) if words in said] == said
    if line_end != "\r\n":
        assert b"\r\n" not in first.raw
    assert first.raw.decode(source.encoding).endswith(("\n", "\r")) == source.text.endswith(("\n", "\r"))
    again = rewrite(first.raw, policy)[1]
    assert (again.raw, again.done) == (first.raw, [])


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    text=st.text(alphabet="ab\u4e2d\U0001f600\r\n\t\x0c \u2028", max_size=40),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "gb18030"]),
)
def test_edits_leave_every_other_byte(data: st.DataObject, text: str, encoding: str) -> None:
    raw = text.encode(encoding)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6, unique=True)))
    spans = [Span(*pair) for pair in zip(cuts[::2], cuts[1::2], strict=False)]
    pieces = [Piece(span, data.draw(st.text(alphabet="xy\u6587", max_size=3))) for span in spans]
    changed = spliced(raw, text, pieces=pieces, encoding=encoding)
    assert changed is not None
    at = old = 3 if encoding == "utf-8-sig" else 0
    codec = encoding.removesuffix("-sig")
    position = 0
    for piece in pieces:
        kept = len(text[position : piece.span.start].encode(codec))
        assert changed[at : at + kept] == raw[old : old + kept]
        at += kept + len(piece.text.encode(codec))
        old += kept + len(text[piece.span.start : piece.span.end].encode(codec))
        position = piece.span.end
    assert changed[at:] == raw[old:]


@given(text=st.text(alphabet="ab\u4e2d\r\n\x0c\u2028\x85", max_size=60))
def test_lines_are_those_that_python_counts(text: str) -> None:
    expected = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    found = [Text(text).line(number).rstrip("\r\n") for number in range(1, len(expected) + 1)]
    assert found == [line.rstrip("\r\n") for line in expected]


def test_an_encoding_that_lacks_a_letter_leaves_the_file() -> None:
    assert spliced(b"abc", "abc", pieces=[Piece(Span(1, 2), "\u4e2d")], encoding="latin-1") is None


def test_bytes_that_the_encoding_does_not_give_back_leave_the_file() -> None:
    assert (
        spliced(b"\x1b$B\x1b(Bab", b"\x1b$B\x1b(Bab".decode("iso2022_jp"), pieces=[Piece(Span(1, 2), "c")], encoding="iso2022_jp") is None
    )


def test_a_change_of_syntax_outside_of_the_edits_is_noticed() -> None:
    piece = Piece(Span(4, 5), "f)(g")
    assert not faithful("y = f(x)", applied("y = f(x)", [piece]), pieces=[piece], anchors=[Span(6, 7)])
    good = Piece(Span(6, 7), "z")
    assert faithful("y = f(x)", "y = f(z)", pieces=[good], anchors=[Span(6, 7)])
    assert not faithful("y = f(x)", "y = f(z", pieces=[good], anchors=[Span(6, 7)])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "import os\n"),
        ("x = 1", "import os\n\nx = 1"),
        ('"""Words."""\n', '"""Words."""\nimport os\n'),
        ('"""Words."""', '"""Words."""\nimport os'),
        ("#!/usr/bin/env python\n# -*- coding: utf-8 -*-\nx = 1\n", "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\nimport os\n\nx = 1\n"),
        ("from __future__ import annotations\n", "from __future__ import annotations\nimport os\n"),
        ("import a  # why\nx = 1\n", "import a  # why\nimport os\n\nx = 1\n"),
        ("import a; x = (1,\n2)\ny = 3\n", "import a; x = (1,\n2)\nimport os\n\ny = 3\n"),
        (
            "import b\nos.environ = 1\nimport torch\nimport c\n\ny = 2\n",
            "import b\nos.environ = 1\nimport torch\nimport c\nimport os\n\ny = 2\n",
        ),
        ("from a import (\n    b,\n)\n@f\ndef g(): pass\n", "from a import (\n    b,\n)\nimport os\n\n@f\ndef g(): pass\n"),
        ("import os\n", "import os\n"),
        ("import a\r\n\r\nx = 1\r\n", "import a\r\nimport os\r\n\r\nx = 1\r\n"),
    ],
)
def test_imports_go_below_the_docstring_the_future_and_other_imports(before: str, after: str) -> None:
    pieces = insertions(Text(before), ast.parse(before), [Need("import os", "os")])
    assert applied(before, pieces) == after


def test_a_broken_file_is_said_so_and_left(tmp_path: Path) -> None:
    from sapper.port.fix.plan import plan

    (tmp_path / "a.py").write_text("print torch.cuda.synchronize()\n")
    (tmp_path / "b.py").write_text("import torch\n\ntorch.cuda.synchronize()\n")
    made = plan(tmp_path)
    assert made.left == {"a.py": "syntax"} and "a.py" not in made.contents and "b.py" in made.contents


def test_an_f_string_keeps_its_quotes(tmp_path: Path) -> None:
    before = "import torch\n\ns = f'{torch.cuda.device_count()} and {x.cuda()} on {\"cuda\"}'\n"
    after = fixed(tmp_path, before)
    ast.parse(after)
    assert "{DEVICE_MODULE.device_count()} and {x.to(DEVICE_TYPE)}" in after
