"""Texts of the program, for its readers, that name CUDA or one of its libraries."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import lookup
from sapper.port.python.module import Module
from sapper.port.rule import Rule

_NAMES = re.compile(r"(?<![A-Za-z0-9])(?:cuda|nccl|cudnn|cublas|nvtx|nvml)(?![A-Za-z])", re.I)
_SHOWN = 57


def wording(module: Module, rule: Rule) -> Iterator[Finding]:
    """Sentences in quotes, the first on each line; docstrings are none of them."""
    seen: set[int] = set()
    for node in lookup.candidates(module, ast.Constant):
        text = node.value
        if not isinstance(text, str) or node.lineno in seen or not _NAMES.search(text) or not _is_sentence(text):
            continue
        if not isinstance(module.parent(node), ast.Expr):
            seen.add(node.lineno)
            shown = " ".join(text.split())
            yield module.finding(rule, node, f'"{shown if len(shown) <= _SHOWN + 3 else shown[:_SHOWN] + "..."}"')


def _is_sentence(text: str) -> bool:
    return " " in text.strip() and "://" not in text
