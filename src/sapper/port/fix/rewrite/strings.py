"""Device strings: ``"cuda"``, ``"cuda:0"``, ``f"cuda:{rank}"``, and comparisons with them.

A literal that is one of these words alone names a device, unless it stands where no device does: a key, a word of a list
of choices, the argument of a function for text, a name beside those of other vendors.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from sapper.port.fix.change import Change, Expression, Grade
from sapper.port.fix.rewrite import vendors
from sapper.port.fix.rewrite.context import Context
from sapper.port.fix.rewrite.flags import guards_flags_alone
from sapper.port.fix.text import Piece, Span

_DEVICE = re.compile(r"cuda(:(\d+|%[ds]|\{\w*\}|))?")
_TEXT_METHODS = frozenset({
    "replace", "split", "rsplit", "partition", "rpartition", "strip", "lstrip", "rstrip", "removeprefix", "removesuffix", "count",
    "find", "index", "print", "debug", "info", "warning", "warn", "error", "exception", "critical", "log", "write", "add_argument",
    "get", "pop", "setdefault", "getenv", "fullmatch", "match", "search", "compile", "sub", "import_module", "hasattr", "getattr",
    "setattr", "delattr", "skip",
})  # fmt: skip
_NO_DEVICE_KEYWORDS = frozenset({
    "choices", "help", "metavar", "dest", "name", "reason", "msg", "message", "description", "title", "label", "key",
    "device_types", "dispatch_key",
})  # fmt: skip
_WAYS = frozenset({"backend", "impl", "implementation", "kernel"})
"""Last words of parameters, keys and variables of the environment for which ``"cuda"`` is one of the project's own ways to compute."""
_A_DEVICE = re.compile(
    r"(?:cuda|cpu|gpu|meta|mps|xla|tpu|npu|xpu|hpu|ipu|musa|mlu|gcu|sdaa|mtia|hip|rocm|vulkan|mkldnn|maia|dml|directml|openvino|fpga"
    r"|privateuseone|privateuse1|lazy|auto|disk|none)?(?::\d+)?",
    re.IGNORECASE,
)


def changes(context: Context, node: ast.AST) -> Iterator[Change]:
    """Rewrite device strings by where they stand."""
    if isinstance(node, ast.Compare):
        yield from _comparison(context, node)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "startswith":
        yield from _starts_with(context, node)
    elif isinstance(node, ast.IfExp):
        yield from _choice(context, node)
    elif isinstance(node, ast.JoinedStr):
        yield from _formatted(context, node)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _DEVICE.fullmatch(node.value):
        yield from _literal(context, node, node.value)


def _literal(context: Context, node: ast.Constant, value: str) -> Iterator[Change]:
    if not is_device(context, node) or _is_compared(context, node) or _is_chosen(context, node) or _is_way(context, node):
        return
    device = context.policy.device_type()
    parent = context.parents.get(node)
    if value == "cuda":
        change = context.replaced(node, device, symbol=f'"{value}"')
    elif isinstance(parent, ast.BinOp) and isinstance(parent.op, ast.Mod) and parent.left is node:
        change = _percent(context, parent, device) or _indexed(context, node, value, device)
    elif isinstance(parent, ast.Attribute) and parent.attr == "format":
        change = _format_call(context, parent, device) or _indexed(context, node, value, device)
    else:
        change = _indexed(context, node, value, device)
    if change:
        yield change


def _indexed(context: Context, node: ast.Constant, value: str, device: Expression) -> Change | None:
    """``"cuda:0"`` as an f-string, and ``"cuda:%d"`` and ``"cuda:{}"`` where what they format does not fit into one."""
    quote = context.quote(node)
    rest = value[len("cuda") :].replace("{", "{{").replace("}", "}}")
    if quote is None or context.source.of(node).lower().startswith(("b", "u")):
        return None
    new = Expression(f"f{quote}{{{device.text}}}{rest}{quote}", device.needs, device.torch)
    return context.replaced(node, new, symbol=f'"{value}"')


def _percent(context: Context, node: ast.BinOp, device: Expression) -> Change | None:
    """``"cuda:%d" % rank``."""
    assert isinstance(node.left, ast.Constant)
    value = node.right
    if isinstance(value, ast.Tuple) and len(value.elts) == 1:
        value = value.elts[0]
    return _with_index(context, node, node.left, device, value)


