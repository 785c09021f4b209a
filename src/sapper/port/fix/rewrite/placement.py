"""Methods and types that put a tensor on CUDA: ``.cuda()``, ``.is_cuda``, ``torch.cuda.FloatTensor``."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.fix.change import Change, Expression, Grade
from sapper.port.fix.rewrite.context import Context
from sapper.port.fix.text import Piece, Span

_DTYPES = {
    "FloatTensor": "float32", "DoubleTensor": "float64", "HalfTensor": "float16", "BFloat16Tensor": "bfloat16", "ByteTensor": "uint8",
    "CharTensor": "int8", "ShortTensor": "int16", "IntTensor": "int32", "LongTensor": "int64", "BoolTensor": "bool",
}  # fmt: skip


def changes(context: Context, node: ast.AST) -> Iterator[Change]:
    """Rewrite methods of tensors and modules, and typed tensors."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda":
        yield from _move(context, node, node.func)
    elif isinstance(node, ast.Attribute) and node.attr == "is_cuda" and isinstance(node.ctx, ast.Load):
        yield from _ask(context, node)
    elif isinstance(node, ast.Call) and (dtype := _typed(context, node.func)):
        yield from _construct(context, node, dtype)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "type" and len(node.args) == 1:
        yield from _cast(context, node)


# -- .cuda() ---------------------------------------------------------------------------------------------------------------


def _move(context: Context, call: ast.Call, function: ast.Attribute) -> Iterator[Change]:
    if context.name_of(function.value) is not None and isinstance(function.value, ast.Name):
        return  # a function of a module: `numba.cuda()`
    name = _name_span(context, function)
    span = context.span(call)
    if name is None or span is None:
        return
    change = _moved(context, call, name, span)
    yield change or context.shown(call, symbol=".cuda()")


def _moved(context: Context, call: ast.Call, name: Span, span: Span) -> Change | None:
    grade: Grade = "unsafe" if context.facts.movers else "safe"
    renamed = Piece(name, "to")
    if any(keyword.arg == "device" for keyword in call.keywords):
        return Change(".cuda()", span, (renamed,), grade)
    if any(keyword.arg is None for keyword in call.keywords) or any(isinstance(argument, ast.Starred) for argument in call.args):
        return None
    device = context.policy.device_type()
    if not call.args:
        opening = context.source.text.index("(", name.end) + 1
        first = Piece(Span(opening, opening), device.text + (", " if call.keywords else ""))
        return Change(".cuda()", span, (renamed, first), grade, device.needs, device.torch)
    index = call.args[0]
    if isinstance(index, ast.Constant) and isinstance(index.value, bool):
        return None  # `.cuda(True)`: the second argument of an old PyTorch
    if isinstance(index, ast.Constant) and isinstance(index.value, int):
        place = Piece(context.source.span(index), f'f"{{{device.text}}}:{index.value}"')
        return Change(".cuda()", span, (renamed, place), grade, device.needs, device.torch)
    if isinstance(index, ast.Constant) and index.value is None:
        place = Piece(context.source.span(index), device.text)
        return Change(".cuda()", span, (renamed, place), grade, device.needs, device.torch)
    if _may_be_none(context, index) or _is_storage(context, call):
        grade = "unsafe"  # `.cuda(None)` means the current device, `.to(None)` none at all; a storage has no `.to` of old
    return Change(".cuda()", span, (renamed,), grade)


def _name_span(context: Context, function: ast.Attribute) -> Span | None:
    """Where the attribute's own name stands."""
    span = context.span(function)
    return Span(span.end - len(function.attr), span.end) if span else None


