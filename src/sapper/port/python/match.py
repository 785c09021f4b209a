"""Rules in the form in which Python is matched against them: one lookup per name, not one pass per rule."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping

from sapper.port.finding import Finding
from sapper.port.python import names, tolerant, tree
from sapper.port.python.lines import Words
from sapper.port.python.module import Module
from sapper.port.rule import Rule

BASE_WORDS = ("cuda", "nccl", "cudnn", "cublas", "nvtx", "nvml", "nvshmem")
"""Tokens, without regard to case, by which a line says CUDA itself; rules add the words of their own names."""
_SHORT = 5
_LOOKED_AT = (ast.Attribute, ast.Name, ast.Call, ast.Import, ast.ImportFrom)


class Matcher:
    """All rules that apply to Python."""

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self.rules = {code: rule for code, rule in rules.items() if "python" in rule.match.languages}
        self._names: dict[str, Rule] = {}
        self._below: dict[str, Rule] = {}
        """By ``torch.cuda.nvtx``: the rule for all names below it."""
        self._beginnings: list[tuple[str, Rule]] = []
        self._answers: dict[str, tuple[Rule, str] | None] = {}
        self._methods: dict[str, Rule] = {}
        self._keywords: dict[str, list[tuple[str, Rule]]] = {}
        for rule in self.rules.values():
            for name in (*rule.match.names, *rule.match.imports):
                if name.endswith(".*"):
                    self._below[name[:-2]] = rule
                elif name.endswith("*"):
                    self._beginnings.append((name[:-1], rule))
                else:
                    self._names[name] = rule
            self._methods.update(dict.fromkeys(rule.match.methods, rule))
            for entry in rule.match.keywords:
                callee, _, keyword = entry.rpartition(":")
                self._keywords.setdefault(keyword, []).append((callee, rule))
        called = {name for rule in self.rules.values() for name in rule.match.names}
        self._only_imported = {name for rule in self.rules.values() for name in rule.match.imports} - called
        beginnings = (beginning for beginning, _rule in self._beginnings)
        self._leading = frozenset(_leading([*self._names, *self._below, *beginnings]))
        self.words = words(self.rules.values())

    def interesting(self, qualified: str) -> bool:
        """Whether a rule looks for ``qualified`` or for something that begins with it."""
        return qualified in self._leading or self.by_name(qualified) is not None

    def by_name(self, qualified: str) -> tuple[Rule, str] | None:
        """The rule for a qualified name and the part of the name that it looks for, the longest; None where no rule does."""
        if qualified not in self._answers:
            self._answers[qualified] = self._by_name(qualified)
        return self._answers[qualified]

    def _by_name(self, qualified: str) -> tuple[Rule, str] | None:
        for beginning, rule in self._beginnings:
            if qualified.startswith(beginning):
                return rule, qualified
        name = qualified
        while name:
            if name in self._names:
                return self._names[name], name
            name = name.rpartition(".")[0]
            if name in self._below:
                return self._below[name], qualified
        return None

    def findings(self, module: Module) -> Iterator[Finding]:
        """What the rules' names, methods and keywords find in ``module``."""
        inside: set[ast.AST] = set()
        for node in module.candidates:
            if node in inside:
                inside.update(tree.children(node))
                continue
            if not isinstance(node, _LOOKED_AT):
                continue
            if isinstance(node, (ast.Attribute, ast.Name, ast.Call)):
                finding = self._named(module, node, inside)
                if finding is not None:
                    yield finding
                    continue
            if isinstance(node, ast.Attribute):
                yield from self._method(module, node)
            elif isinstance(node, ast.Call):
                yield from self._keyword(module, node)
            elif isinstance(node, ast.ImportFrom):
                yield from self._imported(module, node)
            elif isinstance(node, ast.Import):
                yield from self._import(module, node)

    def _named(self, module: Module, node: ast.Attribute | ast.Name | ast.Call, inside: set[ast.AST]) -> Finding | None:
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            return None
        qualified = module.name_of(node)
        found = self.by_name(qualified) if qualified else None
        if found is None or qualified is None or found[1] in self._only_imported:
            return None
        rule, matched = found
        at: ast.AST = node
        for _ in range(qualified.count(".") - matched.count(".")):
            if not isinstance(at, ast.Attribute):
                break
            at = at.value
        inside.update(tree.children(node))
        return module.finding(rule, at, matched, because=module.because(node))

    def in_text(self, module: Module, lines: Iterable[int]) -> Iterator[Finding]:
        """What the rules' names find in lines that are not in the tree, by their text alone."""
        for line in lines:
            for column, name in tolerant.names(module.lines[line - 1]):
                found = self.by_name(name)
                if found is not None:
                    yield module.finding_at(found[0], line, column, found[1])

    def _method(self, module: Module, node: ast.Attribute) -> Iterator[Finding]:
        parent = module.parent(node)
        called = isinstance(parent, ast.Call) and parent.func is node
        rule = self._methods.get(f"{node.attr}()") if called else None
        rule = rule or self._methods.get(node.attr)
        if rule is not None:
            yield module.finding(rule, node, f".{node.attr}()" if called else f".{node.attr}")

    def _keyword(self, module: Module, node: ast.Call) -> Iterator[Finding]:
        for keyword in node.keywords:
            for callee, rule in self._keywords.get(keyword.arg or "", ()):
                name = module.name_of(node.func)
                last = node.func.attr if isinstance(node.func, ast.Attribute) else None
                if callee in ("*", name) or (callee.startswith(".") and callee[1:] == last):
                    yield module.finding(rule, keyword, f"{keyword.arg}=")

    def _imported(self, module: Module, node: ast.ImportFrom) -> Iterator[Finding]:
        for alias in node.names:
            base = names.absolute(module.name, package=module.package, level=node.level, name=node.module)
            qualified = f"{base}.{alias.name}"
            found = self.by_name(module.through(qualified))
            if found is not None:
                known = module.known.exports.get(qualified)
                yield module.finding(found[0], alias, found[1], because=known.origin if known else None)

    def _import(self, module: Module, node: ast.Import) -> Iterator[Finding]:
        for alias in node.names:
            found = self.by_name(alias.name)
            if found is not None:
                yield module.finding(found[0], alias, found[1])


