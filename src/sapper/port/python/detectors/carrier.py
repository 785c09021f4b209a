"""Lines that depend on what CUDA answered elsewhere."""

from __future__ import annotations

from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import carried
from sapper.port.python.module import Module
from sapper.port.rule import Rule


def carrier(module: Module, rule: Rule) -> Iterator[Finding]:
    """The uses that :mod:`~sapper.port.python.carried` sorts under the rule's name."""
    for use in carried.uses(module):
        if use.rule == rule.name:
            yield module.finding(rule, use.node, use.symbol, because=use.origin)