def _may_be_none(context: Context, node: ast.expr) -> bool:
    """Whether an index is a parameter whose default is None."""
    function = context.function(node)
    if not isinstance(node, ast.Name) or function is None:
        return False
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    pairs = [
        *zip(reversed(positional), reversed(arguments.defaults), strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return any(argument.arg == node.id and isinstance(default, ast.Constant) and default.value is None for argument, default in pairs)


def _is_storage(context: Context, call: ast.Call) -> bool:
    """``lambda storage, location: storage.cuda(rank)``, as ``map_location`` takes it."""
    function = context.function(call)
    receiver = call.func.value if isinstance(call.func, ast.Attribute) else None
    return isinstance(function, ast.Lambda) and isinstance(receiver, ast.Name) and receiver.id in {item.arg for item in function.args.args}


# -- .is_cuda --------------------------------------------------------------------------------------------------------------


def _ask(context: Context, node: ast.Attribute) -> Iterator[Change]:
    span, name = context.span(node), _name_span(context, node)
    if span is None or name is None:
        return
    asked = context.policy.on_accelerator()
    if asked is not None:
        text = context.source.text[name.end - len("is_cuda") - 1 : name.end]
        if text == ".is_cuda":
            pieces = (Piece(Span(span.start, span.start), f"{asked.text}("), Piece(Span(name.start - 1, name.end), ")"))
            yield Change(".is_cuda", span, pieces, "safe", asked.needs, asked.torch)
        return
    parent = context.parents.get(node)
    plain = not isinstance(parent, (ast.Compare, ast.BinOp, ast.Attribute, ast.Subscript, ast.FormattedValue)) and not isinstance(
        node.value, ast.IfExp
    )
    if plain:
        yield Change(".is_cuda", span, (Piece(name, 'device.type != "cpu"'),))
    else:
        yield context.shown(node, symbol=".is_cuda")


# -- Typed tensors ---------------------------------------------------------------------------------------------------------


def _typed(context: Context, node: ast.AST) -> str | None:
    """``float32`` of ``torch.cuda.FloatTensor``."""
    name = context.imported(node)
    return _DTYPES.get(name.removeprefix("torch.cuda.")) if name and name.startswith("torch.cuda.") else None


def _construct(context: Context, call: ast.Call, dtype: str) -> Iterator[Change]:
    """A list becomes ``torch.tensor``, sizes ``torch.empty``; what an unknown argument is, the code does not say."""
    symbol = context.imported(call.func) or ""
    device = context.policy.device_type()
    tail = f"dtype=torch.{dtype}, device={device.text})"
    span, function = context.span(call), context.span(call.func)
    data = len(call.args) == 1 and isinstance(call.args[0], (ast.List, ast.Tuple, ast.ListComp))
    sizes = bool(call.args) and all(isinstance(item, ast.Constant) and isinstance(item.value, int) for item in call.args)
    if span is None or function is None or call.keywords or not (data or sizes or not call.args):
        yield context.shown(call, symbol=symbol)
        return
    builder = "torch.tensor" if data else "torch.empty"
    head = context.source.text[: span.end - 1].rstrip()
    comma = "" if head.endswith(",") else ", " if call.args else "0, "
    pieces = (Piece(function, builder), Piece(Span(span.end - 1, span.end), f"{' ' if head.endswith(',') else ''}{comma}{tail}"))
    yield Change(symbol, span, pieces, "safe", device.needs, device.torch)


def _cast(context: Context, call: ast.Call) -> Iterator[Change]:
    """``x.type(torch.cuda.FloatTensor)`` and ``x.type("torch.cuda.FloatTensor")``."""
    argument = call.args[0]
    dtype = _typed(context, argument)
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and argument.value.startswith("torch.cuda."):
        dtype = _DTYPES.get(argument.value.removeprefix("torch.cuda."))
    span = context.span(call)
    if dtype is None or span is None or call.keywords or not isinstance(call.func, ast.Attribute):
        return
    name = _name_span(context, call.func)
    if name is not None:
        device: Expression = context.policy.device_type()
        pieces = (Piece(name, "to"), Piece(context.source.span(argument), f"device={device.text}, dtype=torch.{dtype}"))
        yield Change(f"torch.cuda.{dtype}", span, pieces, "safe", device.needs, device.torch)
