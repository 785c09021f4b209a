"""Which lines of interest a run reaches, and what a comparison with "cuda" compares.

Lines of findings are told once each. A comparison such as ``device.type == "cuda"`` fails nowhere: the other branch runs and
nothing is said; so where a line compares something with CUDA's name, the something is looked at when the line begins, if
looking cannot do harm (names and a few attributes of devices). Uses ``sys.monitoring`` where Python has it (3.12), else a trace
function, which gives way to a debugger's or a coverage tool's.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

from sapper.port.dryrun.inside import frames, journal
from sapper.port.dryrun.session import Note, current

_CUDA = re.compile(r"cuda(?::\d+)?|nccl")
_HARMLESS = frozenset({"device", "type", "device_type", "name", "backend", "dev", "accelerator"})
"""Attributes that are looked up; others may be properties that do something."""


@dataclass
class Comparison:
    """``operand`` compared with a name of CUDA's."""

    operand: ast.expr
    literal: str


@dataclass
class Interest:
    """Lines of a file that are looked at."""

    findings: frozenset[int] = frozenset()
    comparisons: dict[int, list[Comparison]] = field(default_factory=dict)
    reached: set[int] = field(default_factory=set)

    def lines(self) -> set[int]:
        """All of them."""
        return {*self.findings, *self.comparisons}


@functools.cache
def interest(filename: str) -> Interest | None:
    """What is looked at in a file; None where nothing is."""
    owner, _ = frames.owner_of(filename)
    if owner != "user" or filename.startswith("<"):
        return None
    found = Interest(findings=frozenset(current().watched.get(frames.shown(filename), ())), comparisons=_comparisons(filename))
    return found if found.lines() else None


def _comparisons(filename: str) -> dict[int, list[Comparison]]:
    try:
        with open(filename, "rb") as file:
            raw = file.read()
        if b"cuda" not in raw and b"nccl" not in raw:
            return {}
        tree = ast.parse(raw)
    except (OSError, SyntaxError, ValueError):
        return {}
    found: dict[int, list[Comparison]] = {}
    for node in ast.walk(tree):
        for comparison in _of(node):
            found.setdefault(node.lineno, []).append(comparison)  # type: ignore[attr-defined]
    return found


def _of(node: ast.AST) -> list[Comparison]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("startswith", "endswith"):
        return [Comparison(node.func.value, one) for one in _named(node.args)]
    if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], (ast.Eq, ast.NotEq, ast.In, ast.NotIn)):
        return []
    sides = [node.left, node.comparators[0]]
    pairs = [(sides[0], _named([sides[1]])), (sides[1], _named([sides[0]]))]
    return [Comparison(operand, one) for operand, named in pairs for one in named]


def _named(nodes: list[ast.expr]) -> list[str]:
    """CUDA's names among constants, or among the members of a tuple, list or set."""
    inner = [child for node in nodes for child in (node.elts if isinstance(node, (ast.Tuple, ast.List, ast.Set)) else [node])]
    return [node.value for node in inner if isinstance(node, ast.Constant) and isinstance(node.value, str) and _CUDA.fullmatch(node.value)]


def value_of(node: ast.expr, frame: FrameType) -> str | None:
    """What an operand is, as text, if it can be looked at without calling anything of the program's."""
    if isinstance(node, ast.Name):
        found = frame.f_locals.get(node.id, frame.f_globals.get(node.id))
        return _text(found)
    if isinstance(node, ast.Attribute) and node.attr in _HARMLESS:
        base = _object(node.value, frame)
        return None if base is None else _text(_attribute(base, node.attr))
    return None


def _object(node: ast.expr, frame: FrameType) -> Any:
    if isinstance(node, ast.Name):
        return frame.f_locals.get(node.id, frame.f_globals.get(node.id))
    if isinstance(node, ast.Attribute):
        base = _object(node.value, frame)
        known = base is not None and (node.attr in _HARMLESS or node.attr in getattr(base, "__dict__", {}))
        return _attribute(base, node.attr) if known else None
    return None


