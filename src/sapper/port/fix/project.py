"""The tree that is rewritten: its Python files and notebooks, under which names they import each other, and where a helper file can go."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sapper.port import read, walk
from sapper.port.finding import Unread
from sapper.port.fix.helper import Helpers, ProjectHelper, helpers
from sapper.port.fix.imports import bound
from sapper.port.fix.policy import HELPER_FILE, PLAIN, PREFIXED, Accelerator, Constants, OwnFile, Policy, Style, written
from sapper.port.fix.rewrite.context import Facts
from sapper.port.fix.verify import parsed
from sapper.port.source import Source

_WORTH_PARSING = re.compile(rb"cuda|cudnn|nccl|gpu|accelerator|device|GradScaler|cpu_offload", re.IGNORECASE)
"""What stands in every file that is rewritten, or that defines a helper."""


@dataclass
class Project:
    """Python files and notebooks of a tree that may matter, by path relative to ``root``."""

    root: Path
    sources: dict[str, Source] = field(default_factory=dict)
    raw: dict[str, bytes] = field(default_factory=dict)
    trees: dict[str, ast.Module] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """Files that have a word of the field and do not parse."""

    def module(self, path: str) -> str:
        """Name under which a file is imported: from the outermost folder with ``__init__.py``, else from its own."""
        parts = path.removesuffix(".py").split("/")
        if parts[-1] == "__init__":
            parts.pop()
        top = self._top(path)
        return ".".join(parts[top:]) if parts[top:] else parts[-1] if parts else ""

    def _top(self, path: str) -> int:
        """How many of a path's folders lie outside its outermost package."""
        folders = path.split("/")[:-1]
        top = len(folders)
        while top and (self.root / "/".join(folders[:top]) / "__init__.py").exists():
            top -= 1
        return top

    def package(self, path: str) -> str | None:
        """Path of the outermost package that a file lies in; None outside of packages."""
        folders = path.split("/")[:-1]
        top = self._top(path)
        return "/".join(folders[: top + 1]) if top < len(folders) else None


def load(root: Path) -> Project:
    """Read the Python files and notebooks under ``root`` (a folder, or one file) that have a word of the field."""
    tree = walk.walk(root)
    project = Project(root if root.is_dir() else root.parent)
    for file in tree.files:
        if not file.relative.endswith((".py", ".ipynb")):
            continue
        data = read.load(file.path, file.relative, file.language)
        if isinstance(data, Unread) or not _WORTH_PARSING.search(data):
            continue
        source = read.decoded(data, file.relative, file.language)
        if isinstance(source, Unread):
            continue
        syntax = parsed(source.text)
        if syntax is None:
            project.broken.append(file.relative)
            continue
        project.sources[file.relative], project.raw[file.relative], project.trees[file.relative] = source, data, syntax
    return project


def facts(trees: Mapping[str, ast.Module]) -> Facts:
    """What rewriters have to know of other files."""
    movers, tools = set(), set()
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                methods = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
                if "cuda" in methods and "to" not in methods and not _is_module(node):
                    movers.add(node.name)
            elif isinstance(node, ast.FunctionDef) and node.name.startswith("require_") and "test" in path:
                tools.add(node.name)
    return Facts(frozenset(movers), frozenset(tools))


def _is_module(node: ast.ClassDef) -> bool:
    """Whether a class is a module or a tensor by its bases, and so has ``to`` all the same."""
    return any(ast.unparse(base).endswith(("Module", "Tensor", "Dict")) for base in node.bases)


@dataclass
class Choice:
    """How a project is rewritten: one style for all files, ``accelerator`` where a helper file cannot be imported."""

    style: Style
    helpers: Helpers
    package: str | None = None
    """Folder of the package that the helper file goes into; an empty string for the folder of the scripts."""
    importable: frozenset[str] = frozenset()
    """Files that can import the helper file."""

    loose: bool = False
    """Whether the helper file stands beside scripts and not in a package."""

    def helper_path(self) -> str | None:
        """Where the helper file goes."""
        if self.style != "file" or self.package is None:
            return None
        return f"{self.package}/{HELPER_FILE}.py" if self.package else f"{HELPER_FILE}.py"

    def policy(self, path: str, tree: ast.Module) -> Policy:
        """The policy for one file with its syntax."""
        rest = Accelerator(constants=constants(tree))
        if self.style == "helper":
            return ProjectHelper(self.helpers, rest)
        if self.style == "file" and path in self.importable:
            return OwnFile(self._package_name())
        return rest

    def _package_name(self) -> str | None:
        return self.package.rsplit("/", 1)[-1] if self.package and not self.loose else None


def constants(tree: ast.Module) -> Constants:
    """Names for the constants of the style ``accelerator``: with a beginning of ours where the file has one for something else."""
    rest = ast.Module([node for node in tree.body if ast.dump(node) not in written()], [])
    return PLAIN if bound(rest).isdisjoint(PLAIN) else PREFIXED


def own_helper(project: Project, style: Style) -> Choice | None:
    """The project's own helper, if it has one and the style asks for it."""
    if style not in ("auto", "helper"):
        return None
    modules = {path: project.module(path) for path in project.trees if path.endswith(".py")}
    found = helpers({path: project.trees[path] for path in modules}, modules)
    return Choice("helper", found) if found else None


def choose(project: Project, edited: Iterable[str], style: Style) -> Choice:
    """The style for a project without a helper of its own.

    By default one helper file, if all files that change can import it: it has what
    ``torch.accelerator`` lacks (seeds, streams, names, the backend), and does nothing harmful on the CPU. Else constants from
    ``torch.accelerator``: scripts in many folders have no place that all of them can import from.
    """
    if style in ("accelerator", "helper"):
        return Choice("accelerator", Helpers())
    paths = sorted(edited)
    package = _home(project, paths)
    if package is None:
        return Choice("accelerator", Helpers())
    loose = package not in {project.package(path) for path in paths}
    name = package.rsplit("/", 1)[-1]
    able = {path for path in paths if _can_import(project, path, package=package, name=name, loose=loose)}
    if style == "auto" and not able.issuperset(path for path in paths if path.endswith(".py")):
        return Choice("accelerator", Helpers())
    return Choice("file", Helpers(), package, frozenset(able), loose)


def _home(project: Project, paths: list[str]) -> str | None:
    """The package that most of the files lie in; of scripts the one folder that they share."""
    modules = [path for path in paths if path.endswith(".py")]
    packages = Counter(package for path in modules if (package := project.package(path)) is not None)
    if packages:
        return packages.most_common(1)[0][0]
    folders = {path.rpartition("/")[0] for path in paths}
    return folders.pop() if len(folders) == 1 else None


def _can_import(project: Project, path: str, *, package: str, name: str, loose: bool) -> bool:
    """Whether a file lies in the package, or imports it already."""
    if loose:
        return path.rpartition("/")[0] == package
    if project.package(path) == package and path.endswith(".py"):
        return True
    return any(
        (isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == name)
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == name for alias in node.names))
        for node in ast.walk(project.trees[path])
    )
