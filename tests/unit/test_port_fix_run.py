"""`sapper port fix` on disk: git, all files or none, undo."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from port_fix_kit import git

from sapper.cli import main
from sapper.errors import BadFile
from sapper.port.fix import journal
from support import environment

BEFORE = "import torch\n\nx = torch.ones(3).cuda()\n"
CLEAN = "print(1)\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "a.py").write_text(BEFORE)
    (root / "b.py").write_text(BEFORE)
    (root / "clean.py").write_text(CLEAN)
    return root


def run(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner(env={"SAPPER_LANG": "en"}).invoke(main.cli, ["port", "fix", *map(str, arguments)])
    return done.exit_code, done.stdout_bytes.decode(), done.stderr


def contents(root: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(root.glob("*.py"))}


def test_all_files_are_rewritten_and_undo_gives_them_back(tree: Path) -> None:
    before = contents(tree)
    code, out, err = run(tree)
    assert code == 0
    assert "a.py: 1 rewritten" in out and "sapper_device.py: new" in out and "--undo" in err
    assert "sapper_device.device_type()" in (tree / "a.py").read_text()
    assert (tree / "clean.py").read_text() == CLEAN
    assert run("--undo", tree)[0] == 0
    assert contents(tree) == before
    assert sorted(path.name for path in tree.iterdir()) == ["a.py", "b.py", "clean.py"]


def test_a_second_run_changes_nothing(tree: Path) -> None:
    run(tree)
    after = contents(tree)
    code, _out, err = run(tree)
    assert (code, contents(tree)) == (0, after)
    assert "nothing to rewrite" in err


def test_a_difference_is_printed_and_nothing_written(tree: Path) -> None:
    before = contents(tree)
    code, out, _err = run("--diff", tree)
    assert code == 1 and contents(tree) == before
    assert "-x = torch.ones(3).cuda()\n+x = torch.ones(3).to(sapper_device.device_type())\n" in out


def test_the_difference_is_one_that_git_applies(tree: Path) -> None:
    (tree / "a.py").write_bytes(BEFORE.replace("\n", "\r\n").rstrip().encode())
    git(tree, "init")
    _code, out, _err = run("--diff", tree)
    (tree.parent / "patch").write_bytes(out.encode())
    git(tree, "apply", "--whitespace=nowarn", str(tree.parent / "patch"))
    applied = {path.name: path.read_bytes() for path in tree.glob("*.py")}
    git(tree, "init")
    (tree / "sapper_device.py").unlink()
    (tree / "a.py").write_bytes(BEFORE.replace("\n", "\r\n").rstrip().encode())
    (tree / "b.py").write_text(BEFORE)
    run("--force", tree)
    assert {path.name: path.read_bytes() for path in tree.glob("*.py")} == applied


def test_a_dirty_tree_is_refused_by_name_unless_forced(tree: Path) -> None:
    git(tree, "init")
    git(tree, "add", "-A")
    git(tree, "commit", "-m", "first")
    (tree / "b.py").write_text(BEFORE + "y = 1\n")
    code, _out, err = run(tree)
    assert code == 2 and "`b.py`" in err and "SP-FIX-001" in err
    assert (tree / "a.py").read_text() == BEFORE
    assert run("--force", tree)[0] == 0
    done = subprocess.run(["git", "status", "--porcelain"], cwd=tree, capture_output=True, text=True, check=True).stdout
    assert done.split() == ["M", "a.py", "M", "b.py", "??", "sapper_device.py"], "the journal leaves no trace in the tree"


def test_undo_does_not_lose_what_was_written_since(tree: Path) -> None:
    run(tree)
    mine = (tree / "a.py").read_text() + "# mine\n"
    (tree / "a.py").write_text(mine)
    code, _out, err = run("--undo", tree)
    assert code == 2 and "a.py" in err and "SP-FIX-005" in err
    assert (tree / "a.py").read_text() == mine
    assert run("--undo", "--force", tree)[0] == 0
    assert (tree / "a.py").read_text() == BEFORE


@pytest.mark.parametrize("in_git", [True, False])
def test_a_copy_of_a_tree_takes_back_its_own_run(in_git: bool, tree: Path) -> None:
    if in_git:
        git(tree, "init")
    before = contents(tree)
    run("--force", tree)
    after = contents(tree)
    shutil.copytree(tree, tree.parent / "copy")
    assert run("--undo", tree.parent / "copy")[0] == 0
    assert (contents(tree), contents(tree.parent / "copy")) == (after, before)


@pytest.mark.parametrize(("key", "value"), [("root", "/"), ("root", "../.."), ("path", "../outside.py"), ("path", "link.py")])
def test_a_journal_that_came_with_the_code_reaches_nothing_outside(key: str, value: str, tree: Path) -> None:
    outside = tree.parent / "outside.py"
    outside.write_text(CLEAN)
    (tree / "link.py").symlink_to(outside)
    run(tree)
    manifest = tree / ".sapper-fix" / "0001" / "manifest.json"
    told = json.loads(manifest.read_text())
    (told if key == "root" else told["files"][0])[key] = value
    manifest.write_text(json.dumps(told))
    for arguments in (("--undo", "--force"), ("--undo",), ()):
        code, _out, err = run(*arguments, tree)
        assert code == 2 and "SP-FIX-008" in err
    assert outside.read_text() == CLEAN


def test_where_there_was_no_run_there_is_nothing_to_undo(tree: Path) -> None:
    code, _out, err = run("--undo", tree)
    assert code == 2 and "SP-FIX-004" in err


def test_runs_are_taken_back_one_by_one(tree: Path) -> None:
    run(tree)
    first = contents(tree)
    (tree / "c.py").write_text(BEFORE)
    run(tree)
    run("--undo", tree)
    assert contents(tree) == {**first, "c.py": BEFORE}
    run("--undo", tree)
    assert contents(tree)["a.py"] == BEFORE


def test_no_file_changes_where_one_cannot_be_written(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(tree)
    replace = os.replace

    def failing(source: str | Path, target: str | Path) -> None:
        if Path(target).name == "b.py" and not failed:
            failed.append(True)
            raise OSError(28, "No space left on device", str(target))
        replace(source, target)

    failed: list[bool] = []
    monkeypatch.setattr("sapper.port.fix.journal.os.replace", failing)
    with pytest.raises(BadFile, match="SP-FIX-007"):
        journal.write(tree, {"a.py": b"1\n", "b.py": b"2\n"}, folder=tree / journal.FOLDER)
    assert contents(tree) == before
    assert [path.name for path in tree.iterdir() if path.name.startswith(".")] == []


KILLED = """
import os, signal, sys
from pathlib import Path
from sapper.port.fix import journal
replace, count = os.replace, [0]
def stopping(source, target):
    replace(source, target)
    count[0] += 1
    if count[0] == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