def _format_call(context: Context, node: ast.Attribute, device: Expression) -> Change | None:
    """``"cuda:{}".format(rank)``."""
    call = context.parents.get(node)
    if not isinstance(call, ast.Call) or len(call.args) != 1 or call.keywords or not isinstance(node.value, ast.Constant):
        return None
    return _with_index(context, call, node.value, device, call.args[0])


def _with_index(context: Context, whole: ast.expr, literal: ast.Constant, device: Expression, index: ast.expr) -> Change | None:
    quote, inner = context.quote(literal), context.source.of(index)
    if quote is None or isinstance(index, (ast.Tuple, ast.Starred)) or set(inner) & {'"', "'", "\\", "#", "{", "\n", "\r"}:
        return None
    new = Expression(f"f{quote}{{{device.text}}}:{{{inner}}}{quote}", device.needs, device.torch)
    return context.replaced(whole, new, symbol=f'"{literal.value!s}"')


def _formatted(context: Context, node: ast.JoinedStr) -> Iterator[Change]:
    """``f"cuda:{rank}"``, and ``f"cuda"`` and ``f"cuda:0"``, in which nothing is formatted."""
    whole = [item.value if isinstance(item, ast.Constant) else "{}" for item in node.values]
    if not _DEVICE.fullmatch(text := "".join(map(str, whole))) and text != "cuda:{}":
        return
    if not is_device(context, node) or any(isinstance(item, ast.JoinedStr) for item in context.above(node)):
        return
    span, quote, device = context.source.span(node), context.quote(node), context.policy.device_type()
    source = context.source.of(node)
    if quote is None:
        return
    at = source.index(quote) + len(quote)
    if text == "cuda" and not _is_compared(context, node):
        change = context.replaced(node, device, symbol=source)
    elif source[at : at + 5] == "cuda:" and "f" in source[:at].lower():  # the first of several joined strings may be a plain one
        part = Span(span.start + at, span.start + at + 4)
        change = context.replaced(node, Expression(f"{{{device.text}}}", device.needs, device.torch), symbol=source, part=part)
    else:
        return
    if change:
        yield change


def _choice(context: Context, node: ast.IfExp) -> Iterator[Change]:
    """``"cuda" if torch.cuda.is_available() else "cpu"`` is the device's type, which is ``cpu`` without an accelerator."""
    if _chosen(context, node) and is_device(context, node):
        change = context.replaced(node, context.policy.device_type(), symbol='"cuda"')
        if change:
            yield change


def _chosen(context: Context, node: ast.AST | None) -> bool:
    if not isinstance(node, ast.IfExp) or not context.policy.falls_to_cpu:
        return False
    test = node.test
    available = isinstance(test, ast.Call) and not test.args and context.imported(test.func) == "torch.cuda.is_available"
    return available and _word(node.body) == "cuda" and _word(node.orelse) == "cpu"


def _is_chosen(context: Context, node: ast.AST) -> bool:
    return _chosen(context, context.parents.get(node)) and is_device(context, context.parents[node])


