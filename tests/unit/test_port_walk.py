"""Which files of a tree are read, and as what."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from sapper.errors import BadFile
from sapper.port import ignore
from sapper.port.languages import language_of, language_of_shebang
from sapper.port.tracked import tracked
from sapper.port.walk import walk


def put(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(root: Path, **options: list[str]) -> list[str]:
    return [file.relative for file in walk(root, **options).files]


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("train.py", "python"),
        ("Dockerfile", "docker"),
        ("docker/Dockerfile.gpu", "docker"),
        ("Dockerfile.j2", "docker"),
        ("requirements-dev.txt", "requirements"),
        ("requirements/gpu.txt", "requirements"),
        ("docs/notes.txt", None),
        ("pyproject.toml", "pyproject"),
        ("setup.cfg", "setup"),
        ("environment.yml", "conda"),
        ("conda/meta.yaml", "conda"),
        ("config/train.yaml", "yaml"),
        ("CMakeLists.txt", "cmake"),
        ("cmake/cuda.cmake", "cmake"),
        ("Makefile", "make"),
        ("kernels/scan.cu", "cuda"),
        ("kernels/scan.cu.in", "cuda"),
        ("a.ipynb", "notebook"),
        (".env.production", "config"),
        ("ds_config.json", "config"),
        ("uv.lock", None),
        ("package-lock.json", None),
        ("README.md", None),
        ("job.slurm", "shell"),
    ],
)
def test_the_name_tells_the_language(name: str, language: str | None) -> None:
    assert language_of(name) == language


def test_the_first_line_tells_the_language_of_a_program_without_a_suffix() -> None:
    assert language_of_shebang(b"#!/usr/bin/env -S python3 -u\n") == "python"
    assert language_of_shebang(b"#!/bin/bash\n") == "shell"
    assert language_of_shebang(b"#!/usr/bin/perl\n") is None
    assert language_of_shebang(b"#!\n") is None
    assert language_of_shebang(b"\x7fELF") is None


def test_an_archive_is_taken_whole_and_a_repository_as_git_takes_it(tmp_path: Path) -> None:
    put(tmp_path, {".gitignore": "build/\n*.tmp.py\n!keep.tmp.py\n", "a.py": "", "build/b.py": "", "x.tmp.py": "", "keep.tmp.py": ""})

    assert names(tmp_path) == ["a.py", "build/b.py", "keep.tmp.py", "x.tmp.py"]
    (tmp_path / ".git").mkdir()
    assert names(tmp_path) == ["a.py", "keep.tmp.py"]


def test_patterns_above_the_scanned_folder_count(tmp_path: Path) -> None:
    put(tmp_path, {".gitignore": "/pkg/out/\n", "pkg/a.py": "", "pkg/out/b.py": "", "pkg/pkg/out/c.py": ""})
    (tmp_path / ".git").mkdir()

    assert names(tmp_path / "pkg") == ["a.py", "pkg/out/c.py"]


def index_of(paths: list[str], *, version: int = 2) -> bytes:
    """A git index with these entries."""
    data, previous = struct.pack(">4sII", b"DIRC", version, len(paths)), b""
    for name in paths:
        path = name.encode()
        entry = bytes(60) + struct.pack(">H", len(path))
        if version == 4:
            same = [one == other for one, other in zip(previous, path, strict=False)]
            shared = same.index(False) if False in same else len(same)
            entry += bytes([len(previous) - shared]) + path[shared:] + b"\0"
        else:
            entry += path
            entry += bytes(8 - len(entry) % 8)
        data, previous = data + entry, path
    return data


@pytest.mark.parametrize("version", [2, 4])
def test_a_tracked_file_is_taken_even_where_a_pattern_names_it(tmp_path: Path, version: int) -> None:
    put(tmp_path, {".gitignore": "build/\n", "build/kept.py": "", "build/made.py": "", "a.py": ""})
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "index").write_bytes(index_of(["a.py", "build/kept.py"], version=version))

    assert names(tmp_path) == ["a.py", "build/kept.py"]


@pytest.mark.parametrize("data", [b"", b"DIRC", b"DIRC\0\0\0\2\xff\xff\xff\xff", b"nonsense" * 20])
def test_an_index_that_cannot_be_read_tells_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "index").write_bytes(data)

    assert tracked(tmp_path / "index") == frozenset()
    assert tracked(tmp_path / "absent") == frozenset()


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.pyc", "a/b.pyc", True),
        ("/a.py", "b/a.py", False),
        ("a/**/b.py", "a/x/y/b.py", True),
        ("a/**/b.py", "a/b.py", True),
        ("**/tmp", "x/tmp", True),
        ("out/**", "out/x.py", True),
        ("[ab].py", "a.py", True),
        ("[!ab].py", "a.py", False),
        ("[z-a].py", "a.py", False),
        ("\\#x.py", "#x.py", True),
        ("# comment", "# comment", False),
        ("a?.py", "a/.py", False),
    ],
)
def test_patterns_match_as_those_of_git(pattern: str, path: str, expected: bool) -> None:
    assert ignore.ignored(ignore.parse([pattern]), path, folder=False) is expected


def test_what_the_user_excludes_is_left_out(tmp_path: Path) -> None:
    put(tmp_path, {"a.py": "", "third_party/b.py": "", "tests/c.py": ""})

    assert names(tmp_path, exclude=["third_party/", "tests/*.py"]) == ["a.py"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    put(tmp_path, {"tree/a.py": "", "outside/secret.py": ""})
    (tmp_path / "tree" / "loop").symlink_to(tmp_path / "tree")
    (tmp_path / "tree" / "out.py").symlink_to(tmp_path / "outside" / "secret.py")
    (tmp_path / "tree" / "nowhere.py").symlink_to(tmp_path / "absent")
    (tmp_path / "link").symlink_to(tmp_path / "tree")

    assert names(tmp_path / "tree") == ["a.py"]
    assert names(tmp_path / "link") == ["a.py"]


def test_environments_and_data_are_no_source(tmp_path: Path) -> None:
    put(tmp_path, {"env/pyvenv.cfg": "", "env/lib/a.py": "", "node_modules/b.py": "", "data.json": " " * 300_000, "b.json": "{}"})

    assert names(tmp_path) == ["b.json"]


def test_pipes_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.py")

    assert names(tmp_path) == []


def test_names_that_are_not_utf_8_are_shown_and_read(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.py")).write_text("")

    assert names(tmp_path) == ["caf\\xe9.py"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    put(tmp_path, {"shut/a.py": "", "b.py": ""})
    (tmp_path / "shut").chmod(0)
    try:
        tree = walk(tmp_path)
    finally:
        (tmp_path / "shut").chmod(stat.S_IRWXU)

    assert [(one.path, one.code) for one in tree.unread] == [("shut", "SP-READ-002")]


def test_a_path_that_is_not_there_is_an_error_with_a_next_step(tmp_path: Path) -> None:
    for where in (tmp_path / "absent", "a\0b"):
        with pytest.raises(BadFile) as caught:
            walk(where)
        assert caught.value.code == "SP-READ-001"


def test_one_file_can_be_scanned(tmp_path: Path) -> None:
    put(tmp_path, {"train.py": "", "run": "#!/bin/sh\n", "notes.txt": ""})

    assert [(file.relative, file.language) for file in walk(tmp_path / "train.py").files] == [("train.py", "python")]
    assert [(file.relative, file.language) for file in walk(tmp_path / "run").files] == [("run", "shell")]
    assert walk(tmp_path / "notes.txt").files == ()
