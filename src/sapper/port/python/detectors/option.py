"""Options that ask for what only CUDA has, such as ``attn_implementation="flash_attention_2"``."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import lookup, memo, strings
from sapper.port.python.module import Module
from sapper.port.rule import Rule


def option(module: Module, rule: Rule) -> Iterator[Finding]:
    """Keyword arguments, entries of dictionaries, attributes and defaults that are one of the rule's ``name=value``.

    The rule's ``strings`` are regular expressions for the whole of ``name=value``, the value as Python prints it without
    its quotes, or for ``callee(name=value`` where the option means that only there.
    """
    pattern = _pattern(rule.match.strings)
    for node, said, callee in _said(module):
        if pattern.fullmatch(said) or (callee and pattern.fullmatch(f"{callee}({said}")):
            yield module.finding(rule, node, said)


@memo.per_module
def _said(module: Module) -> tuple[tuple[ast.expr | ast.keyword, str, str], ...]:
    """All options of the candidates that have a literal value: where, as ``name=value``, and in a call of what."""
    found: list[tuple[ast.expr | ast.keyword, str, str]] = []
    for node in lookup.candidates(module, ast.keyword, ast.Dict, ast.Assign, ast.AnnAssign, ast.arguments):
        for name, value in _pairs(node):
            if isinstance(value, ast.Constant):
                keyword = isinstance(node, ast.keyword)
                found.append(
                    (node if isinstance(node, ast.keyword) else value, f"{name}={value.value!s}", _callee(module, node) if keyword else "")
                )
    return tuple(found)


def _callee(module: Module, node: ast.AST) -> str:
    call = module.parent(node)
    return strings.called(call) if isinstance(call, ast.Call) else ""


def _pairs(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(node, ast.keyword):
        if node.arg:
            yield node.arg, node.value
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                yield key.value, value
    elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            if isinstance(target, ast.Attribute):
                yield target.attr, node.value
            elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                yield str(target.slice.value), node.value
            elif isinstance(target, ast.Name):
                yield target.id, node.value
    elif isinstance(node, ast.arguments):
        positional = [*node.posonlyargs, *node.args]
        yield from zip((item.arg for item in positional[len(positional) - len(node.defaults) :]), node.defaults, strict=True)
        yield from ((item.arg, value) for item, value in zip(node.kwonlyargs, node.kw_defaults, strict=True) if value is not None)


@functools.cache
def _pattern(entries: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{entry})" for entry in entries))