def words(rules: Iterable[Rule]) -> Words:
    """Pieces of text of which a line that some rule looks for holds one; of those that count anywhere, none contains another."""
    anywhere: set[str] = set(BASE_WORDS)
    imported: set[str] = set()
    for rule in rules:
        if "python" in rule.match.languages:
            anywhere.update(rule.match.words)
            imported.update(name.lower() for name in rule.match.imports)
            packages = {name for name in rule.match.imports if "." not in name}  # found where they are imported, and then by that name
            for name in (*rule.match.names, *rule.match.methods, *rule.match.keywords):
                if name not in packages:
                    said = _package(name) if name in rule.match.imports else _telling(name.rstrip("*").rstrip(".").removesuffix("()"))
                    anywhere.add(said)
    return Words(_shortest({word.lower() for word in anywhere}), sorted(imported))


def _shortest(said: set[str]) -> tuple[str, ...]:
    return tuple(sorted(word for word in said if word and not any(other and other != word and other in word for other in said)))


def _package(module: str) -> str:
    """What every line says that names a module of a dependency: ``mooncake`` of ``mooncake.engine``, and not a word of many meanings."""
    return next((word for word in BASE_WORDS if word in module.lower()), module.partition(".")[0])


def _telling(name: str) -> str:
    """The end of a name that a line which uses it holds: a short last part (``hip``) is in too many other words alone."""
    said = next((word for word in BASE_WORDS if word in name.lower()), None)
    if said is not None:
        return said
    parts = name.replace(":", ".").rsplit(".", 2)
    return parts[-1] if len(parts[-1]) >= _SHORT or len(parts) == 1 else ".".join(parts[-2:])


def _leading(qualified: list[str]) -> Iterator[str]:
    """Every proper beginning of the names: ``torch`` and ``torch.cuda`` of ``torch.cuda.Stream``."""
    for name in qualified:
        parts = name.split(".")
        for count in range(1, len(parts)):
            yield ".".join(parts[:count])
