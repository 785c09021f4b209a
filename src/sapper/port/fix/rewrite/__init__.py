"""Rewriters, one family a file: each looks at a syntax node and says which changes it wants."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace

from sapper.port.fix.change import Change
from sapper.port.fix.policy import written
from sapper.port.fix.rewrite import amp, decorators, defaults, distributed, flags, imports, members, placement, strings
from sapper.port.fix.rewrite.context import Context
from sapper.port.fix.rewrite.guards import held
from sapper.port.fix.rewrite.vendors import Vendors
from sapper.port.fix.rewrite.versions import older

FAMILIES: tuple[Callable[[Context, ast.AST], Iterator[Change]], ...] = (
    members.changes,
    amp.changes,
    strings.changes,
    placement.changes,
    distributed.changes,
    decorators.changes,
    defaults.changes,
    flags.changes,
)


def changes(context: Context) -> list[Change]:
    """All changes of a file, those that are only shown among them; none overlaps another's pieces."""
    found = [change for node in context.nodes for family in FAMILIES for change in family(context, node)]
    vendors = Vendors(context.source, context.tree)
    left = [context.source.span(node) for node in context.tree.body if ast.dump(node) in written()]
    left += older(context)
    own = [change for change in found if not vendors.told_apart(change.anchor) and not any(span.holds(change.anchor) for span in left)]
    return _apart([replace(change, despite=vendors.only_mps(change.anchor)) for change in own])


def with_imports(context: Context, made: list[Change]) -> list[Change]:
    """The changes that are made, with those of the imports that they call for.

    What still uses an imported name in its new meaning is made only together with the import.
    """
    for _ in range(2):  # without those that have to go, an import may have to stay
        changed = list(imports.changes(context, made))
        renamed = {name for change in changed for name in imports.names(context, change)}
        kept = [change for change in made if change.binding is None or change.binding in renamed]
        if len(kept) == len(made):
            return [*made, *changed]
        made = kept
    return [*made, *imports.changes(context, made)]


def _apart(found: list[Change]) -> list[Change]:
    """Drop what overlaps a change around it: an outer rewrite replaces what is inside."""
    whole = sorted(found, key=lambda change: (change.anchor.start, -change.anchor.end))
    taken: list[tuple[int, int]] = []
    kept = []
    for change in whole:
        spans = [(piece.span.start, piece.span.end) for piece in change.pieces]
        if not any(start < end_ and start_ < end for start, end in spans for start_, end_ in taken):
            taken += spans
            kept.append(change)
    return kept


__all__ = ["FAMILIES", "Context", "changes", "held", "with_imports"]
