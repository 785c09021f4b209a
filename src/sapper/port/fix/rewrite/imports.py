"""Imports from ``torch.cuda`` whose uses have been rewritten: to the modern module, or away."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from sapper.port.fix.change import Change
from sapper.port.fix.rewrite.context import Context
from sapper.port.fix.text import Piece, Span

_AMP = ("torch.cuda.amp", "torch.cuda.amp.autocast_mode", "torch.cuda.amp.grad_scaler")
_AMP_NAMES = {"autocast", "GradScaler", "custom_fwd", "custom_bwd"}


def changes(context: Context, made: Iterable[Change]) -> Iterator[Change]:
    """Rewrite the imports, now that ``made`` rewrote the uses.

    A name that is still used somewhere, or that others may import from here (``__init__.py`` is not asked), stays.
    """
    spans = [change.anchor for change in made if change.pieces]
    for node in context.nodes:
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from _from(context, node, spans)
        elif isinstance(node, ast.Import):
            yield from _import(context, node, spans)


def names(context: Context, change: Change) -> set[str]:
    """Names that the import of a change binds."""
    for node in context.nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)) and context.source.span(node) == change.anchor:
            return {alias.asname or alias.name for alias in node.names}
    return set()


def _from(context: Context, node: ast.ImportFrom, spans: list[Span]) -> Iterator[Change]:
    module = node.module or ""
    names = {alias.name for alias in node.names}
    if module in _AMP and names <= _AMP_NAMES and all(_rewritten(context, alias, spans) for alias in node.names):
        yield from _renamed(context, node, module, "torch.amp")
    elif module == "torch.cuda" and names == {"amp"} and all(_rewritten(context, alias, spans) for alias in node.names):
        yield from _renamed(context, node, module, "torch")
    elif module == "torch.cuda" and "*" not in names:
        kept = [alias for alias in node.names if not _used(context, alias) or not _rewritten(context, alias, spans)]
        yield from _reduced(context, node, kept)


def _import(context: Context, node: ast.Import, spans: list[Span]) -> Iterator[Change]:
    for alias in node.names:
        if len(node.names) != 1 or not (alias.name == "torch.cuda" or alias.name.startswith("torch.cuda.amp")):
            continue
        if alias.asname is None:
            place = context.source.span(alias)
            yield Change(alias.name, context.source.span(node), (Piece(place, "torch"),))
        elif alias.name == "torch.cuda.amp" and _rewritten(context, alias, spans):
            place = context.source.span(alias)
            yield Change(alias.name, context.source.span(node), (Piece(place, f"torch.amp as {alias.asname}"),))
        elif alias.name == "torch.cuda" and _used(context, alias) and _rewritten(context, alias, spans):
            yield from _reduced(context, node, [])


def _uses(context: Context, alias: ast.alias) -> list[ast.Name]:
    name = alias.asname or alias.name
    return [node for node in context.nodes if isinstance(node, ast.Name) and node.id == name]


def _used(context: Context, alias: ast.alias) -> bool:
    return bool(_uses(context, alias))


def _rewritten(context: Context, alias: ast.alias, spans: list[Span]) -> bool:
    """Whether every use of an imported name lies in a rewrite."""
    return all(any(span.holds(context.source.span(use)) for span in spans) for use in _uses(context, alias))


def _renamed(context: Context, node: ast.ImportFrom, old: str, new: str) -> Iterator[Change]:
    span = context.source.span(node)
    at = context.source.text.find(old, span.start, span.end)
    if at >= 0:
        yield Change(old, span, (Piece(Span(at, at + len(old)), new),))


def _reduced(context: Context, node: ast.ImportFrom | ast.Import, kept: list[ast.alias]) -> Iterator[Change]:
    """Only ``kept`` of the names, or no statement at all."""
    if len(kept) == len(node.names):
        return
    span = context.source.span(node)
    if kept:
        first, last = context.source.span(node.names[0]), context.source.span(node.names[-1])
        if "#" not in context.source.text[first.start : last.end]:
            yield Change("torch.cuda", span, (Piece(Span(first.start, last.end), ", ".join(map(context.source.of, kept))),))
        return
    line = context.source.line(node.lineno)
    alone = node.lineno == node.end_lineno and line.strip() == context.source.of(node)
    if alone and _has_siblings(context, node):
        start = context.source.starts[node.lineno - 1]
        yield Change("torch.cuda", span, (Piece(Span(start, start + len(line)), ""),), removes=True)


def _has_siblings(context: Context, node: ast.stmt) -> bool:
    """Whether the block of a statement holds more than imports, and so is not empty without it."""
    parent = context.parents[node]
    blocks = [value for _name, value in ast.iter_fields(parent) if isinstance(value, list) and node in value]
    return any(not isinstance(item, (ast.Import, ast.ImportFrom)) for block in blocks for item in block)
