"""Names of the project's own that say CUDA, in code and in quotes (options of the command line)."""

from __future__ import annotations

from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python.detectors.identifier import identifier
from sapper.port.python.detectors.literal import literal
from sapper.port.python.module import Module
from sapper.port.rule import Rule


def named(module: Module, rule: Rule) -> Iterator[Finding]:
    """Identifiers and literals that are identifiers."""
    yield from identifier(module, rule)
    yield from literal(module, rule)
