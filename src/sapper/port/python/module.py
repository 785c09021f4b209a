"""One Python file, parsed: its tree, what its names stand for, and the lines that are worth a look.

Everything here is lazy or bounded by those lines: a file of ten thousand lines with three lines of CUDA costs its parse
and three statements.
"""

from __future__ import annotations

import ast
import bisect
import builtins
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

from sapper.port.finding import Context, Finding, Place
from sapper.port.python import context, foreseen, guards, names, optional, thin, tree
from sapper.port.python.index import EMPTY, Index
from sapper.port.python.lines import Lines, Words
from sapper.port.rule import Rule
from sapper.port.source import Source

N = TypeVar("N", bound=ast.AST)

_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef)


class Module:
    """A parsed file.

    Args:
        source: The file.
        words: What makes a line worth a look, apart from the names that the file binds itself.
        known: What the other files of the project give away (``pkg.utils.Stream`` stands for ``torch.cuda.Stream``).
        interesting: Whether a qualified name is one that a rule looks for, or leads to one (``torch.cuda``).
        sought: Lines that the tree shall have besides; None for a tree of the whole text. Otherwise statements that hold
            nothing of interest are left out of it (:mod:`~sapper.port.python.thin`).
        lines: The lines of the file's text, where they are known.
        mended: What to parse in place of a text that does not (:mod:`~sapper.port.python.tolerant`).

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: The text is not Python of the running grammar.
    """

    def __init__(
        self,
        source: Source,
        *,
        words: Words,
        interesting: Callable[[str], bool],
        known: Index = EMPTY,
        sought: Iterable[int] | None = None,
        lines: Lines | None = None,
        mended: str | None = None,
    ) -> None:
        self.source = source
        self.text = source.text
        self.name = names.dotted(source.path)
        self.package = source.path.endswith("__init__.py")
        self.interesting = interesting
        self.known = known
        self.memo: dict[Any, Any] = {}
        """What several detectors ask of the file, worked out once."""
        self.missed: set[int] = set()
        """Lines that a detector asked for in what was left out of the tree."""
        self._text = lines or Lines(source.text)
        self._words = words
        self._mended = mended
        self._read(sought)

    def _read(self, sought: Iterable[int] | None) -> None:
        text = self._text
        interest = set(text.said(self._words))
        if self.known:
            interest.update(text.lines_of({name for given in self.known.modules.values() for name in given}, whole=True))
        needed = {*interest, *(sought or ())}
        if sought is not None:
            self._bind_imports()
            needed |= self._saying() | self._rebinding() | text.lines_of(optional.foreseen(self), whole=True)
            needed |= foreseen.lines(text, interest)
        while True:
            self._parse(None if sought is None else sorted(needed))
            own = self._saying()
            wanted = own | self._rebinding() if self._left_out else own
            if all(self._in_tree(line) for line in wanted):
                break
            needed |= wanted
        self._interest, self._needed = sorted(interest | own), needed

    def _bind_imports(self) -> None:
        """Bind what the file imports, before there is a tree: what is worth a look can mostly be told from that."""
        self._clear()
        for statement in self._text.imports:
            names.add_import(self.bindings, statement, module=self.name, package=self.package, scope=None)

    def _rebinding(self) -> set[int]:
        """Lines that may give a name of interest another meaning, or its meaning another name."""
        found: set[int] = set()
        for name in self.bindings:
            meanings = [self.through(meaning) for _span, meaning in self.bindings.all_meanings(name)]
            if any(map(self.interesting, meanings)):
                for line, rest in self._text.rebinding(name):
                    if not rest or any(self.interesting(meaning + rest) for meaning in meanings):
                        found.add(line)
            elif self.known.carriers and any(meaning in self.known.carriers for meaning in meanings):
                found |= self._text.lines_of((name,), whole=True)
        return found

    def _clear(self) -> None:
        self.bindings = names.Bindings()
        self.functions: list[tuple[names.Span, names.Function]] = []
        """Spans of lines and nodes of all functions, outer before inner."""
        self.classes: list[tuple[names.Span, ast.ClassDef]] = []
        self.statements: list[ast.stmt] = []
        """All statements, in the order of the file."""
        self.__dict__.pop("headers", None)
        self.owner: dict[ast.AST, ast.AST] = {}
        """The statement or the module that holds each statement."""
        self._rebound: set[str] = set()
        """Names that some function binds to something of its own."""
        self._attributes: dict[str, list[tuple[names.Span, str]]] = {}
        self._locals: dict[names.Span, frozenset[str]] = {}
        self._named: dict[ast.AST, str | None] | None = None
        self.__dict__.pop("_bound_here", None)

    def _parse(self, interest: list[int] | None) -> None:
        if self._mended is not None:
            text, self._left_out = self._mended, list[tuple[int, int]]()
        else:
            text, self._left_out = (self.text, []) if interest is None else thin.thin(self._text, interest)
        try:
            self.tree = ast.parse(text)
        except SyntaxError:
            if not self._left_out:
                raise
            self.tree, self._left_out = ast.parse(self.text), []
        self._clear()
        self._walk_statements()
        self._bind()
        self._named = {}

    # -- Text ------------------------------------------------------------------------------------------------------------

    @property
    def lines(self) -> list[str]:
        """The lines as the parser counts them, without their ends."""
        return self._text.all

    def place(self, node: ast.AST) -> Place:
        """Where ``node`` is."""
        at: Any = node
        return Place(
            path=self.source.path,
            line=at.lineno,
            column=self._text.column(at.lineno, at.col_offset),
            end_line=at.end_lineno,
            end_column=self._text.column(at.end_lineno, at.end_col_offset),
        )

    def finding(self, rule: Rule, node: ast.AST, symbol: str, **more: Any) -> Finding:
        """A finding of ``rule`` at ``node``, with its standing and context; ``more`` are further fields."""
        place = self.place(node)
        more.setdefault("standing", self.standing(node))
        more.setdefault("context", self.context(place.line))
        return Finding(code=rule.code, place=place, symbol=symbol, excerpt=self.lines[place.line - 1], **more)

    def finding_at(self, rule: Rule, line: int, column: int, symbol: str) -> Finding:
        """A finding of ``rule`` in a line that is not in the tree."""
        place = Place(path=self.source.path, line=line, column=column, end_line=line, end_column=column + len(symbol))
        return Finding(code=rule.code, place=place, symbol=symbol, excerpt=self.lines[line - 1], context=self.context(line))

    # -- Statements ------------------------------------------------------------------------------------------------------

    def _walk_statements(self) -> None:
        stack: list[tuple[ast.AST, names.Span | None]] = [(self.tree, None)]
        self._imports: list[tuple[ast.Import | ast.ImportFrom, names.Span | None]] = []
        self._assigned: list[tuple[ast.expr, ast.expr, names.Span | None]] = []
        while stack:
            node, scope = stack.pop()
            kind = type(node)
            if kind is not ast.Module:
                self.statements.append(node)  # type: ignore[arg-type]
                if kind not in names.COMPOUND:
                    self._note(node, scope)
                    continue
            if isinstance(node, _SCOPES):
                scope = (node.lineno, node.end_lineno or node.lineno)
                self.functions.append((scope, node))
                self._rebound.update(argument.arg for argument in names.parameters(node))
            elif isinstance(node, ast.ClassDef):
                self.classes.append(((node.lineno, node.end_lineno or node.lineno), node))
            elif isinstance(node, (ast.For, ast.AsyncFor)):
                self._rebound.update(_stored(node.target))
            elif isinstance(node, (ast.With, ast.AsyncWith)):
                self._rebound.update(name for item in node.items if item.optional_vars for name in _stored(item.optional_vars))
            inner = [statement for block in names.blocks(node) for statement in block]
            for statement in reversed(inner):
                self.owner[statement] = node
                stack.append((statement, scope))

    def _note(self, node: ast.AST, scope: names.Span | None) -> None:
        """Keep what a simple statement says about names."""
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self._imports.append((node, scope))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            aliases = type(node.value) in (ast.Attribute, ast.Name) or (isinstance(node.value, ast.Call) and _may_name(node.value))
            for target in node.targets if isinstance(node, ast.Assign) else (node.target,):
                if aliases and node.value is not None:
                    self._assigned.append((target, node.value, scope))
                if scope is not None:
                    self._rebound.update(_stored(target))

    def _bind(self) -> None:
        for node, scope in self._imports:
            names.add_import(self.bindings, node, module=self.name, package=self.package, scope=scope)
        for target, value, scope in self._assigned:
            qualified = self.name_of(value)
            if qualified is None or not self.interesting(qualified):
                continue
            if isinstance(target, ast.Name):
                self.bindings.bind(target.id, qualified, line=target.lineno, scope=scope)
            elif isinstance(target, ast.Attribute) and _is_self(target.value):
                self._attributes.setdefault(target.attr, []).append((self.class_span(target.lineno), qualified))

    @functools.cached_property
    def headers(self) -> list[names.Span]:
        """:func:`header` of each statement."""
        return [header(statement) for statement in self.statements]

    def class_span(self, line: int) -> names.Span:
        """Lines of the innermost class around ``line``; the whole file outside a class."""
        for span, _node in reversed(self.classes):
            if span[0] <= line <= span[1]:
                return span
        return 0, 1 << 60

    def function_at(self, line: int) -> names.Function | None:
        """The innermost function around ``line``."""
        for span, node in reversed(self.functions):
            if span[0] <= line <= span[1]:
                return node
        return None

    # -- Names -----------------------------------------------------------------------------------------------------------

    def name_of(self, node: ast.AST) -> str | None:
        """The qualified name of an expression after imports and aliases, such as ``torch.cuda.synchronize``.

        Also ``getattr(torch, "cuda")``, ``importlib.import_module("torch.cuda")`` and attributes that the class set to
        something known (``self.cuda = torch.cuda``). None for whatever is not a name from an import.
        """
        if self._named is None:  # not all is bound yet
            return self._name_of(node)
        if node not in self._named:
            self._named[node] = self._name_of(node)
        return self._named[node]

    def _name_of(self, node: ast.AST) -> str | None:
        if isinstance(node, ast.Attribute):
            if _is_self(node.value):
                return self._attribute(node)
            base = self.name_of(node.value)
            return None if base is None else self.through(f"{base}.{node.attr}")
        if isinstance(node, ast.Name):
            return self._meaning(node.id, node.lineno)
        if isinstance(node, ast.Call):
            return self._called_name(node)
        return None

    def through(self, qualified: str) -> str:
        """What a qualified name stands for after what other files of the project say."""
        return self.known.meaning(qualified) or qualified

    def because(self, node: ast.AST) -> str | None:
        """``path:line`` in another file where the name at ``node`` becomes CUDA's; None where this file says so itself."""
        if not self.known:
            return None
        attributes: list[str] = []
        while isinstance(node, ast.Attribute):
            attributes.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            return None
        meanings = [qualified for _span, qualified in self.bindings.meanings(node.id, node.lineno)]
        for name in meanings or [f"{star}.{node.id}" for star in self.bindings.stars]:
            for attribute in ("", *reversed(attributes)):
                name = f"{name}.{attribute}".rstrip(".")
                if name in self.known.exports:
                    return self.known.exports[name].origin
        return None

    def _meaning(self, name: str, line: int) -> str | None:
        if name in self.bindings:
            for span, qualified in self.bindings.meanings(name, line):
                if not self._hidden(name, line, span):
                    return self.through(qualified)
            return None
        if not self.bindings.stars or name in self._bound_here or hasattr(builtins, name):
            return None
        for star in self.bindings.stars:
            qualified = self.through(f"{star}.{name}")
            if self.interesting(qualified):
                return qualified
        return None

    @functools.cached_property
    def _bound_here(self) -> frozenset[str]:
        """Names that the file binds itself, in whatever scope: none of them comes from a star import."""
        found: set[str] = set()
        stack: list[ast.AST] = [self.tree]
        while stack:
            node = stack.pop()
            stack += tree.children(node)
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                found.add(node.id)
            elif isinstance(node, ast.arg):
                found.add(node.arg)
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                found.add(node.name)
        return frozenset(found)

    def _hidden(self, name: str, line: int, scope: names.Span) -> bool:
        """Whether a function inside ``scope`` and around ``line`` binds ``name`` to something of its own."""
        if name not in self._rebound:
            return False
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
            found = f"{base}.{attribute}" if base and attribute else None
            return None if found and _only_asks(node) and not any(word in found for word in ("cuda", "cudnn", "nccl")) else found
        return None

    def _imports_module(self, node: ast.Call) -> bool:
        if isinstance(node.func, ast.Name) and node.func.id == "__import__":
            return True
        return _may_name(node) and self.name_of(node.func) == "importlib.import_module"

    def _gets(self, node: ast.Call) -> bool:
        return isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr") and len(node.args) >= 2

    # -- Lines that are worth a look -------------------------------------------------------------------------------------

    def _saying(self) -> set[int]:
        """Lines on which this file may say CUDA by a name of its own, without a word for it."""
        if any(self.interesting(star) or star in self.known.modules for star in self.bindings.stars):
            return set(range(1, len(self.lines) + 1))
        meanings = self.bindings.all_meanings
        own = {name for name in self.bindings if any(self.hides(self.through(meaning)) for _span, meaning in meanings(name))}
        return self._text.lines_of(own | set(self._attributes), whole=True)

    def _in_tree(self, line: int) -> bool:
        at = bisect.bisect_right(self._left_out, (line, 1 << 60)) - 1
        return at < 0 or line > self._left_out[at][1]

    def ask_for(self, words: Iterable[str]) -> None:
        """Say that a detector asks what follows from tests of these names: the file is read again with all that they decide."""
        if self._left_out:
            self.missed.update(self._text.lines_of(words, whole=True) - self._needed)

    def seek(self, words: Iterable[str], span: names.Span | None = None) -> None:
        """Say that a detector looks for these names: where one stands outside the tree, the file is read again with it.

        Args:
            words: The names.
            span: Lines of the function in which they count, which is then read whole; None for the whole file.
        """
        if not self._left_out:
            return
        lines = self._text.lines_of(words, whole=True, span=span)
        missed = [line for line in lines if not self._in_tree(line)]
        if missed:
            self.missed.update(missed if span is None else range(span[0], span[1] + 1))

    def lines_with(self, words: Iterable[str]) -> list[int]:
        """Lines that are worth a look, and those with one of these names."""
        return sorted({*self._interest, *self._text.lines_of(words, whole=True)})

    def hides(self, qualified: str) -> bool:
        """Whether a name for ``qualified`` takes the word away by which a line is found.

        A name for ``torch`` does not, since what follows it says CUDA; a name for ``torch.cuda`` does.
        """
        if qualified in self.known.modules:
            return True
        return self.interesting(qualified) and _says(self._words, qualified)

    def worth(self, first: int, last: int) -> bool:
        """Whether a line from ``first`` to ``last`` is worth a look."""
        at = bisect.bisect_left(self._interest, first)
        return at < len(self._interest) and self._interest[at] <= last

    @functools.cached_property
    def candidates(self) -> list[ast.AST]:
        """Statements and what they say themselves, on lines worth a look: outer before inner, in the order of the file."""
        found: list[ast.AST] = []
        for statement, (first, last) in zip(self.statements, self.headers, strict=True):
            said = self.worth(first, last)
            if said:
                found.append(statement)
            if said or isinstance(statement, (ast.Try, ast.TryStar, ast.Match)):
                simple = type(statement) not in names.COMPOUND
                whole = said and simple and first == last
                for child in tree.children(statement) if simple else _own_expressions(statement):
                    self._parents[child] = statement
                    self._collect(child, found, whole=whole)
        return found

    @functools.cached_property
    def _by_kind(self) -> dict[type[ast.AST], list[ast.AST]]:
        found: dict[type[ast.AST], list[ast.AST]] = {}
        for node in self.candidates:
            found.setdefault(type(node), []).append(node)
        return found

    def of(self, *kinds: type[N]) -> list[N]:
        """The candidates of these kinds, kind by kind."""
        return cast(list[N], [node for kind in kinds for node in self._by_kind.get(kind, ())])

    def _collect(self, root: ast.AST, found: list[ast.AST], *, whole: bool) -> None:
        """Add what ``root`` holds; ``whole`` where all of it stands on one line, which is worth a look."""
        parents = self._parents
        stack = [root]
        while stack:
            node = stack.pop()
            if not whole and hasattr(node, "lineno") and not self.worth(node.lineno, node.end_lineno):  # type: ignore[attr-defined]
                continue
            found.append(node)
            inside = tree.children(node)
            if inside:
                for child in inside:
                    parents[child] = node
                inside.reverse()
                stack += inside

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


