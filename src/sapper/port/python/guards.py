"""Which parts of a file run only where CUDA was asked for and found, and which are CUDA's own beside other vendors'.

A test asks for CUDA when it says so without ``not``: ``torch.cuda.is_available()``, ``device.type == "cuda"``,
``x.is_cuda``, ``torch.version.cuda``, ``is_cuda_available()``, or a variable of that name; so does one for a dependency of
CUDA's that the file can do without (:mod:`~sapper.port.python.optional`). ``and`` keeps the asking, ``or`` loses it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from sapper.port.python import implementation, optional

if TYPE_CHECKING:
    from sapper.port.python.module import Module

Standing = Literal["ties", "guarded", "vendor"]


class Region(NamedTuple):
    """A part of a file; line and column (in bytes), the end exclusive, and how what is inside stands."""

    start: tuple[int, int]
    end: tuple[int, int]
    standing: Standing

    def holds(self, at: tuple[int, int]) -> bool:
        """Whether a place lies inside."""
        return self.start <= at < self.end


class Branch(NamedTuple):
    """A test that asks for CUDA, or denies it, and what runs only where there is CUDA."""

    test: ast.expr
    guarded: Region


_ASKING_NAMES = frozenset(
    (
        "torch.cuda.is_available",
        "torch.cuda.device_count",
        "torch.cuda.is_initialized",
        "torch.version.cuda",
        "torch.cuda.is_bf16_supported",
        "torch.backends.cuda.is_built",
    )
)
_ASKING_WORDS = re.compile(
    r"(?:is|has|use|using|on|with|have)_?(?:torch_?)?(?:cuda|nvidia|gpu)(?:_available)?|(?:cuda|nvidia)(?:_is)?_available|_?is_cuda",
    re.IGNORECASE,
)
_OTHER_VENDOR = re.compile(
    r"(?:^|[^a-z])(?:npu|xpu|musa|mlu|hpu|gcu|xla|tpu|mps|rocm|hip|habana|ascend|neuron|maca|sdaa|mtia)(?:[^a-z]|$)", re.IGNORECASE
)


def asks(module: Module, test: ast.expr) -> bool:
    """Whether ``test`` is true only where there is CUDA."""
    return _decides(module, test, positive=True)


def denies(module: Module, test: ast.expr) -> bool:
    """Whether ``test`` is true only where there is no CUDA."""
    return _decides(module, test, positive=False)


def _decides(module: Module, test: ast.expr, *, positive: bool) -> bool:
    if isinstance(test, ast.BoolOp):
        every = [_decides(module, value, positive=positive) for value in test.values]
        return any(every) if isinstance(test.op, ast.And) else all(every)
    if isinstance(test, ast.UnaryOp):
        return isinstance(test.op, ast.Not) and _decides(module, test.operand, positive=not positive)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        return _compares(module, test, positive=positive)
    return positive and _asked(module, test)


def _compares(module: Module, test: ast.Compare, *, positive: bool) -> bool:
    operator, right = test.ops[0], test.comparators[0]
    sides = (test.left, right)
    if any(isinstance(side, ast.Constant) and isinstance(side.value, str) and side.value.split(":")[0] == "cuda" for side in sides):
        return isinstance(operator, (ast.Eq, ast.In) if positive else (ast.NotEq, ast.NotIn))
    if isinstance(right, ast.Constant) and right.value is None and _asked(module, test.left):
        return isinstance(operator, ast.IsNot if positive else ast.Is)
    if isinstance(right, ast.Constant) and right.value in (0, 1) and _says_cuda(module, test.left):
        return isinstance(operator, (ast.Gt, ast.GtE) if positive else (ast.Eq, ast.Lt, ast.LtE))
    return False


def _asked(module: Module, node: ast.expr) -> bool:
    return _says_cuda(module, node) or optional.names(module, node)


def _says_cuda(module: Module, node: ast.expr) -> bool:
    callee = node.func if isinstance(node, ast.Call) else node
    if module.name_of(callee) in _ASKING_NAMES:
        return True
    last = callee.attr if isinstance(callee, ast.Attribute) else callee.id if isinstance(callee, ast.Name) else ""
    return bool(_ASKING_WORDS.fullmatch(last))


def regions(module: Module) -> list[Region]:
    """All regions of the file, outer before inner."""
    found = [branch.guarded for branch in branches(module)]
    found += [around([node], "guarded") for node in (*optional.imports(module), *optional.questions(module))]
    found += [around([node], "vendor") for node in implementation.classes(module)]
    return sorted(found)


def branches(module: Module) -> list[Branch]:
    """All branches of the file that run only where there is CUDA, kind by kind."""
    found: list[Branch] = []
    for node in module.of(ast.If, ast.IfExp, ast.BoolOp):
        if isinstance(node, ast.If):
            found += _of_if(module, node)
        elif isinstance(node, ast.IfExp):
            if asks(module, node.test):
                found.append(Branch(node.test, around([node.body], "guarded")))
            elif denies(module, node.test):
                found.append(Branch(node.test, around([node.orelse], "guarded")))
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            first = next((index for index, value in enumerate(node.values) if asks(module, value)), None)
            if first is not None and first + 1 < len(node.values):
                found.append(Branch(node.values[first], around(node.values[first + 1 :], "guarded")))
    for node in optional.tests(module):
        found += _of_if(module, node)
    return found


def _of_if(module: Module, node: ast.If) -> Iterator[Branch]:
    """The branch with CUDA; there is none where the one without CUDA raises, since then nothing runs elsewhere."""
    beside = (test for test in _chain(module, node) if test is not node.test)
    kind: Standing = "vendor" if any(_OTHER_VENDOR.search(ast.unparse(test)) for test in beside) else "guarded"
    if asks(module, node.test):
        if not (node.orelse and isinstance(node.orelse[-1], ast.Raise)):
            yield Branch(node.test, around(node.body, kind))
    elif denies(module, node.test):
        if node.orelse:
            yield Branch(node.test, around(node.orelse, kind))
        elif isinstance(node.body[-1], (ast.Return, ast.Continue, ast.Break)):
            rest = _after(module, node)
            if rest:
                yield Branch(node.test, around(rest, kind))


def _chain(module: Module, node: ast.If) -> Iterator[ast.expr]:
    """Tests of the whole ``if``/``elif`` chain that ``node`` is a link of."""
    first = node
    while isinstance(above := module.owner.get(first), ast.If) and above.orelse == [first]:
        first = above
    link: ast.If | None = first
    while link is not None:
        yield link.test
        link = link.orelse[0] if len(link.orelse) == 1 and isinstance(link.orelse[0], ast.If) else None


def _after(module: Module, node: ast.stmt) -> list[ast.stmt]:
    """The statements after ``node`` in its block."""
    above = module.owner.get(node)
    for name in ("body", "orelse", "finalbody"):
        block = getattr(above, name, None)
        if isinstance(block, list) and node in block:
            return block[block.index(node) + 1 :]
    return []


def around(nodes: Sequence[ast.expr | ast.stmt], standing: Standing) -> Region:
    """The region from the first of some nodes to the last."""
    first, last = nodes[0], nodes[-1]
    return Region((first.lineno, first.col_offset), (last.end_lineno or last.lineno, last.end_col_offset or 0), standing)


def standing_at(found: list[Region], at: tuple[int, int]) -> Standing:
    """How what stands at a line and column (in bytes) stands; ``vendor`` is stronger than ``guarded``."""
    if not found:
        return "ties"
    inside = {region.standing for region in found if region.start <= at < region.end}
    return "vendor" if "vendor" in inside else "guarded" if inside else "ties"
