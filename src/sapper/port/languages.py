"""Which language a file is in, by its name and, where the name says nothing, by its first line."""

from __future__ import annotations

import re

from sapper.port.source import Language

_BY_SUFFIX: dict[str, Language] = {
    **dict.fromkeys((".py", ".pyi", ".pyw"), "python"),
    ".ipynb": "notebook",
    **dict.fromkeys((".cu", ".cuh"), "cuda"),
    **dict.fromkeys((".c", ".cc", ".cpp", ".cxx", ".c++", ".h", ".hh", ".hpp", ".hxx", ".inl", ".ipp"), "cpp"),
    **dict.fromkeys((".dockerfile", ".containerfile"), "docker"),
    **dict.fromkeys((".sh", ".bash", ".zsh", ".ksh", ".slurm", ".sbatch", ".pbs", ".lsf", ".sub", ".envrc"), "shell"),
    **dict.fromkeys((".yaml", ".yml"), "yaml"),
    ".cmake": "cmake",
    **dict.fromkeys((".mk", ".mak"), "make"),
    **dict.fromkeys((".env", ".ini", ".cfg", ".conf", ".toml", ".json", ".jsonc", ".json5", ".properties"), "config"),
}
_BY_NAME: dict[str, Language] = {
    "dockerfile": "docker",
    "containerfile": "docker",
    "pipfile": "pyproject",
    "pyproject.toml": "pyproject",
    "setup.cfg": "setup",
    "cmakelists.txt": "cmake",
    "makefile": "make",
    "gnumakefile": "make",
    "sconstruct": "python",
    "sconscript": "python",
    "wscript": "python",
    "meta.yaml": "conda",
}
_BY_SHAPE: tuple[tuple[re.Pattern[str], Language], ...] = (
    (re.compile(r"(?:dockerfile|containerfile)[.\-_].+|.+[.\-_](?:dockerfile|containerfile)"), "docker"),
    (re.compile(r".*(?:requirements|constraints).*\.(?:txt|in)|(?:.*/)?requirements/.*\.(?:txt|in)"), "requirements"),
    (re.compile(r"(?:conda|.*[-_.])?env(?:ironment)?s?(?:[-_.].*)?\.ya?ml|conda.*\.ya?ml|.*[-_.]conda\.ya?ml"), "conda"),
    (re.compile(r"makefile[.\-_].+"), "make"),
    (re.compile(r"\.env(?:[.\-_].+)?"), "config"),
)
_GENERATED = re.compile(r"(?:package-lock|composer\.lock|conda-lock|poetry\.lock|uv\.lock|pdm\.lock|pipfile\.lock).*")
"""Lists that a resolver wrote; what asked for their entries is scanned instead."""

_TEMPLATE = (".j2", ".jinja", ".jinja2", ".tmpl", ".template", ".tpl", ".in", ".example", ".sample", ".dist")


def language_of(relative: str) -> Language | None:
    """The language that the name of a file says, None where it says none. ``relative`` has forward slashes.

    A suffix for templates (``Dockerfile.j2``, ``config.yaml.in``) is looked through.
    """
    path = relative.lower()
    name = path.rpartition("/")[2]
    if _GENERATED.fullmatch(name):
        return None
    found = _named(path, name)
    while found is None and name.endswith(_TEMPLATE):
        stem = name.rpartition(".")[0]
        path, name = path[: len(path) - len(name) + len(stem)], stem
        found = _named(path, name)
    return found


def _named(path: str, name: str) -> Language | None:
    if name in _BY_NAME:
        return _BY_NAME[name]
    parent = path.rpartition("/")[0].rpartition("/")[2]
    for shape, language in _BY_SHAPE:
        if shape.fullmatch(name) or (language == "requirements" and shape.fullmatch(f"{parent}/{name}")):
            return language
    dot = name.rfind(".")
    return _BY_SUFFIX.get(name[dot:]) if dot >= 0 else None


def has_no_suffix(relative: str) -> bool:
    """Is the name without a dot, so that only the first line can tell the language?"""
    return "." not in relative.rpartition("/")[2]


def language_of_shebang(head: bytes) -> Language | None:
    """The language that the first line (``#!/usr/bin/env python3``) names, None where it names none."""
    first = head.split(b"\n", 1)[0]
    if not first.startswith(b"#!"):
        return None
    program = first[2:].split()
    names = [word.rpartition(b"/")[2] for word in program]
    if names and names[0] == b"env":
        names = [name for name in names[1:] if not name.startswith(b"-")]
    if not names:
        return None
    if re.fullmatch(rb"python[\d.]*", names[0]):
        return "python"
    return "shell" if names[0] in (b"sh", b"bash", b"zsh", b"ksh", b"dash", b"ash") else None
