"""A test for CUDA stays one where what it guards is CUDA's own: kernels, capabilities, private names.

Else the test would be true on another chip and lead to code that is not there: what was silently passed by would fail.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator, Sequence

from sapper.port.fix.change import Change
from sapper.port.fix.rewrite.context import Context
from sapper.port.fix.text import Span

_OF_KERNELS = re.compile("cuda|triton", re.IGNORECASE)
_ASKING = frozenset({"torch.cuda.is_available", '"cuda"', ".is_cuda", "torch.cuda.device_count"})


def held(context: Context, doing: Sequence[Change], *, others: Sequence[Change], hard_lines: Collection[int]) -> list[Change]:
    """``doing`` without tests whose guarded code stays tied.

    Args:
        context: The file.
        doing: Changes to be made.
        others: Changes that are not made, of a riskier grade or without a rewrite.
        hard_lines: Lines on which the scan found something that nobody can rewrite.
    """
    hard = [change.anchor for change in others]
    asking = [change.anchor for change in doing if change.symbol in _ASKING]
    stays: list[Span] = []
    imports = (node for node in context.nodes if isinstance(node, (ast.Import, ast.ImportFrom)))
    hard += [context.source.span(node) for node in imports if _names_kernels(node)]
    for test, region in _guards(context, asking):
        if any(region.holds(span) for span in hard) or _touches(context, region, hard_lines):
            stays.append(test)
    return [change for change in doing if change.symbol not in _ASKING or not any(test.holds(change.anchor) for test in stays)]


def _names_kernels(node: ast.Import | ast.ImportFrom) -> bool:
    """Whether a statement imports what is named after CUDA or Triton; behind a test, such a module is there for CUDA alone."""
    within = f"{node.module or ''}." if isinstance(node, ast.ImportFrom) else ""
    names = [within + alias.name for alias in node.names]
    return any(_OF_KERNELS.search(name) for name in names if not name.startswith("torch."))


def _guards(context: Context, asking: Sequence[Span]) -> Iterator[tuple[Span, Span]]:
    """Tests, and the code that runs only where they find CUDA; ``asking`` is what in them asks for it."""
    for node in context.nodes:
        if isinstance(node, ast.If):
            guarded = _without(context, node) if _denies(context, node.test, asking) else node.body
            if guarded:
                yield context.source.span(node.test), Span(context.source.span(guarded[0]).start, context.source.span(guarded[-1]).end)
        elif isinstance(node, ast.IfExp):
            yield context.source.span(node.test), context.source.span(node.orelse if _denies(context, node.test, asking) else node.body)
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            for value, rest in zip(node.values, node.values[1:], strict=False):
                yield context.source.span(value), Span(context.source.span(rest).start, context.source.span(node.values[-1]).end)


def _denies(context: Context, test: ast.expr, asking: Sequence[Span]) -> bool:
    """Whether a test for CUDA is negated: ``not x``, ``!= "cuda"``, ``is None``, ``== 0``, ``< 1``; of ``and`` and ``or`` what asks."""
    if isinstance(test, ast.BoolOp):
        spans = [(value, context.source.span(value)) for value in test.values]
        about = [_denies(context, value, asking) for value, span in spans if any(span.holds(one) for one in asking)]
        return any(about) if isinstance(test.op, ast.Or) else bool(about) and all(about)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return not _denies(context, test.operand, asking)
    if not isinstance(test, ast.Compare):
        return False
    operator, right = test.ops[0], test.comparators[0]
    if isinstance(right, ast.Constant) and right.value in (None, False, 0):
        return isinstance(operator, (ast.Is, ast.Eq, ast.LtE))
    return isinstance(operator, (ast.NotEq, ast.NotIn)) or (isinstance(operator, ast.Lt) and isinstance(right, ast.Constant))


def _without(context: Context, node: ast.If) -> list[ast.stmt]:
    """What runs where the test of ``node`` is false: its ``else``, or what follows a body that leaves."""
    if node.orelse or not isinstance(node.body[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break)):
        return node.orelse
    above = context.parents.get(node)
    blocks = [getattr(above, name, None) for name in ("body", "orelse", "finalbody")]
    block = next((block for block in blocks if isinstance(block, list) and node in block), [])
    return block[block.index(node) + 1 :]


def _touches(context: Context, region: Span, lines: Collection[int]) -> bool:
    reached = context.source.lines(region)
    return any(line in reached for line in lines)
