"""What a program asks ``torch.cuda.is_available()`` for; each purpose is a rule of its own.

``choice``: which device to run on, so any accelerator would do. ``guard``: whether to use what only CUDA has. ``need``: the
program refuses to run without. ``skip``: a test is passed by. ``report``: a person is told.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from sapper.port.python import guards

if TYPE_CHECKING:
    from sapper.port.finding import Finding
    from sapper.port.python.module import Module
    from sapper.port.rule import Rule

Purpose = Literal["choice", "guard", "need", "skip", "report"]

_TELLS = frozenset(
    ("print", "pprint", "debug", "info", "warning", "warn", "error", "exception", "critical", "log", "write", "echo", "secho")
)
_WORDS = frozenset(("str", "bool", "repr", "format", "int", "join"))
"""Calls that hand on what they are given as a text or a number."""
_SKIPS = frozenset(("skipif", "skipIf", "skipUnless", "skip", "skipTest", "SkipTest", "Skipped"))
_ENDS = frozenset(("exit", "_exit", "quit", "fail"))
_OF_CUDA_ALONE = frozenset(("kernel", "build", "library", "capability", "profiling"))
_FLAGS = ("torch.backends.cuda", "torch.backends.cudnn")


def told_apart(module: Module, findings: Sequence[Finding], rules: Mapping[str, Rule]) -> Iterator[Finding]:
    """``findings``, those of a rule that has one for each purpose with the code of that rule."""
    for finding in findings:
        purposes = rules[finding.code].match.purposes
        node = _node_at(module, finding) if purposes else None
        purpose = _purpose(module, node, findings, rules) if node is not None else "choice"
        if purpose not in purposes:
            yield finding
        elif finding.standing == "ties" and purpose in ("guard", "report"):
            yield msgspec.structs.replace(finding, code=purposes[purpose], standing="guarded")
        else:
            yield msgspec.structs.replace(finding, code=purposes[purpose])


def _node_at(module: Module, finding: Finding) -> ast.expr | None:
    """The expression that a finding is about."""
    for node in module.of(ast.Attribute, ast.Name):
        if node.lineno == finding.place.line and module.place(node) == finding.place:
            return node
    return None


def _purpose(module: Module, node: ast.expr, findings: Sequence[Finding], rules: Mapping[str, Rule]) -> Purpose:
    at: ast.AST = node
    while (above := module.parent(at)) is not None:
        if isinstance(above, ast.Call) and at is not above.func:
            name = _last(above.func)
            if name in _SKIPS:
                return "skip"
            if name in _TELLS:
                return "report"
            if name.startswith("assert"):
                return "need"
            if name not in _WORDS:
                return "choice"
        elif isinstance(above, ast.Assert):
            return "need" if at is above.test else "report"
        elif isinstance(above, ast.Expr):
            return "report" if module.source.language == "notebook" else "choice"
        elif isinstance(above, ast.stmt):
            return _of_statement(module, above, node, findings, rules)
        elif isinstance(above, (ast.IfExp, ast.BoolOp)) and _guards_cuda_alone(module, node, findings, rules):
            return "guard"
        at = above
    return "choice"


def _of_statement(module: Module, above: ast.stmt, node: ast.expr, findings: Sequence[Finding], rules: Mapping[str, Rule]) -> Purpose:
    if not isinstance(above, ast.If):
        return "choice"
    for without in [above.body] if guards.denies(module, above.test) else [above.orelse] if guards.asks(module, above.test) else []:
        if without and _skips(without[-1]):
            return "skip"
        if without and _ends(without[-1]):
            return "need"
    if guards.asks(module, above.test) and not above.orelse and all(_tells(statement) for statement in above.body):
        return "report"
    return "guard" if _guards_cuda_alone(module, node, findings, rules) else "choice"


def _guards_cuda_alone(module: Module, node: ast.expr, findings: Sequence[Finding], rules: Mapping[str, Rule]) -> bool:
    """Whether all that a test around ``node`` guards is what no other chip has, whatever is rewritten."""
    place = (node.lineno, node.col_offset)
    regions = [branch.guarded for branch in guards.branches(module) if guards.around([branch.test], "ties").holds(place)]
    inside = [one for one in findings if any(region.holds((one.place.line, one.place.column)) for region in regions)]
    telling = [one for one in inside if rules[one.code].klass != "carried"]
    return bool(telling) and all(_is_of_cuda_alone(one, rules[one.code]) for one in telling)


def _is_of_cuda_alone(finding: Finding, rule: Rule) -> bool:
    if finding.symbol.startswith(_FLAGS):
        return True
    return rule.klass in _OF_CUDA_ALONE and rule.fix != "safe"


def _skips(statement: ast.stmt) -> bool:
    return any(name in _SKIPS for name in _does(statement))


def _ends(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Raise) or any(name in _ENDS for name in _does(statement))


def _does(statement: ast.stmt) -> Iterable[str]:
    """Names of what a statement calls or raises."""
    if isinstance(statement, ast.Raise) and statement.exc is not None:
        raised = statement.exc
        return (_last(raised.func if isinstance(raised, ast.Call) else raised),)
    if isinstance(statement, (ast.Expr, ast.Return)) and isinstance(statement.value, ast.Call):
        return (_last(statement.value.func),)
    return ()


def _tells(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and _last(statement.value.func) in _TELLS


def _last(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