def _word(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


# -- Comparisons ---------------------------------------------------------------------------------------------------------


def _is_compared(context: Context, node: ast.AST) -> bool:
    """Whether the rewrite of a comparison (or of ``startswith``) above takes care of the literal."""
    parent = context.parents.get(node)
    if isinstance(parent, ast.Call) and _made_of(context, parent) is node and _word(node) == "cuda":
        above = context.parents.get(parent)
        parent = context.parents.get(above) if isinstance(above, ast.Attribute) and above.attr == "type" else above
        return isinstance(parent, ast.Compare)
    if isinstance(parent, ast.Compare):
        return True
    return isinstance(parent, ast.Call) and isinstance(parent.func, ast.Attribute) and parent.func.attr == "startswith"


def _comparison(context: Context, node: ast.Compare) -> Iterator[Change]:
    if len(node.ops) != 1 or not is_device(context, node) or _guards_flags(context, node):
        return
    left, right, operator = node.left, node.comparators[0], node.ops[0]
    if isinstance(operator, (ast.In, ast.NotIn)):
        several = isinstance(right, (ast.Tuple, ast.List, ast.Set))  # that one of them is CUDA's is not that none is the CPU
        if _word(left) == "cuda" and _names_device(right) and not several:
            yield from _negated(context, node, left, operator)
        return
    if not isinstance(operator, (ast.Eq, ast.NotEq)):
        return
    left, right = (_made_of(context, side) or side for side in (left, right))
    literal, other = (right, left) if _word(right) else (left, right)
    value = _word(literal)
    if value != "cuda" and literal not in (node.left, node.comparators[0]):
        return
    if value is None or not _DEVICE.fullmatch(value) or not isinstance(literal, ast.Constant) or _word(other):
        return
    if not _names_device(other) and _compares_ways(context, other):
        return
    asserted, whole = context.is_asserted(node), any(_is_whole_device(context, side) for side in (node.left, node.comparators[0]))
    if value == "cuda" and not asserted and not whole:
        plain = _names_device(other) and not _switches_on_cuda(context, node)
        yield from _negated(context, node, literal, operator, grade="safe" if plain else "unsafe")
        return
    device = context.policy.device_type()
    if value == "cuda":
        change = context.replaced(literal, device, symbol='"cuda"', grade="safe" if asserted else "unsafe")
    else:
        change = _indexed(context, literal, value, device)
    if change:
        yield change


def _made_of(context: Context, node: ast.AST) -> ast.Constant | None:
    """``"cuda"`` of ``torch.device("cuda")`` and ``torch.device("cuda").type``, which compare as it does."""
    call = node.value if isinstance(node, ast.Attribute) and node.attr == "type" else node
    if not isinstance(call, ast.Call) or len(call.args) != 1 or call.keywords or context.imported(call.func) != "torch.device":
        return None
    return call.args[0] if isinstance(call.args[0], ast.Constant) and _word(call.args[0]) else None


def _is_whole_device(context: Context, node: ast.AST) -> bool:
    """Whether a side of a comparison is a device with its index: ``torch.device("cuda")``, ``str(x.device)``.

    A tensor's is ``cuda:0``, which ``cuda`` does not equal, while both are other than ``cpu``: turned round, the comparison
    would be true where it was false. With the device's own name it stays what it was on CUDA, and turns true on a CPU alone.
    """
    if not isinstance(node, ast.Call) or len(node.args) != 1 or node.keywords:
        return False
    return context.imported(node.func) == "torch.device" or (isinstance(node.func, ast.Name) and node.func.id == "str")


def _switches_on_cuda(context: Context, node: ast.Compare) -> bool:
    """Whether the answer is an option ``gpu=`` of something, which may know no other chip: ``FaissKMeans(gpu=x.type == "cuda")``."""
    parent = context.parents.get(node)
    return isinstance(parent, ast.keyword) and parent.arg in ("gpu", "use_gpu", "cuda", "use_cuda")


_OPPOSITE: dict[type[ast.cmpop], tuple[str, str]] = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
}


def _negated(context: Context, node: ast.Compare, literal: ast.expr, operator: ast.cmpop, *, grade: Grade = "safe") -> Iterator[Change]:
    """``== "cuda"`` asks for an accelerator: ``!= "cpu"``. With the device's own name it would be true on a CPU alone."""
    span, quote = context.span(node), context.quote(literal)
    old, new = _OPPOSITE[type(operator)]
    between = Span(context.source.span(node.left).end, context.source.span(node.comparators[0]).start)
    found = re.search(r"\s+".join(old.split()), context.source.text[between.start : between.end])
    if span is None or quote is None or found is None or "#" in context.source.text[between.start : between.end]:
        return
    at = between.start + found.start()
    pieces = (Piece(Span(at, between.start + found.end()), new), Piece(context.source.span(literal), f"{quote}cpu{quote}"))
    yield Change('"cuda"', span, tuple(sorted(pieces)), grade)


def _guards_flags(context: Context, node: ast.Compare) -> bool:
    """Whether the comparison asks for CUDA itself, since only flags of its libraries are behind it."""
    parent = context.parents.get(node)
    return isinstance(parent, ast.If) and parent.test is node and guards_flags_alone(context, parent)


