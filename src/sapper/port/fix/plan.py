"""What ``fix`` would do to a tree: new contents by file, what is only shown, and what is left with the reason."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from sapper.port import notebook
from sapper.port import scan as scanner
from sapper.port.finding import Finding
from sapper.port.fix.change import Grade
from sapper.port.fix.file import Rewritten, Why, rewritten, rewritten_notebook
from sapper.port.fix.found import Found
from sapper.port.fix.helper import Helpers
from sapper.port.fix.policy import HELPER_FILE, Style
from sapper.port.fix.project import Choice, Project, choose, facts, load, own_helper
from sapper.port.fix.rewrite.context import Facts

_ANY = re.compile(r"cuda|cudnn|nccl|gpu|GradScaler|cpu_offload", re.IGNORECASE)
_NOT_REWRITTEN = frozenset({"setup.py", f"{HELPER_FILE}.py"})
"""In the first ``is_available`` asks whether CUDA code can be compiled; the other is ours."""


@dataclass(frozen=True)
class Line:
    """A change at its line of the original, as it is told to the user."""

    path: str
    line: int
    """Of a notebook: in its cell."""
    code: str | None
    """Of the rule that found it; None where the scan did not."""
    symbol: str
    grade: Grade
    cell: int | None = None
    """Of a notebook: the cell, from 1."""


@dataclass
class Plan:
    """The work of one run."""

    project: Project
    choice: Choice
    contents: dict[str, bytes] = field(default_factory=dict)
    """New bytes by path, the helper file among them; only of files that change."""
    done: list[Line] = field(default_factory=list)
    shown: list[Line] = field(default_factory=list)
    """What the scan found and is not done: of a grade that was not asked for, or without a rewrite."""
    unsafe: set[tuple[str, int]] = field(default_factory=set)
    """Lines that have a rewrite of a grade that was not asked for; of a notebook in its text, as in ``settled``."""
    settled: set[tuple[str, int]] = field(default_factory=set)
    """Lines that are rewritten."""
    left: dict[str, Why] = field(default_factory=dict)
    """Files that stay as they are although something is to be done."""
    torch: tuple[int, int] | None = None
    """Oldest PyTorch that has all that was written; None where any will do."""


def plan(
    root: Path,
    *,
    style: Style = "auto",
    grade: Grade = "safe",
    select: Iterable[str] = (),
    only: Collection[str] | None = None,
    findings: Iterable[Finding] | None = None,
) -> Plan:
    """Rewrite a tree in memory.

    Args:
        root: A folder, or one file.
        style: What takes CUDA's place.
        grade: The riskiest rewrites to make.
        select: Beginnings of the codes of rules to apply; all where empty.
        only: Paths, relative to ``root``, of the files to rewrite; None means all.
        findings: Of a scan of ``root``; None scans it.
    """
    project = load(root)
    known = facts(project.trees)
    scanned = scanner.scan(root).findings if findings is None else findings
    found = Found([notebook.in_text(one, project.sources) for one in scanned], tuple(select))
    worth = [path for path, source in project.sources.items() if _ANY.search(source.text)]
    edited = [path for path in worth if path.rpartition("/")[2] not in _NOT_REWRITTEN and (only is None or path in only)]
    run = functools.partial(_file, project, known=known, grade=grade, found=found)
    own = own_helper(project, style)
    trial = {} if own else {path: run(path, choice=Choice("accelerator", Helpers())) for path in edited}
    choice = own or choose(project, [path for path, one in trial.items() if one.done], style)
    result = Plan(project, choice, left={path: "syntax" for path in project.broken if only is None or path in only})
    for path in edited:
        if path not in choice.helpers.files:
            _record(result, path, trial[path] if choice.style == "accelerator" else run(path, choice=choice), found)
    _add_helper_file(result)
    _show(result, found)
    return result


def _file(project: Project, path: str, *, choice: Choice, known: Facts, grade: Grade, found: Found) -> Rewritten:
    rewrite = functools.partial(
        rewritten, policy=choice.policy(path, project.trees[path]), facts=known, grade=grade, wanted=functools.partial(found.wanted, path),
        hard_lines=found.hard(path), rewritable_lines=found.rewritable(path),
    )  # fmt: skip
    source, raw = project.sources[path], project.raw[path]
    return rewritten_notebook(source, raw, rewrite=rewrite) if source.language == "notebook" else rewrite(source, raw)


def _record(result: Plan, path: str, one: Rewritten, found: Found) -> None:
    if one.left is not None:
        result.left[path] = one.left
    elif one.done:
        result.contents[path] = one.raw
    source = result.project.sources[path]
    for line, change in one.done:
        place = notebook.place(source, line)
        result.done.append(Line(path, place.line, found.code(path, line, change), change.symbol, change.grade, place.cell))
    result.settled |= {(path, line) for line, _change in one.done}
    result.unsafe |= {(path, line) for line, change in one.shown if change.pieces and change.grade == "unsafe"}
    needed = [change.torch for _line, change in one.done if change.torch]
    result.torch = max([*needed, *([result.torch] if result.torch else [])], default=None)


def _show(result: Plan, found: Found) -> None:
    """What the scan found and nobody rewrote."""
    for finding in found.open(result.settled):
        path, line = finding.place.path, finding.place.line
        grade: Grade = "unsafe" if (path, line) in result.unsafe else "display"
        place = notebook.place(result.project.sources.get(path), line)
        result.shown.append(Line(path, place.line, finding.code, finding.symbol, grade, place.cell))


def _add_helper_file(result: Plan) -> None:
    path = result.choice.helper_path()
    uses = any(HELPER_FILE.encode() in raw for raw in result.contents.values())
    if path is not None and uses and not (result.project.root / path).exists():
        result.contents[path] = helper_source().encode()


def helper_source() -> str:
    """The helper file that style ``file`` writes."""
    return resources.files("sapper.port.fix").joinpath(f"data/{HELPER_FILE}.py.txt").read_text("utf-8")


def by_path(lines: Iterable[Line]) -> Mapping[str, list[Line]]:
    """Lines by file, in order."""
    found: dict[str, list[Line]] = {}
    for line in sorted(lines, key=lambda line: (line.path, line.cell or 0, line.line, line.symbol)):
        found.setdefault(line.path, []).append(line)
    return found
