"""Notebooks are rewritten cell by cell, and every byte outside of the changed lines stays."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from sapper.port.fix.plan import Plan, plan
from sapper.port.scan import scan

OUTPUT: dict[str, Any] = {"output_type": "display_data", "data": {"image/png": "torch.cuda" * 20}, "metadata": {}}


def notebook(*cells: str, listed: bool = True, indent: int | None = 1, ascii_only: bool = False) -> str:
    """A notebook with these code cells, a text of Markdown between them."""
    made: list[dict[str, Any]] = []
    for cell in cells:
        source: Any = cell.splitlines(keepends=True) if listed else cell
        made.append({"cell_type": "markdown", "metadata": {}, "source": ["Runs on `torch.cuda`.\n"]})
        made.append({"cell_type": "code", "execution_count": 3, "metadata": {"x": "é"}, "outputs": [OUTPUT], "source": source})
    whole = {"cells": made, "metadata": {"kernelspec": {"language": "python"}}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=indent, ensure_ascii=ascii_only) + "\n"


def fixed(folder: Path, text: str) -> tuple[str, Plan]:
    (folder / "a.ipynb").write_text(text, "utf-8")
    made = plan(folder, style="accelerator")
    return made.contents.get("a.ipynb", text.encode()).decode(), made


def sources(text: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]


FIRST = "# größe\nimport torch\nprint(torch.cuda.is_available())"
SECOND = '%%time\n!pip install x\nmodel = model.cuda()\nx = "\\u00e9\\t\\"q\\""; y = torch.zeros(1, device="cuda")\n%matplotlib inline\n'


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize(("indent", "ascii_only"), [(1, False), (None, True)])
def test_only_the_changed_lines_differ(listed: bool, indent: int | None, ascii_only: bool, tmp_path: Path) -> None:
    before = notebook(FIRST, SECOND, listed=listed, indent=indent, ascii_only=ascii_only)

    after, made = fixed(tmp_path, before)

    first, second = sources(after)
    assert made.left == {} and first.startswith("# größe\nimport torch\n") and "\nprint(torch.cuda.is_available())" in first
    assert second == SECOND.replace("model.cuda()", "model.to(DEVICE_TYPE)").replace('"cuda"', "DEVICE_TYPE")
    if indent:
        changed = [line for line in difflib.ndiff(before.split("\n"), after.split("\n")) if line[0] == "-"]
        assert len(changed) == 2
    assert {(line.cell, line.line) for line in made.done} == {(4, 3), (4, 4)}
    (tmp_path / "a.ipynb").write_text(after, "utf-8")
    assert plan(tmp_path, style="accelerator").contents == {}
    assert not [one for one in scan(tmp_path, jobs=1).findings if one.standing == "ties"]


def test_a_notebook_with_a_line_of_ipython_in_the_way_is_left_and_said_so(tmp_path: Path) -> None:
    before = notebook("%%time\nx = x.cuda()")

    after, made = fixed(tmp_path, before)

    assert (after, made.left) == (before, {"a.ipynb": "notebook"})


def test_a_notebook_beside_scripts_takes_their_helper_file(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import torch\nx = torch.ones(1).cuda()\n")
    (tmp_path / "a.ipynb").write_text(notebook("import torch\ny = torch.ones(1).cuda()"))

    made = plan(tmp_path)

    assert set(made.contents) == {"train.py", "a.ipynb", "sapper_device.py"}
    assert sources(made.contents["a.ipynb"].decode()) == [
        "import torch\nimport sapper_device\n\ny = torch.ones(1).to(sapper_device.device_type())"
    ]


LINES = [
    "import torch",
    "x = x.cuda()",
    "x = é.cuda(); y = 'ü'",
    "%time x",
    "!ls",
    "",
    "# cuda",
    's = "\\\\n"',
    "def f(): return torch.cuda.synchronize()",
]


@settings(max_examples=25, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cells=st.lists(st.lists(st.sampled_from(LINES), max_size=5), min_size=1, max_size=3),
    listed=st.booleans(),
    ascii_only=st.booleans(),
)
def test_any_notebook_stays_one_and_is_done_once(cells: list[list[str]], listed: bool, ascii_only: bool, tmp_path: Path) -> None:
    texts = ["import torch", *("\n".join(lines) for lines in cells)]
    before = notebook(*texts, listed=listed, ascii_only=ascii_only)

    after, _ = fixed(tmp_path, before)
    again, made = fixed(tmp_path, after)

    assert again == after and made.contents == {}
    old, new = json.loads(before), json.loads(after)
    for cell in (*old["cells"], *new["cells"]):
        if cell["cell_type"] == "code":
            del cell["source"]
    assert old == new
    kept = [line for text in sources(before) for line in text.split("\n") if line.startswith(("%", "!", "#"))]
    assert kept == [line for text in sources(after) for line in text.split("\n") if line.startswith(("%", "!", "#"))]