@functools.lru_cache(maxsize=1 << 14)
def _says(words: Words, qualified: str) -> bool:
    """Whether one of ``words`` stands in a name; many files import the same names."""
    lowered = qualified.lower()
    return any(word in lowered for word in words.vocabulary.words)


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _only_asks(node: ast.Call) -> bool:
    """Whether a call asks if a name is there: ``hasattr(torch, "compile")`` compiles nothing."""
    return isinstance(node.func, ast.Name) and node.func.id == "hasattr"


def _may_name(node: ast.Call) -> bool:
    """Whether a call may give a module or what a module holds: ``getattr``, ``__import__``, ``import_module``."""
    function = node.func
    last = function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""
    return last in ("getattr", "hasattr", "__import__", "import_module")


def _stored(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, (ast.Tuple, ast.List)):
        for item in target.elts:
            yield from _stored(item)


def header(statement: ast.stmt) -> names.Span:
    """First and last line of a statement without the statements inside it; decorators are part of it."""
    if type(statement) not in names.COMPOUND:
        return statement.lineno, statement.end_lineno or statement.lineno
    compound: Any = statement
    first = statement.lineno
    if isinstance(statement, (*_SCOPES, ast.ClassDef)):
        first = min([first, *(item.lineno for item in statement.decorator_list)])
    start = compound.cases[0].pattern.lineno if isinstance(statement, ast.Match) else header(compound.body[0])[0]
    return first, max(start - 1, statement.lineno)


def _own_expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """Children of a statement that are not statements: what its header says."""
    for child in tree.children(statement):
        if isinstance(child, ast.stmt):
            continue
        if isinstance(child, (ast.ExceptHandler, ast.match_case)):
            head = child.type if isinstance(child, ast.ExceptHandler) else child.pattern
            if head is not None:
                yield head
            continue
        yield child
