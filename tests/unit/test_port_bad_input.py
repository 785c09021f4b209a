"""A scan answers whatever a tree holds: nothing crashes, nothing hangs, nothing is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sapper.port import pool, rule
from sapper.port.finding import Scan, Unread
from sapper.port.read import decoded
from sapper.port.scan import scan
from sapper.port.source import Language, Source
from sapper.port.text import find
from sapper.port.walk import File
from sapper.port.work import Worker

TEXTS: list[Language] = ["docker", "requirements", "pyproject", "setup", "conda", "shell", "yaml", "cmake", "make", "config"]
LANGUAGES: list[Language] = ["python", "notebook", "cuda", "cpp", *TEXTS]
WORDS = [
    "cuda", "CUDA_HOME", "nccl", "--device", "pip install", "flash-attn==2", "torch==2.0", "if", "fi", "if(", "endif()", "FROM ", "image: ",
    '"', "'", "#", "\\\n", "\n", "\r\n", "[", "]", "{", "}", "(", ")", "=", ":", "- ", "$(", "&&", "sm_80", "device: cuda",
    "git+https://x/apex", "[project]", "dependencies = [", "\x00", "é", "中", "\ud800", "a" * 300, "#[[", "%%bash\n", "!nvcc",
    "import torch\n", "torch.cuda", "def f(",
]  # fmt: skip


def looked_at(data: bytes, language: Language) -> None:
    source = decoded(data, "setup.py" if language == "python" else "a", language)
    if isinstance(source, Unread):
        return
    assert isinstance(source.text, str)
    find(source, rule.rules())


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=300), language=st.sampled_from(LANGUAGES))
def test_any_bytes_can_be_a_file_of_any_language(data: bytes, language: Language) -> None:
    looked_at(data, language)


@settings(max_examples=250, deadline=None)
@given(words=st.lists(st.sampled_from(WORDS), max_size=30), language=st.sampled_from(TEXTS))
def test_findings_of_any_text_lie_in_it(words: list[str], language: Language) -> None:
    text = " ".join(words)
    lines = text.split("\n")

    for finding in find(Source(path="a", language=language, text=text), rule.rules()):
        place = finding.place
        assert 1 <= place.line <= place.end_line <= len(lines)
        assert 0 <= place.column <= len(lines[place.line - 1])
        assert 0 <= place.end_column <= len(lines[place.end_line - 1])
        assert finding.excerpt == lines[place.line - 1].rstrip("\r")


@pytest.fixture(scope="module")
def worker() -> Worker:
    return Worker(rule.rules())


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.sampled_from(WORDS), max_size=20), raw=st.binary(max_size=60), language=st.sampled_from(LANGUAGES))
def test_a_worker_answers_for_any_file(words: list[str], raw: bytes, language: Language, worker: Worker, tmp_path: Path) -> None:
    path = tmp_path / "setup.py"
    path.write_bytes(" ".join(words).encode("utf-8", "surrogatepass") + raw)

    outcome = worker.first(File(str(path), "setup.py", language, 0))

    assert outcome.lines >= 0


HOSTILE = {
    "print.py": "print 'CUDA'\nx.cuda()\n",
    "tabs.py": "if cuda:\n\tx = 1\n        y = 2\n",
    "deep.py": "x = " + "(" * 5000 + "torch.cuda" + ")" * 5000,
    "sum.py": "import torch.cuda\nx = " + "+".join(["1"] * 5000),
    "minus.py": "cuda = " + "-" * 50_000 + "1",
    "dots.py": "import torch\ntorch.cuda" + ".a" * 5000,
    "nul.py": "import torch\n\x00torch.cuda.synchronize()",
    "surrogate.py": "# -*- coding: utf-7 -*-\nx = 'cuda'",
    "form.py": "\x0cimport torch\r\rtorch.cuda.synchronize()",
    "nested.ipynb": '{"cells":' + "[" * 100_000,
    "odd.ipynb": '{"cells": [1, {"cell_type": "code"}, {"cell_type": "code", "source": 5}, {"cell_type": "code", "source": [1, "cuda"]}]}',
    "worksheets.ipynb": '{"worksheets": [3, {"cells": {"a": 1}}]}',
    "long.sh": "cuda " * 20_000,
    "long.yaml": "a: " + "'cuda" * 20_000,
    "Dockerfile": "RUN pip install " + "\\\n " * 20_000 + "flash-attn",
    "CMakeLists.txt": "if(cuda)\n" * 5_000 + "endif()\n" * 5_000,
    "pyproject.toml": "[project]\ndependencies = " + "[" * 20_000,
    "requirements.txt": "flash-attn" + "[" * 20_000 + "\n" + "-" * 20_000 + "\n" + "a." * 10_000,
    "environment.yml": "- pip:\n" * 5_000,
    "setup.cfg": "[options]\ninstall_requires = " + ";" * 20_000,
    "setup.py": "setup(install_requires=" + "[" * 300 + ")",
    "flags.cmake": "USE_" * 20_000 + " " + "CUDA_" * 20_000,
    "options.sh": "--device=" * 20_000 + "\n" + "-l" * 20_000 + "\n" + "/" * 20_000,
    "kernel.cu": "/*" * 20_000 + '"' + "<<<" * 20_000,
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hostile")
    for name, text in HOSTILE.items():
        (root / name).write_text(text, "utf-8")
    (root / "binary.py").write_bytes(bytes(range(256)) * 10)
    (root / "loop").symlink_to(root)
    (root / "ran.py").write_text("import pathlib, torch\npathlib.Path(__file__).with_name('RAN').touch()\ntorch.cuda.init()\n")
    return root


@pytest.mark.slow
def test_a_tree_of_hostile_files_is_scanned(hostile: Path) -> None:
    scanned = scan(hostile, jobs=1)

    assert isinstance(scanned, Scan)
    unread = {one.path: one.code for one in scanned.unread}
    assert unread["nested.ipynb"] == "SP-READ-005"
    assert unread["binary.py"] == unread["nul.py"] == "SP-READ-004"
    assert {"print.py", "tabs.py", "deep.py"} <= set(unread)
    assert not (hostile / "RAN").exists()


@pytest.mark.slow
def test_the_result_is_the_same_for_any_number_of_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_PART_BYTES", 1)
    for name in ("print.py", "form.py", "odd.ipynb", "requirements.txt", "setup.cfg", "kernel.cu"):
        (tmp_path / name).write_text(HOSTILE[name], "utf-8")
    (tmp_path / "train.py").write_text("import torch\ntorch.cuda.init()\n")

    assert scan(tmp_path, jobs=2) == scan(tmp_path, jobs=1)
    assert scan(tmp_path, jobs=1).findings
