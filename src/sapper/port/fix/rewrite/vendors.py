"""Code that tells vendors apart on purpose: its branch for CUDA is CUDA's own, and stays.

A chain that names only Apple's ``mps`` beside CUDA is another thing: it tells no datacentre chips apart, so its branch for CUDA
becomes the branch for any accelerator but that one, with the tests that lead there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sapper.port.fix.text import Span, Text

VENDORS = frozenset({
    "npu", "musa", "mlu", "xpu", "hpu", "mps", "gcu", "xla", "tpu", "hip", "rocm", "vulkan", "ipu", "sdaa", "kunlun", "mtia",
    "hccl", "mccl", "cncl", "xccl", "eccl", "ascend", "neuron",
})  # fmt: skip
"""Device types and backends of others, as words of names and strings."""

_WORD = re.compile(r"[A-Za-z][a-z]*|[A-Z]+(?![a-z])")


class Vendors:
    """The places of a file where vendors are told apart."""

    def __init__(self, source: Text, tree: ast.Module) -> None:
        self._chains = list(_chains(source, tree))
        self._twins = _twins(source, tree)

    def told_apart(self, span: Span) -> bool:
        """Whether what stands at ``span`` is CUDA's own beside other vendors'."""
        return bool(self._around(span) - {"mps"}) or any(twin.holds(span) for twin in self._twins)

    def only_mps(self, span: Span) -> bool:
        """Whether the only other one named is Apple's."""
        return self._around(span) == {"mps"}

    def _around(self, span: Span) -> frozenset[str]:
        """Vendors of the innermost chain around a span."""
        around = [(chain, vendors) for chain, vendors in self._chains if chain.holds(span)]
        return min(around, key=lambda item: item[0].end - item[0].start)[1] if around else frozenset()


def words(node: ast.AST) -> frozenset[str]:
    """Vendors that names and short strings of an expression speak of."""
    found: set[str] = set()
    for item in ast.walk(node):
        text = item.id if isinstance(item, ast.Name) else item.attr if isinstance(item, ast.Attribute) else None
        if isinstance(item, ast.Constant) and isinstance(item.value, str) and " " not in item.value:
            text = item.value
        if text:
            found |= {word.lower() for word in _WORD.findall(text)} & VENDORS
    return frozenset(found)


def _chains(source: Text, tree: ast.Module) -> Iterator[tuple[Span, frozenset[str]]]:
    """``if``/``elif`` chains and conditional expressions whose tests (or short values) name another vendor."""
    links: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and id(node) not in links:
            found, link = words(node.test), node
            while len(link.orelse) == 1 and isinstance(link.orelse[0], ast.If):
                link = link.orelse[0]
                links.add(id(link))
                found |= words(link.test)
            if found:
                yield source.span(node), found
        elif isinstance(node, ast.IfExp):
            found = words(node)
            if found:
                yield source.span(node), found


def _twins(source: Text, tree: ast.Module) -> list[Span]:
    """Assignments like ``is_cuda_available = ...`` where the file has an ``is_npu_available`` too."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    names |= {alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}

    def has_twin(name: str) -> bool:
        return "cuda" in name.lower() and any(re.sub("cuda", vendor, name, flags=re.IGNORECASE) in names for vendor in VENDORS - {"mps"})

    found = []
    for node in ast.walk(tree):
        if (isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and has_twin(target.id) for target in node.targets)) or (
            isinstance(node, (ast.FunctionDef, ast.ClassDef)) and has_twin(node.name)
        ):
            found.append(source.span(node))
    return found
