"""Where a line of Python lives: in a test, in what builds the project, or in its code."""

from __future__ import annotations

import ast
import functools
import re
from typing import TYPE_CHECKING

from sapper.port.finding import Context

if TYPE_CHECKING:
    from sapper.port.python.module import Module

_TEST_PATH = re.compile(
    r"(?:^|/)(?:tests?|testing|unit_tests?|integration_tests?)/|(?:^|/)(?:test_[^/]*|[^/]*_tests?|conftest)\.(?:py|ipynb)$"
)
_BUILD_PATH = re.compile(r"(?:^|/)(?:setup|setup_[^/]*|build|build_[^/]*|collect_env)\.py$|(?:^|/)op_builder/")


def of(module: Module, line: int) -> Context:
    """The context of ``line``."""
    whole = _of_file(module.source.path)
    if whole is not None:
        return whole
    for span, node in module.classes:
        if span[0] <= line <= span[1] and any(_names_test_case(base) for base in node.bases):
            return "test"
    function = module.function_at(line)
    return "test" if function is not None and function.name.startswith("test_") else "code"


@functools.lru_cache(maxsize=64)
def _of_file(path: str) -> Context | None:
    """The context of all lines of a file; None where it depends on the line."""
    return "test" if _TEST_PATH.search(path) else "build" if _BUILD_PATH.search(path) else None


def _names_test_case(base: ast.expr) -> bool:
    last = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
    return last.endswith("TestCase")