journal.os.replace = stopping
root = Path(sys.argv[1])
journal.write(root, {"a.py": b"1\\n", "b.py": b"2\\n", "new.py": b"3\\n"}, folder=root / journal.FOLDER)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills a process")
@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_run_that_is_killed_in_the_middle_is_taken_back(tree: Path, step: int) -> None:
    """Step 1 is the journal, 2 and 3 are the first files."""
    before = contents(tree)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tree), str(step)], env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    if step > 1:
        assert contents(tree) != before
        code, _out, err = run(tree)
        assert code == 2 and "SP-FIX-006" in err, "a new run does not build on half of an old one"
        assert run("--undo", tree)[0] == 0
    assert contents(tree) == before


def test_what_was_done_is_told_as_json(tree: Path) -> None:
    _code, out, _err = run("--json", tree)
    told = json.loads(out)
    assert told["style"] == "file" and told["files"] == ["a.py", "b.py", "sapper_device.py"]
    assert told["done"][0] | {"code": ""} == {"path": "a.py", "line": 3, "code": "", "symbol": ".cuda()", "grade": "safe", "cell": None}


def test_a_path_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    code, _out, err = run(tmp_path / "none")
    assert code == 2 and "SP-READ-001" in err


def test_files_keep_their_modes(tree: Path) -> None:
    (tree / "a.py").chmod(0o755)
    run(tree)
    assert (tree / "a.py").stat().st_mode & 0o777 == 0o755