_TAKES_NOT = (ast.BoolOp, ast.If, ast.While, ast.Assert, ast.Assign, ast.Return, ast.keyword, ast.IfExp, ast.comprehension)
"""Where an expression may begin with ``not`` without parentheses."""


def _starts_with(context: Context, node: ast.Call) -> Iterator[Change]:
    """``device.startswith("cuda")``."""
    assert isinstance(node.func, ast.Attribute)
    if len(node.args) != 1 or _word(node.args[0]) not in ("cuda", "cuda:") or not _names_device(node.func.value):
        return
    parent = context.parents.get(node)
    free = isinstance(parent, _TAKES_NOT)
    span, quote = context.span(node), context.quote(node.args[0])
    if span is None or quote is None or not free:
        return
    pieces = (Piece(Span(span.start, span.start), "not "), Piece(context.source.span(node.args[0]), f"{quote}cpu{quote}"))
    yield Change('"cuda"', span, pieces)


def _names_device(node: ast.AST) -> bool:
    """Whether an expression speaks of a device by its name: ``device``, ``x.device.type``, ``args.device``, ``str(device)``."""
    words = [item.attr for item in ast.walk(node) if isinstance(item, ast.Attribute)]
    words += [item.id for item in ast.walk(node) if isinstance(item, ast.Name)]
    return any("device" in word.lower() for word in words)


# -- Where no device stands ----------------------------------------------------------------------------------------------


def is_device(context: Context, node: ast.AST) -> bool:
    """Whether a literal (or an expression around it) stands where a device is meant, and CUDA is not one among many."""
    child = node
    for parent in context.above(node):
        formats = isinstance(parent, ast.Attribute) and parent.attr == "format"
        if formats or isinstance(parent, (ast.IfExp, ast.BinOp, ast.Compare, ast.BoolOp)):
            pass
        elif isinstance(parent, (ast.Tuple, ast.List, ast.Set)):
            if _among_vendors(parent) or not (_lists_devices(parent) or _holds_device(context, parent)):
                return False
        else:
            return _may_be_device(context, child, parent)
        child = parent
    return True


def _may_be_device(context: Context, child: ast.AST, parent: ast.AST) -> bool:
    if isinstance(parent, ast.Dict):
        return not _among_vendors(parent) and (child in parent.values or _maps_locations(context, parent))
    if isinstance(parent, ast.Subscript):
        return child is parent.value
    if isinstance(parent, ast.keyword):
        return parent.arg not in _NO_DEVICE_KEYWORDS
    if isinstance(parent, ast.Call):
        name = parent.func.attr if isinstance(parent.func, ast.Attribute) else parent.func.id if isinstance(parent.func, ast.Name) else ""
        return name not in _TEXT_METHODS or (child is parent.func and name == "format") or _defaults(parent, child, name)
    if isinstance(parent, ast.Assign):
        return not any(isinstance(target, ast.Name) and target.id == "__all__" for target in parent.targets)
    return not isinstance(parent, (ast.Expr, ast.FormattedValue, ast.JoinedStr, ast.AnnAssign)) or (
        isinstance(parent, ast.AnnAssign) and child is parent.value
    )


def _is_way(context: Context, node: ast.Constant) -> bool:
    """Whether a literal is one of the project's own ways to compute, by the name that it is given to or by what else may be given."""
    child: ast.AST = node
    parent = context.parents.get(node)
    while isinstance(parent, ast.IfExp):
        if _is_other_way(parent.orelse if child is parent.body else parent.body):
            return True
        child, parent = parent, context.parents.get(parent)
    if isinstance(parent, ast.keyword) and parent.arg == "default":
        return _has_other_choices(context.parents.get(parent))
    name = _given_to(parent, child) or ""
    return "device" not in name.lower() and re.split(r"[_.-]", name.lower())[-1] in _WAYS and not _ends_as_device(context, node)


