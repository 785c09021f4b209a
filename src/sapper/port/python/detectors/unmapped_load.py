"""Checkpoints that go back to the device that they were saved from."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import lookup, strings
from sapper.port.python.module import Module
from sapper.port.rule import Rule


def unmapped_load(module: Module, rule: Rule) -> Iterator[Finding]:
    """``torch.load`` without ``map_location``."""
    for node in lookup.candidates(module, ast.Call):
        if strings.called(node) == "load" and module.name_of(node.func) == "torch.load" and not _mapped(node):
            yield module.finding(rule, node.func, "torch.load")


def _mapped(node: ast.Call) -> bool:
    return len(node.args) > 1 or any(keyword.arg in (None, "map_location") for keyword in node.keywords)
