"""What a rewriter knows of the file it works on."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sapper.port.fix.change import Change, Expression, Grade
from sapper.port.fix.policy import Policy
from sapper.port.fix.text import Piece, Span, Text

_QUOTE = re.compile(r"(?i)[a-z]{0,2}(\"\"\"|'''|\"|')")


@dataclass(frozen=True)
class Facts:
    """What the whole project says about a name."""

    movers: frozenset[str] = frozenset()
    """Classes of the project that have a method ``cuda`` and none ``to``."""
    test_tools: frozenset[str] = frozenset()
    """Names that the project's own test helpers define, such as ``require_torch_accelerator``."""


@dataclass
class Context:
    """One file, its names and the policy for it."""

    source: Text
    tree: ast.Module
    name_of: Callable[[ast.AST], str | None]
    """Qualified name of an expression, after imports and aliases; None where it is none."""
    policy: Policy
    facts: Facts = field(default_factory=Facts)

    @functools.cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the file."""
        return list(ast.walk(self.tree))

    @functools.cached_property
    def _imported(self) -> frozenset[str]:
        """Names that import statements of the file bind."""
        found: set[str] = set()
        for node in self.nodes:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        return frozenset(found)

    def imported(self, node: ast.AST) -> str | None:
        """Qualified name of a name or an attribute that comes from an import of this file.

        None for what an assignment made an alias (``cuda = torch.cuda``): the assignment is rewritten, its uses are not.
        """
        root = node
        while isinstance(root, ast.Attribute):
            root = root.value
        if not isinstance(root, ast.Name) or root.id not in self._imported:
            return None
        return self.name_of(node)

    @functools.cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """The node above each node."""
        return {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}

    def above(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes above ``node``, the nearest first."""
        while (parent := self.parents.get(node)) is not None:
            yield parent
            node = parent

    def span(self, node: ast.expr | ast.stmt) -> Span | None:
        """The span of a node; None where its place cannot be told.

        Before Python 3.12 the places of what stands inside an f-string are often wrong: they count only if the source
        at the place reads as the node does.
        """
        span = self.source.span(node)
        if isinstance(node, ast.stmt) or not any(isinstance(item, ast.JoinedStr) for item in self.above(node)):
            return span
        return span if self._reads_as(span, node) else self._search(node)

    def _reads_as(self, span: Span, node: ast.expr) -> bool:
        try:
            found = ast.parse(self.source.text[span.start : span.end].strip(), mode="eval").body
        except (SyntaxError, ValueError):
            return False
        return ast.dump(found) == ast.dump(node)

    def _search(self, node: ast.expr) -> Span | None:
        """The one place inside the f-string around a node that reads as the node does."""
        outer = [item for item in self.above(node) if isinstance(item, ast.JoinedStr)][-1]
        span, words = self.source.span(outer), ast.unparse(node)
        places = [found.start() for found in re.finditer(re.escape(words), self.source.text[span.start : span.end])]
        return Span(span.start + places[0], span.start + places[0] + len(words)) if len(places) == 1 else None

    def replaced(
        self, node: ast.expr, expression: Expression, *, symbol: str, grade: Grade = "safe", part: Span | None = None
    ) -> Change | None:
        """A change that puts an expression in the place of a node (or of a part of it)."""
        span = self.span(node)
        if span is None or not self._fits(node, expression.text):
            return None
        piece = Piece(part or span, expression.text)
        return Change(symbol, span, (piece,), grade, expression.needs, expression.torch)

    def _fits(self, node: ast.expr, text: str) -> bool:
        """Whether a text may stand where ``node`` does: before Python 3.12 no f-string holds its own quotes."""
        if not any(isinstance(item, ast.JoinedStr) for item in self.above(node)):
            return True
        return not set(text) & {'"', "'", "\\", "#"}

    def shown(self, node: ast.expr | ast.stmt, *, symbol: str) -> Change:
        """A coupling that has no rewrite: shown, never applied."""
        return Change(symbol, self.source.span(node), (), "display")

    def quote(self, node: ast.expr) -> str | None:
        """The quotes that a literal begins with; None where it is none."""
        found = _QUOTE.match(self.source.of(node))
        return found[1] if found else None

    def function(self, node: ast.AST) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | None:
        """The function that ``node`` is inside of."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
        return next((item for item in self.above(node) if isinstance(item, kinds)), None)

    def is_asserted(self, node: ast.AST) -> bool:
        """Whether a test asserts the expression: ``assert``, ``self.assertEqual(...)``."""
        for item in self.above(node):
            if isinstance(item, ast.Assert):
                return True
            if isinstance(item, ast.Call) and isinstance(item.func, ast.Attribute) and item.func.attr.startswith("assert"):
                return True
            if isinstance(item, ast.stmt):
                return False
        return False
