"""Bytes as text: encodings, notebooks, and what is no text at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sapper.port import read as read_module
from sapper.port.finding import Unread
from sapper.port.read import read
from sapper.port.scan import scan
from sapper.port.source import Source


def source_of(tmp_path: Path, name: str, data: bytes) -> Source:
    (tmp_path / name).write_bytes(data)
    source = read(tmp_path / name, name)
    assert isinstance(source, Source)
    return source


@pytest.mark.parametrize(
    ("text", "codec", "encoding"),
    [
        ("x = 'cuda'\n", "ascii", "utf-8"),
        ("x = '设备'\n", "utf-8", "utf-8"),
        ("x = '设备'\n", "utf-8-sig", "utf-8-sig"),
        ("x = '设备设备'\n", "gb18030", "gb18030"),
        ("# -*- coding: gbk -*-\nx = '设备'\n", "gbk", "gbk"),
        ("#!/usr/bin/python\n# vim: set fileencoding=latin-1 :\nx = 'é'\n", "latin-1", "iso8859-1"),
        ("x = 'é'\n", "latin-1", "latin-1"),
        ("x = 'cuda'\n", "utf-16", "utf-16"),
        ("x = 'cuda'\n", "utf-32", "utf-32"),
    ],
)
def test_the_text_comes_back_whatever_the_encoding(tmp_path: Path, text: str, codec: str, encoding: str) -> None:
    source = source_of(tmp_path, "a.py", text.encode(codec))

    assert (source.text, source.encoding) == (text, encoding)


@pytest.mark.parametrize("cookie", ["no-such-codec", "rot13", "hex", "utf-8"])
def test_an_encoding_that_cannot_be_meant_is_not_believed(tmp_path: Path, cookie: str) -> None:
    source = source_of(tmp_path, "a.py", f"# coding: {cookie}\nx = '\xe9'\n".encode("latin-1"))

    assert "x = 'é'" in source.text


def test_line_ends_stay(tmp_path: Path) -> None:
    assert source_of(tmp_path, "a.py", b"a = 1\r\nb = 2\rc = 3\n").text == "a = 1\r\nb = 2\rc = 3\n"


def test_what_is_no_source_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_module, "MAX_BYTES", 2**20)
    (tmp_path / "a.py").write_bytes(b"\x00\x01cuda")
    (tmp_path / "b.py").write_bytes(b"x" * (2**20 + 1))
    (tmp_path / "c.ipynb").write_text("{ not JSON")
    (tmp_path / "d.ipynb").write_text("[1, 2]")

    codes = [(one.path, one.code, one.scanned) for one in scan(tmp_path).unread]

    assert codes == [
        ("a.py", "SP-READ-004", "not"),
        ("b.py", "SP-READ-003", "not"),
        ("c.ipynb", "SP-READ-005", "not"),
        ("d.ipynb", "SP-READ-005", "not"),
    ]


def test_a_file_that_vanished_is_said(tmp_path: Path) -> None:
    gone = read(tmp_path / "gone.py", "gone.py")

    assert isinstance(gone, Unread)
    assert gone.code == "SP-READ-002"


def notebook(*cells: str | list[str], language: str = "python") -> str:
    code = [{"cell_type": "code", "source": source, "outputs": []} for source in cells]
    return json.dumps({"cells": [{"cell_type": "markdown", "source": "# cuda"}, *code], "metadata": {"kernelspec": {"language": language}}})


def test_cells_are_one_module_and_findings_say_their_cell(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text(notebook("import torch as t\n", ["%time\n", "x = 1\n", "t.cuda.synchronize()"]))

    found = scan(tmp_path).findings

    assert [(one.symbol, one.place.cell, one.place.line, one.excerpt) for one in found] == [
        ("torch.cuda.synchronize", 3, 3, "t.cuda.synchronize()")
    ]


def test_what_a_cell_gives_to_a_shell_is_read_as_one(tmp_path: Path) -> None:
    cells = (
        "!pip install flash-attn==2.6.3\nx = 1",
        "%%bash\nnvidia-smi\n",
        "if x:\n    !nvcc a.c\n",
        "%pip install cupy-cuda12x",
        "%%html\n<b>cuda</b>",
    )
    (tmp_path / "a.ipynb").write_text(notebook(*cells))

    scanned = scan(tmp_path)

    assert [(one.symbol, one.place.cell, one.place.line) for one in scanned.findings] == [
        ("flash-attn", 2, 1),
        ("nvidia-smi", 3, 2),
        ("nvcc", 4, 2),
        ("cupy-cuda12x", 5, 1),
    ]
    assert scanned.unread == ()


def test_lines_of_ipython_leave_python_whole(tmp_path: Path) -> None:
    lines = ["files = !ls", "for f in files:", "    %timeit f", "!echo \\", "  more", "?print", "y = 2"]
    source = source_of(tmp_path, "a.ipynb", notebook("\n".join(lines)).encode())

    compile(source.text, "cell", "exec")
    assert source.text.count("\n") == len(lines) - 1


def test_a_notebook_of_another_language_has_no_cells(tmp_path: Path) -> None:
    assert source_of(tmp_path, "a.ipynb", notebook("using CUDA", language="julia").encode()).text == ""
