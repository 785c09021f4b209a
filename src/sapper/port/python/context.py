"""Where a line of Python lives: in a test, in what builds the project, or in its code."""

from __future__ import annotations

import ast
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
    if _TEST_PATH.search(module.source.path):
        return "test"
    if _BUILD_PATH.search(module.source.path):
        return "build"
    for span, node in module.classes:
        if span[0] <= line <= span[1] and any(_names_test_case(base) for base in node.bases):
            return "test"
    function = module.function_at(line)
    return "test" if function is not None and function.name.startswith("test_") else "code"


def _names_test_case(base: ast.expr) -> bool:
    last = base.attr if isinstance(base, ast.Attribute) else base.id if isinstance(base, ast.Name) else ""
    return last.endswith("TestCase")
