"""Literals that name CUDA, by where they flow."""

from __future__ import annotations

from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import strings
from sapper.port.python.module import Module
from sapper.port.rule import Rule


def literal(module: Module, rule: Rule) -> Iterator[Finding]:
    """The literals that :mod:`~sapper.port.python.strings` sorts under the rule's name."""
    for found in strings.literals_by_rule(module).get(rule.name, ()):
        yield module.finding(rule, found.node, f'"{found.text}"')
