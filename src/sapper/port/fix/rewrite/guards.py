"""A test for CUDA stays one where what it guards is CUDA's own: kernels, capabilities, private names.

Else the test would be true on another chip and lead to code that is not there: what was silently passed by would fail.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Sequence

from sapper.port.fix.change import Change
from sapper.port.fix.rewrite.context import Context
from sapper.port.fix.rewrite.flags import names_cuda
from sapper.port.fix.text import Span

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
    stays: list[Span] = []
    for test, region in _guards(context):
        if any(region.holds(span) for span in hard) or _touches(context, region, hard_lines):
            stays.append(test)
    return [change for change in doing if change.symbol not in _ASKING or not any(test.holds(change.anchor) for test in stays)]


def _guards(context: Context) -> Iterator[tuple[Span, Span]]:
    """Tests, and the code that runs only where they are true."""
    for node in context.nodes:
        if isinstance(node, ast.If):
            first, last = context.source.span(node.body[0]), context.source.span(node.body[-1])
            yield context.source.span(node.test), Span(first.start, last.end)
        elif isinstance(node, ast.IfExp):
            yield context.source.span(node.test), context.source.span(node.body)
        elif isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
            for value, rest in zip(node.values, node.values[1:], strict=False):
                yield context.source.span(value), Span(context.source.span(rest).start, context.source.span(node.values[-1]).end)


def _touches(context: Context, region: Span, lines: Collection[int]) -> bool:
    first, last = context.source.place(region.start)[0], context.source.place(region.end)[0]
    return any(first <= line <= last for line in lines)


def sets_flags_alone(node: ast.If) -> bool:
    """Whether a test for the word ``cuda`` guards nothing but flags of NVIDIA's libraries."""
    return names_cuda(node.test) and all("torch.backends.cu" in ast.unparse(item) or "cudnn." in ast.unparse(item) for item in node.body)
