"""Names of test decorators: those that ask for CUDA have neighbours that ask for any accelerator."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.fix.change import Change
from sapper.port.fix.rewrite.context import Context
from sapper.port.fix.text import Piece, Span

LIBRARIES = {
    "transformers": {
        "require_torch_gpu": "require_torch_accelerator",
        "require_torch_multi_gpu": "require_torch_multi_accelerator",
        "require_torch_up_to_2_gpus": "require_torch_up_to_2_accelerators",
    },
    "diffusers": {"require_torch_gpu": "require_torch_accelerator", "require_torch_multi_gpu": "require_torch_multi_accelerator"},
    "accelerate": {
        "require_cuda": "require_non_cpu",
        "require_multi_gpu": "require_multi_device",
        "require_single_gpu": "require_single_device",
    },
}
"""Decorators of the test tools that other projects use, by library."""

_NEIGHBOURS = {
    "require_torch_gpu": ("require_torch_accelerator", "require_accelerator", "require_non_cpu"),
    "require_cuda": ("require_accelerator", "require_torch_accelerator", "require_non_cpu"),
    "require_gpu": ("require_accelerator", "require_torch_accelerator", "require_non_cpu"),
    "require_torch_multi_gpu": ("require_torch_multi_accelerator", "require_multi_accelerator", "require_multi_device"),
    "require_multi_gpu": ("require_multi_accelerator", "require_torch_multi_accelerator", "require_multi_device"),
    "require_single_gpu": ("require_single_accelerator", "require_single_device"),
}
"""What a project may call them, the likeliest first; only a name that the project defines is used."""


def changes(context: Context, node: ast.AST) -> Iterator[Change]:
    """Rename a decorator where it is imported, with all its uses."""
    if not isinstance(node, ast.ImportFrom):
        return
    renamed = {alias.name: new for alias in node.names if not alias.asname and (new := _neighbour(context, node, alias.name))}
    if not renamed or any(alias.name == "*" for alias in node.names):
        return
    yield from _import(context, node, renamed)
    for name in context.nodes:
        if isinstance(name, ast.Name) and name.id in renamed and isinstance(name.ctx, ast.Load):
            span = context.source.span(name)
            yield Change(name.id, span, (Piece(span, renamed[name.id]),))


def _neighbour(context: Context, node: ast.ImportFrom, name: str) -> str | None:
    library = (node.module or "").split(".")[0]
    if node.level == 0 and library in LIBRARIES:
        return LIBRARIES[library].get(name)
    return next((new for new in _NEIGHBOURS.get(name, ()) if new in context.facts.test_tools), None)


def _import(context: Context, node: ast.ImportFrom, renamed: dict[str, str]) -> Iterator[Change]:
    """The import with the new names; one that it has already is not named twice."""
    seen = {alias.name for alias in node.names}
    goes = []
    pieces: list[Piece] = []
    for alias in node.names:
        new = renamed.get(alias.name)
        goes.append(new is not None and new in seen)
        if new is not None and new not in seen:
            pieces.append(Piece(context.source.span(alias), new))
            seen.add(new)
    pieces += _without(context, node, goes)
    yield Change(", ".join(renamed), context.source.span(node), tuple(pieces))


def _without(context: Context, node: ast.ImportFrom, goes: list[bool]) -> Iterator[Piece]:
    """Remove runs of names, each with the comma on one side; one name at least stays."""
    spans = [context.source.span(alias) for alias in node.names]
    index = 0
    while index < len(spans):
        stop = index
        while stop < len(spans) and goes[stop]:
            stop += 1
        if stop > index and stop < len(spans):
            yield Piece(Span(spans[index].start, spans[stop].start), "")
        elif stop > index:
            yield Piece(Span(spans[index - 1].end, spans[-1].end), "")
        index = stop + 1