def _ends_as_device(context: Context, node: ast.AST) -> bool:
    """Whether the expression around a literal is given to ``device=``, ``map_location=`` or ``.to``, whatever names are on the way."""
    child, parent = node, context.parents.get(node)
    while isinstance(parent, (ast.expr, ast.keyword)):
        if isinstance(parent, ast.keyword) and parent.arg is not None and ("device" in parent.arg.lower() or parent.arg == "map_location"):
            return True
        if isinstance(parent, ast.Call) and child in parent.args and isinstance(parent.func, ast.Attribute) and parent.func.attr == "to":
            return True
        child, parent = parent, context.parents.get(parent)
    return False


def _is_other_way(node: ast.AST) -> bool:
    """Whether an expression is a word that is no device's."""
    word = _word(node)
    return word is not None and not _A_DEVICE.fullmatch(word)


def _has_other_choices(call: ast.AST | None) -> bool:
    """Whether the ``choices`` of an option hold more than devices; what is called a device is one all the same."""
    if not isinstance(call, ast.Call) or any("device" in (_word(name) or "").lower() for name in call.args):
        return False
    listed = (keyword.value for keyword in call.keywords if keyword.arg == "choices")
    return any(isinstance(one, (ast.Tuple, ast.List, ast.Set)) and not _lists_devices(one) for one in listed)


def _given_to(parent: ast.AST | None, child: ast.AST) -> str | None:
    """The parameter, key or variable of the environment that takes a value."""
    if isinstance(parent, ast.keyword):
        return parent.arg
    if isinstance(parent, ast.arguments):
        return _parameter(parent, child)
    if isinstance(parent, ast.Dict):
        return next((_word(key) for key, value in zip(parent.keys, parent.values, strict=True) if value is child and key), None)
    if isinstance(parent, ast.Call):
        return _word(parent.args[0]) if child in parent.args[1:2] else None
    if isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Subscript):
        return _word(parent.targets[0].slice)
    return None


def _compares_ways(context: Context, other: ast.AST) -> bool:
    """Whether the same function compares the same with a word that is no device's: ``backend == "triton"``."""
    asked, function = ast.dump(other), _function_of(context, other)
    for node in context.nodes:
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], (ast.Eq, ast.NotEq)):
            left, right = node.left, node.comparators[0]
            if _function_of(context, node) is not function:
                continue
            if (_is_other_way(right) and ast.dump(left) == asked) or (_is_other_way(left) and ast.dump(right) == asked):
                return True
    return False


def _function_of(context: Context, node: ast.AST) -> ast.AST | None:
    """The function that a node is in; None for the module's own statements."""
    parent = context.parents.get(node)
    while parent is not None and not isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        parent = context.parents.get(parent)
    return parent


def _parameter(arguments: ast.arguments, default: ast.AST) -> str:
    """Name of the parameter that has a default."""
    positional = [*arguments.posonlyargs, *arguments.args]
    last = positional[len(positional) - len(arguments.defaults) :]
    pairs = (*zip(last, arguments.defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True))
    return next((parameter.arg for parameter, value in pairs if value is default), "")


def _lists_devices(node: ast.Tuple | ast.List | ast.Set) -> bool:
    """Whether no word of a list is other than a device's: ``["cuda", "keops"]`` are ways to compute, wherever they are listed."""
    return all(word is None or _A_DEVICE.fullmatch(word) for word in map(_word, node.elts))


def _holds_device(context: Context, node: ast.Tuple | ast.List | ast.Set) -> bool:
    """Whether what is compared with a list is a device, whatever else is listed."""
    parent = context.parents.get(node)
    return isinstance(parent, ast.Compare) and any(_names_device(one) for one in (parent.left, *parent.comparators) if one is not node)


def _defaults(call: ast.Call, child: ast.AST, name: str) -> bool:
    """The second argument of ``options.get("device", "cuda")``."""
    return name in ("get", "pop", "setdefault", "getenv", "getattr") and child in call.args[1:]


def _maps_locations(context: Context, node: ast.Dict) -> bool:
    """Whether a mapping is a ``map_location``, or one of its kind: devices to devices."""
    return all(isinstance(item, (ast.Constant, ast.JoinedStr, ast.BinOp, ast.Call)) for item in node.keys) and any(
        isinstance(item, ast.keyword) and item.arg == "map_location" for item in context.above(node)
    )


def _among_vendors(node: ast.Tuple | ast.List | ast.Set | ast.Dict) -> bool:
    return bool(vendors.words(node))
