"""What tests share besides fixtures."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(**extra: str) -> dict[str, str]:
    """The environment of a child process that runs this checkout, without what a command run inside this process has left.

    ``python`` is the interpreter of the tests, as in an environment that is active.
    """
    own = {name: value for name, value in os.environ.items() if name != "TORCH_DEVICE_BACKEND_AUTOLOAD"}
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    programs = os.pathsep.join([str(Path(sys.executable).parent), *filter(None, [os.environ.get("PATH")])])
    return {**own, "PATH": programs, "PYTHONPATH": path, "SAPPER_LANG": "en", **extra}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a source file, parsed once for all the tests that look at it."""
    return ast.parse(path.read_text("utf-8"))


@functools.cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """The nodes of its tree, but for contexts and operators, which tell no test anything."""
    return tuple(node for node in ast.walk(tree_of(path)) if not isinstance(node, (ast.expr_context, ast.operator, ast.cmpop)))


def called(node: ast.Call) -> str:
    """The last name of what is called: ``text`` of ``messages.text(...)``."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