def _attribute(base: Any, name: str) -> Any:
    """An attribute as the program sees it: its device under the vendor's name."""
    found = getattr(base, name, None)
    if not _is_device(found):
        return found
    from sapper.port.dryrun.inside import presented

    return presented.outward(found)


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return str(value) if _is_device(value) else None


def _is_device(value: Any) -> bool:
    return type(value).__module__ == "torch" and type(value).__name__ == "device"


def reach(filename: str, line: int, frame: FrameType) -> None:
    """A line of interest begins."""
    found = interest(filename)
    if found is None:
        return
    if line in found.findings and line not in found.reached:
        found.reached.add(line)
        journal.JOURNAL.write("reached", {"path": frames.shown(filename), "line": line})
    for comparison in found.comparisons.get(line, ()):
        value = value_of(comparison.operand, frame)
        if value is not None and len(value) < 40:
            _compare(value, comparison.literal, filename, line, frame)


def _compare(value: str, literal: str, filename: str, line: int, frame: FrameType) -> None:
    stack = current().stack
    where = frames.Where(frames.shown(filename), line, line, frame.f_code.co_qualname)
    if journal.exempt(where) or value in ("cpu", "gloo", "mps", "meta"):
        return
    if value.partition(":")[0] == stack.device or value == stack.collective:
        if not stack.as_cuda:
            says = Note("compared", {"value": value, "literal": literal})
            journal.JOURNAL.touch("comparison", f'"{literal}"', outcome="silent", where=where, says=says)
    elif _CUDA.fullmatch(value):
        journal.JOURNAL.touch("comparison", f'"{literal}"', outcome="works" if stack.as_cuda else "carries", where=where)


def watch() -> None:
    """Look at lines from now on, in all threads."""
    if hasattr(sys, "monitoring"):
        _monitor()
    elif sys.gettrace() is None:
        threading.settrace(_trace)
        sys.settrace(_trace)
        journal.JOURNAL.at_end(_stop)
    else:
        journal.JOURNAL.write("unlooked", {"why": "another trace function was there first"})


def _stop() -> None:
    """The end of the process, which takes away what the trace function stands on."""
    if sys.gettrace() is _trace:
        sys.settrace(None)
    else:
        journal.JOURNAL.write("unlooked", {"why": "another trace function took over"})


@functools.cache
def _wanted(code: CodeType) -> frozenset[int]:
    """Lines of interest of a code object."""
    found = interest(code.co_filename)
    return frozenset() if found is None else frozenset({line for _, _, line in code.co_lines() if line} & found.lines())


def _trace(frame: FrameType, event: str, _argument: Any) -> Callable[..., Any] | None:
    if event != "call" or not _wanted(frame.f_code):
        return None
    return _trace_lines


def _trace_lines(frame: FrameType, event: str, _argument: Any) -> Callable[..., Any]:
    if event == "line" and frame.f_lineno in _wanted(frame.f_code):
        reach(frame.f_code.co_filename, frame.f_lineno, frame)
    return _trace_lines


def _monitor() -> None:
    monitoring: Any = vars(sys)["monitoring"]
    tool = next((one for one in (4, 3, monitoring.OPTIMIZER_ID) if monitoring.get_tool(one) is None), None)
    if tool is None:
        journal.JOURNAL.write("unlooked", {"why": "no free place for a monitoring tool"})
        return
    monitoring.use_tool_id(tool, "sapper port try")

    def on_line(code: CodeType, line: int) -> Any:
        if line not in _wanted(code):
            return monitoring.DISABLE
        reach(code.co_filename, line, sys._getframe(1))
        found = interest(code.co_filename)
        return None if found is not None and line in found.comparisons else monitoring.DISABLE

    monitoring.register_callback(tool, monitoring.events.LINE, on_line)
    monitoring.set_events(tool, monitoring.events.LINE)
