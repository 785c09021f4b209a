"""One Python file, parsed: its tree, what its names stand for, and the lines that are worth a look.

Everything here is lazy or bounded by those lines: a file of ten thousand lines with three lines of CUDA costs its parse
and three statements.
"""

from __future__ import annotations

import ast
import bisect
import functools
import re
from collections.abc import Callable, Iterator
from typing import Any

from sapper.port.finding import Context, Finding, Place
from sapper.port.python import context, guards, names
from sapper.port.rule import Rule
from sapper.port.source import Source

Unit = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

_IMPORTERS = ("importlib.import_module", "__import__", "import_module")
_MAY_NAME = (ast.Attribute, ast.Name, ast.Call)
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef)
_HAS_BLOCKS = (
    ast.If,
    ast.For,
    ast.AsyncFor,
    ast.While,
    ast.With,
    ast.AsyncWith,
    ast.Try,
    ast.TryStar,
    ast.Match,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
)


class Module:
    """A parsed file.

    Args:
        source: The file.
        words: Pattern of what makes a line worth a look, apart from the names that the file binds itself.
        known: What names of other files of the project stand for (``pkg.utils.Stream`` -> ``torch.cuda.Stream``).
        interesting: Whether a qualified name is one that a rule looks for, or leads to one (``torch.cuda``).

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: The text is not Python of the running grammar.
    """

    def __init__(
        self,
        source: Source,
        *,
        words: re.Pattern[str],
        interesting: Callable[[str], bool],
        known: Callable[[str], str | None] | None = None,
    ) -> None:
        self.source = source
        self.text = source.text
        self.tree = ast.parse(source.text)
        self.name = names.dotted(source.path)
        self.package = source.path.endswith("__init__.py")
        self.bindings = names.Bindings()
        self.functions: list[tuple[names.Span, names.Function]] = []
        """Spans of lines and nodes of all functions, outer before inner."""
        self.classes: list[tuple[names.Span, ast.ClassDef]] = []
        self.statements: list[ast.stmt] = []
        """All statements, in the order of the file."""
        self.owner: dict[ast.AST, ast.AST] = {}
        """The statement or the module that holds each statement."""
        self._interesting = interesting
        self._known = known or (lambda _name: None)
        self._attributes: dict[str, list[tuple[names.Span, str]]] = {}
        self._walk_statements(self.tree, None)
        self._bind()
        self._interest = self._lines_of_interest(words)

    # -- Text ------------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def lines(self) -> list[str]:
        """The lines as the parser counts them, without their ends."""
        return [line.rstrip("\r\n") for line in re.split(r"(?<=\n)|(?<=\r)(?!\n)", self.text)]

    def _characters(self, line: int, column: int) -> int:
        """The parser's column, in UTF-8 bytes, as one in characters."""
        text = self.lines[line - 1] if line <= len(self.lines) else ""
        return column if text.isascii() else len(text.encode("utf-8", "surrogatepass")[:column].decode("utf-8", "ignore"))

    def place(self, node: ast.AST) -> Place:
        """Where ``node`` is."""
        at: Any = node
        return Place(
            path=self.source.path,
            line=at.lineno,
            column=self._characters(at.lineno, at.col_offset),
            end_line=at.end_lineno,
            end_column=self._characters(at.end_lineno, at.end_col_offset),
        )

    def finding(self, rule: Rule, node: ast.AST, symbol: str, **more: Any) -> Finding:
        """A finding of ``rule`` at ``node``, with its standing and context; ``more`` are further fields."""
        place = self.place(node)
        more.setdefault("standing", self.standing(node))
        more.setdefault("context", self.context(place.line))
        return Finding(code=rule.code, place=place, symbol=symbol, excerpt=self.lines[place.line - 1], **more)

    # -- Statements ------------------------------------------------------------------------------------------------------

    def _walk_statements(self, tree: ast.AST, scope: names.Span | None) -> None:
        stack: list[tuple[ast.AST, names.Span | None]] = [(tree, scope)]
        self._imports: list[tuple[ast.Import | ast.ImportFrom, names.Span | None]] = []
        self._assigned: list[tuple[ast.Assign | ast.AnnAssign, names.Span | None]] = []
        while stack:
            node, scope = stack.pop()
            kind = type(node)
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                self._imports.append((node, scope))
            elif isinstance(node, (ast.Assign, ast.AnnAssign)) and type(node.value) in _MAY_NAME:
                self._assigned.append((node, scope))
            if isinstance(node, ast.stmt):
                self.statements.append(node)
                if kind not in _HAS_BLOCKS:
                    continue
            if isinstance(node, _SCOPES):
                scope = (node.lineno, node.end_lineno or node.lineno)
                self.functions.append((scope, node))
            elif isinstance(node, ast.ClassDef):
                self.classes.append(((node.lineno, node.end_lineno or node.lineno), node))
            inner = [statement for block in names.blocks(node) for statement in block]
            for statement in reversed(inner):
                self.owner[statement] = node
                stack.append((statement, scope))

    def _bind(self) -> None:
        for node, scope in self._imports:
            names.add_import(self.bindings, node, module=self.name, package=self.package, scope=scope)
        for assigned, scope in self._assigned:
            targets = assigned.targets if isinstance(assigned, ast.Assign) else [assigned.target]
            value = self.name_of(assigned.value) if assigned.value else None
            if value is None or not self._interesting(value):
                continue
            if isinstance(assigned.value, ast.Call) and not self._imports_module(assigned.value) and not self._gets(assigned.value):
                continue
            for target in targets:
                if isinstance(target, ast.Name):
                    self.bindings.bind(target.id, value, scope)
                elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id in ("self", "cls"):
                    self._attributes.setdefault(target.attr, []).append((self.class_span(target.lineno), value))

    def class_span(self, line: int) -> names.Span:
        """Lines of the innermost class around ``line``; the whole file outside a class."""
        found = [span for span, _node in self.classes if span[0] <= line <= span[1]]
        return found[-1] if found else (0, 1 << 60)

    def function_at(self, line: int) -> names.Function | None:
        """The innermost function around ``line``."""
        found = [node for span, node in self.functions if span[0] <= line <= span[1]]
        return found[-1] if found else None

    # -- Names -----------------------------------------------------------------------------------------------------------

    def name_of(self, node: ast.AST) -> str | None:
        """The qualified name of an expression after imports and aliases, such as ``torch.cuda.synchronize``.

        Also ``getattr(torch, "cuda")``, ``importlib.import_module("torch.cuda")`` and attributes that the class set to
        something known (``self.cuda = torch.cuda``). None for whatever is not a name from an import.
        """
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                return self._attribute(node)
            base = self.name_of(node.value)
            return None if base is None else self._through(f"{base}.{node.attr}")
        if isinstance(node, ast.Name):
            return self._meaning(node.id, node.lineno)
        if isinstance(node, ast.Call):
            return self._called_name(node)
        return None

    def _through(self, qualified: str) -> str:
        return self._known(qualified) or qualified

    def _meaning(self, name: str, line: int) -> str | None:
        if name in self.bindings:
            for span, qualified in self.bindings.meanings(name, line):
                if not self._hidden(name, line, span):
                    return self._through(qualified)
            return None
        for star in self.bindings.stars:
            qualified = self._through(f"{star}.{name}")
            if self._interesting(qualified):
                return qualified
        return None

    @functools.cached_property
    def _locals(self) -> dict[names.Span, frozenset[str]]:
        return {}

    def _hidden(self, name: str, line: int, scope: names.Span) -> bool:
        """Whether a function inside ``scope`` and around ``line`` binds ``name`` to something of its own."""
        for span, node in self.functions:
            if span[0] > line:
                break
            if line <= span[1] and span[0] >= scope[0] and span[1] <= scope[1] and span != scope:
                if span not in self._locals:
                    self._locals[span] = names.locals_of(node)
                if name in self._locals[span]:
                    return True
        return False

    def _attribute(self, node: ast.Attribute) -> str | None:
        for span, qualified in self._attributes.get(node.attr, ()):
            if span[0] <= node.lineno <= span[1]:
                return qualified
        return None

    def _called_name(self, node: ast.Call) -> str | None:
        if self._imports_module(node):
            return names.literal(node.args, 0)
        if self._gets(node):
            base = self.name_of(node.args[0])
            attribute = names.literal(node.args, 1)
            return f"{base}.{attribute}" if base and attribute else None
        return None

    def _imports_module(self, node: ast.Call) -> bool:
        if isinstance(node.func, ast.Name) and node.func.id == "__import__":
            return True
        return isinstance(node.func, (ast.Name, ast.Attribute)) and self.name_of(node.func) in _IMPORTERS

    def _gets(self, node: ast.Call) -> bool:
        return isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr") and len(node.args) >= 2

    # -- Lines that are worth a look -------------------------------------------------------------------------------------

    def _lines_of_interest(self, words: re.Pattern[str]) -> list[int]:
        own = [name for name in self.bindings if any(self._interesting(qualified) for _span, qualified in self.bindings.all_meanings(name))]
        own += self._attributes
        pattern = re.compile(rf"{words.pattern}|\b(?:{'|'.join(map(re.escape, own))})\b", words.flags) if own else words
        if self.bindings.stars and any(self._interesting(star) for star in self.bindings.stars):
            return list(range(1, self.text.count("\n") + 2))
        ends = [match.end() for match in re.finditer(r"\r\n|\n|\r", self.text)]
        return sorted({bisect.bisect_right(ends, match.start()) + 1 for match in pattern.finditer(self.text)})

    def worth(self, first: int, last: int) -> bool:
        """Whether a line from ``first`` to ``last`` is worth a look."""
        at = bisect.bisect_left(self._interest, first)
        return at < len(self._interest) and self._interest[at] <= last

    @functools.cached_property
    def candidates(self) -> list[ast.AST]:
        """Statements and what they say themselves, on lines worth a look: outer before inner, in the order of the file."""
        found: list[ast.AST] = []
        for statement in self.statements:
            first, last = header(statement)
            said = self.worth(first, last)
            if said:
                found.append(statement)
            if said or isinstance(statement, (ast.Try, ast.TryStar, ast.Match)):
                for child in _own_expressions(statement):
                    self._parents[child] = statement
                    self._collect(child, found)
        return found

    def _collect(self, root: ast.AST, found: list[ast.AST]) -> None:
        stack = [root]
        while stack:
            node = stack.pop()
            if hasattr(node, "lineno") and not self.worth(node.lineno, node.end_lineno):  # type: ignore[attr-defined]
                continue
            found.append(node)
            children = list(ast.iter_child_nodes(node))
            for child in children:
                self._parents[child] = node
            stack += reversed(children)

    @functools.cached_property
    def _parents(self) -> dict[ast.AST, ast.AST]:
        return {}

    def parent(self, node: ast.AST) -> ast.AST | None:
        """What holds a candidate: an expression, a statement, or the module; None for the module."""
        return self._parents.get(node) or self.owner.get(node)

    # -- Standing and context --------------------------------------------------------------------------------------------

    @functools.cached_property
    def _regions(self) -> list[guards.Region]:
        return guards.regions(self)

    def standing(self, node: ast.AST) -> guards.Standing:
        """How a finding at ``node`` stands: ``ties``, ``guarded`` or ``vendor``."""
        at: Any = node
        return guards.standing_at(self._regions, (at.lineno, at.col_offset))

    def context(self, line: int) -> Context:
        """Where a line lives: ``test``, ``build`` or ``code``."""
        return context.of(self, line)


def header(statement: ast.stmt) -> names.Span:
    """First and last line of a statement without the statements inside it; decorators are part of it."""
    decorators = getattr(statement, "decorator_list", None)
    first = min([statement.lineno, *(item.lineno for item in decorators)]) if decorators else statement.lineno
    if type(statement) in _HAS_BLOCKS:
        body = getattr(statement, "body", None) or getattr(statement, "cases", None)
        if body:
            inner = body[0]
            start = inner.pattern.lineno if isinstance(inner, ast.match_case) else header(inner)[0]
            return first, max(start - 1, statement.lineno) if start > statement.lineno else statement.lineno
    return first, statement.end_lineno or statement.lineno


def _own_expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """Children of a statement that are not statements: what its header says."""
    for child in ast.iter_child_nodes(statement):
        if isinstance(child, ast.stmt):
            continue
        if isinstance(child, (ast.ExceptHandler, ast.match_case)):
            head = child.type if isinstance(child, ast.ExceptHandler) else child.pattern
            if head is not None:
                yield head
            continue
        yield child
