"""Values that carry what CUDA answered: couplings on lines that do not name CUDA.

``n = torch.cuda.device_count()`` is found by its name; ``range(n)`` three lines below depends on CUDA as much, and so do
a function that returns it, an attribute that keeps it, and a caller that relies on a parameter's default of ``"cuda"``.

What is followed is small on purpose: assignments, arithmetic, comparisons, attributes and methods of a carrier, and
calls of functions of the project that return one, inside a file and, by :class:`Carrier`, across files. A value handed
to another function is not followed into it. Devices, their indices and streams are not followed: a line that merely uses
one (``x.to(device)``) is neutral already.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from sapper.port.python import lookup, memo, strings, words
from sapper.port.python.carrier import Carrier, Kind
from sapper.port.python.names import Function, Span

if TYPE_CHECKING:
    from sapper.port.python.module import Module

REPORTED: frozenset[Kind] = frozenset(("flag", "count", "capability", "memory", "name", "gate"))
"""Kinds of which each use is a line to look at; of monitors only uses under a name that says ``gpu``."""
_NEUTRAL: frozenset[Kind] = frozenset(("index", "device", "stream"))
"""Kinds of which no use is one: their variables are not followed."""

_ANSWERS: dict[str, Kind] = {
    "is_available": "flag", "is_initialized": "flag", "is_bf16_supported": "flag", "is_current_stream_capturing": "flag",
    "device_count": "count", "current_device": "index", "get_device_capability": "capability", "get_device_properties": "capability",
    "get_arch_list": "capability", "get_device_name": "name", "get_rng_state": "device", "Stream": "stream", "Event": "stream",
    "current_stream": "stream", "default_stream": "stream", "mem_get_info": "memory", "utilization": "memory", "device": "device",
}  # fmt: skip
_MEMORY = re.compile(r"(?:reset_)?(?:max_)?memory_\w+|max_memory_\w+|memory_stats\w*")
_OUTSIDE: dict[str, Kind] = {
    "torch.version.cuda": "flag", "torch.distributed.is_nccl_available": "flag", "torch.backends.cudnn.is_available": "flag",
    "torch.backends.cuda.is_built": "flag", "torch.utils.cpp_extension.CUDA_HOME": "flag",
    "transformers.utils.is_torch_bf16_gpu_available": "flag", "transformers.utils.is_torch_tf32_available": "flag",
}  # fmt: skip
ASKING = "|".join(
    (
        _MEMORY.pattern,
        *(name for name, kind in _ANSWERS.items() if kind not in _NEUTRAL),
        *(name.rpartition(".")[2] for name in _OUTSIDE if name != "torch.version.cuda"),
    )
)
"""Matches the last part of a name by which CUDA is asked for what is followed."""
_KEEPS = frozenset(
    ("int", "str", "float", "bool", "len", "range", "min", "max", "sum", "round", "abs", "list", "tuple", "dict", "set", "sorted", "any",
     "all")
)  # fmt: skip
"""Built-ins whose result is made of their arguments."""
_ROUNDS = 3
STEPS = 3
"""How many assignments and functions a value may come through: beyond them it is a value of the program's own."""


class Use(NamedTuple):
    """A line that depends on a carrier."""

    node: ast.expr | ast.alias
    symbol: str
    rule: str
    """Name of the rule: ``carried-value``, ``capability-logic``, ``gpu-gate``, ``relies-on-default``."""
    origin: str


class _Bound(NamedTuple):
    kind: Kind
    line: int
    origin: str
    steps: int = 0
    """How many assignments and functions the value has come through."""


def uses(module: Module) -> tuple[Use, ...]:
    """Lines of the file that depend on a carrier, of its own or of another file of the project."""
    return _uses(module)


def exports(module: Module) -> tuple[Carrier, ...]:
    """What other files may import from this one."""
    return _flow(module).exports()


@memo.per_module
def asking(module: Module) -> frozenset[int]:
    """Lines that ask CUDA, use what it answered, or know an error by its words."""
    said = (found.node.lineno for found in strings.literals(module) if found.rule == "error-by-text")
    return frozenset((*(seed.lineno for seed in _flow(module).seeds), *(use.node.lineno for use in uses(module)), *said))


@memo.per_module
def _flow(module: Module) -> _Flow:
    return _Flow(module, module.known.carriers)


@memo.per_module
def _uses(module: Module) -> tuple[Use, ...]:
    return _flow(module).uses()


class _Flow:
    """One pass over a file: seeds, then what is assigned from them, then functions that return them, until nothing is new."""

    def __init__(self, module: Module, outside: Mapping[str, Carrier]) -> None:
        self.module = module
        self.outside = outside
        self.path = module.source.path
        self.names: dict[tuple[Span, str], _Bound] = {}
        """Variables by scope; the scope of an attribute of ``self`` is its class, and its name begins with a dot."""
        self._neutral: dict[tuple[Span, str], set[int]] = {}
        """Lines that give a variable of a function a stream or a device, whatever it carried before."""
        self._again: dict[tuple[Span, str], set[int]] = {}
        """Lines that give a variable something that it carries, not only the first."""
        self.functions: dict[str, _Bound] = {}
        self.defaults: dict[str, Carrier] = {}
        self.seeds = self._seeds_of()
        if self.seeds or outside:
            for _ in range(_ROUNDS):
                if not (self._assignments() | self._returns()):
                    break
        self._defaults()

    # -- What asks CUDA --------------------------------------------------------------------------------------------------

    def _seeds_of(self) -> dict[ast.expr, Kind]:
        found: dict[ast.expr, Kind] = {}
        for node in self.module.of(ast.Call, ast.Attribute, ast.Name):
            kind: Kind | None = None
            if isinstance(node, ast.Call):
                kind = self._answer(self.module.name_of(node.func))
            elif isinstance(node, ast.Attribute):
                kind = "flag" if node.attr == "is_cuda" else _OUTSIDE.get(self.module.name_of(node) or "")
            elif isinstance(node, ast.Name):
                kind = _OUTSIDE.get(self.module.name_of(node) or "")
            if kind is not None and isinstance(node, ast.expr) and self.module.standing(node) != "vendor":
                found[node] = kind
        for literal in strings.literals(self.module):
            if literal.rule in ("device-comparison", "nccl-comparison"):
                compare = self._comparison(literal.node)
                if compare is not None and self.module.standing(compare) != "vendor":
                    found[compare] = "flag"
        return found

    def _answer(self, qualified: str | None) -> Kind | None:
        if qualified is None:
            return None
        if qualified in _OUTSIDE:
            return _OUTSIDE[qualified]
        base, _, last = qualified.rpartition(".")
        if base not in ("torch.cuda", "torch.cuda.memory"):
            return None
        return "memory" if _MEMORY.fullmatch(last) else _ANSWERS.get(last)

    def _comparison(self, node: ast.AST) -> ast.Compare | None:
        above = self.module.parent(node)
        while above is not None and not isinstance(above, (ast.Compare, ast.stmt)):
            above = self.module.parent(above)
        return above if isinstance(above, ast.Compare) and len(above.ops) == 1 else None

    # -- What a value is made of -----------------------------------------------------------------------------------------

    def carried(self, node: ast.expr | None, line: int) -> _Bound | None:
        """What the value of ``node`` carries, if it is a carrier or is made of one."""
        if node is None:
            return None
        if node in self.seeds:
            return _Bound(self.seeds[node], line, f"{self.path}:{node.lineno}")
        if isinstance(node, ast.Name):
            return self._variable(node.id, node.lineno)
        if isinstance(node, ast.Attribute):
            return self._attribute(node, line)
        if isinstance(node, ast.Call):
            return self._call(node, line)
        if isinstance(node, ast.IfExp):
            return self._first([node.body, node.orelse, node.test], line)
        return self._first(_made_of(node), line)

    def _first(self, nodes: list[ast.expr], line: int) -> _Bound | None:
        return next(filter(None, (self.carried(item, line) for item in nodes)), None)

    def _variable(self, name: str, line: int) -> _Bound | None:
        found = [(span, bound) for (span, known), bound in self.names.items() if known == name and span[0] <= line <= span[1]]
        if not found:
            return None
        span, bound = max(found, key=lambda item: item[0][0])
        freed = max((at for at in self._neutral.get((span, name), ()) if bound.line < at < line), default=None)
        if freed is not None and not any(freed <= at < line for at in self._again.get((span, name), ())):
            return None
        return bound if bound.line <= line or span == _FILE else None

    def _attribute(self, node: ast.Attribute, line: int) -> _Bound | None:
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
            return self.names.get((self.module.class_span(node.lineno), f".{node.attr}"))
        found = self._from_outside(node, called=False)
        return found or self.carried(node.value, line)

    def _call(self, node: ast.Call, line: int) -> _Bound | None:
        found = self._callee(node.func)
        if found is not None:
            return found
        if isinstance(node.func, ast.Name):
            return self._first(node.args, line) if node.func.id in _KEEPS else None
        if isinstance(node.func, ast.Attribute):
            base = self.carried(node.func.value, line)
            return base if base is None or base.kind != "stream" else None
        return None

    def _callee(self, function: ast.expr) -> _Bound | None:
        if isinstance(function, ast.Name) and function.id in self.functions:
            return self.functions[function.id]
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id in ("self", "cls"):
            return self.functions.get(f".{function.attr}")
        return self._from_outside(function, called=True)

    def _from_outside(self, node: ast.expr, *, called: bool) -> _Bound | None:
        if not self.outside:
            return None
        carrier = self.outside.get(self.module.name_of(node) or "")
        if carrier is None or carrier.called is not called or carrier.kind == "default":
            return None
        return _Bound(carrier.kind, 0, carrier.origin)

    # -- What is made a carrier ------------------------------------------------------------------------------------------

    def _assignments(self) -> bool:
        """Bind what is assigned from a carrier; whether anything was new."""
        before = len(self.names)
        for statement in lookup.statements_on(self.module, self._known()):
            if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
                for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
                    for part, value in _paired(target, statement.value):
                        bound = self.carried(value, statement.lineno)
                        if bound is not None and _may_be_named(value, bound):
                            self._bind(part, bound, statement.lineno)
                        elif isinstance(part, ast.Name) and self._is_neutral(value, bound):
                            self._free(part.id, statement)
        return len(self.names) > before

    def _is_neutral(self, value: ast.expr, bound: _Bound | None) -> bool:
        """Whether a value is a stream, a device or its index."""
        if bound is not None:
            return bound.kind in _NEUTRAL
        return isinstance(value, ast.Call) and self.module.name_of(value.func) == "torch.device"

    def _free(self, name: str, statement: ast.stmt) -> None:
        """Note that a variable of a function carries nothing from a statement on that always runs before what follows it."""
        function = self.module.function_at(statement.lineno)
        if function is not None and self.module.owner.get(statement) is function:
            span = function.lineno, function.end_lineno or function.lineno
            self._neutral.setdefault((span, name), set()).add(statement.lineno)

    def _known(self) -> set[str]:
        """Names of carriers; asks for lines with them that were left out of the tree, since those use what is carried, or hand it on."""
        shared = {carrier.name.rpartition(".")[2] for carrier in self.outside.values()}
        shared |= {name.lstrip(".") for name in (*self.functions, *self.defaults)}
        own: set[str] = set()
        for span, name in self.names:
            if span == _FILE or name.startswith("."):
                shared.add(name.lstrip("."))
            else:
                own.add(name)
                self.module.seek((name,), span)
        self.module.seek(shared)
        return shared | own

    def _bind(self, target: ast.expr, bound: _Bound, line: int) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            for item in target.elts:
                self._bind(item, bound, line)
        elif isinstance(target, ast.Starred):
            self._bind(target.value, bound, line)
        elif isinstance(target, ast.Name):
            function = self.module.function_at(line)
            span = (function.lineno, function.end_lineno or function.lineno) if function else _FILE
            self.names.setdefault((span, target.id), _Bound(bound.kind, line, bound.origin, bound.steps + 1))
            self._again.setdefault((span, target.id), set()).add(line)
        elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id in ("self", "cls"):
            key = (self.module.class_span(line), f".{target.attr}")
            self.names.setdefault(key, _Bound(bound.kind, line, bound.origin, bound.steps + 1))

    def _returns(self) -> bool:
        """Functions that return a carrier, and classes of the project that ask CUDA; whether anything was new."""
        before = len(self.functions)
        for span, function in self.module.functions:
            own = _own_name(self.module, function)
            if own not in self.functions:
                bound = self._returned(function, span)
                if bound is not None:
                    self.functions[own] = bound
        for span, node in self.module.classes:
            if node.name not in self.functions and words.names_gpu(node.name):
                asked = self._asked(span)
                if asked is not None:
                    self.functions[node.name] = _Bound("monitor", node.lineno, asked)
        return len(self.functions) > before

    def _asked(self, span: Span, kinds: tuple[Kind, ...] = ()) -> str | None:
        """``path:line`` of the first place between the lines of ``span`` that asks CUDA; ``kinds`` are all where empty."""
        for seed, kind in self.seeds.items():
            if span[0] <= seed.lineno <= span[1] and (not kinds or kind in kinds):
                return f"{self.path}:{seed.lineno}"
        return None

    def _returned(self, function: Function, span: Span) -> _Bound | None:
        if _is_gate(function):
            asked = self._asked(span, ("flag", "count"))
            if asked is not None:
                return _Bound("gate", function.lineno, asked)
        for statement in lookup.statements_in(self.module, function):
            if isinstance(statement, ast.Return) and statement.value is not None:
                bound = self.carried(statement.value, statement.lineno)
                if bound is not None and _may_be_named(statement.value, bound):
                    return _Bound(bound.kind, function.lineno, bound.origin, bound.steps + 1)
        return None

    def _defaults(self) -> None:
        """Functions with a parameter whose default is a literal that names CUDA."""
        wanted = {found.node for found in strings.literals(self.module) if found.rule in ("device-default", "nccl-backend")}
        if not wanted:
            return
        for _span, function in self.module.functions:
            for name, position, value in _defaulted(function):
                if value in wanted or (isinstance(value, ast.Call) and any(item in wanted for item in value.args)):
                    own = _own_name(self.module, function)
                    origin = f"{self.path}:{value.lineno}"
                    self.defaults.setdefault(
                        own, Carrier(name=f"{self.module.name}.{own}", kind="default", origin=origin, parameter=name, position=position)
                    )
                    break

    # -- What is told ----------------------------------------------------------------------------------------------------

    def exports(self) -> tuple[Carrier, ...]:
        """Functions, classes and variables of the whole file."""
        base = self.module.name
        found = [
            Carrier(name=f"{base}.{name}", kind=bound.kind, origin=bound.origin)
            for name, bound in self.functions.items()
            if not name.startswith(".") and name in self._top_level
        ]
        found += [
            Carrier(name=f"{base}.{name}", kind=bound.kind, origin=bound.origin, called=False)
            for (span, name), bound in self.names.items()
            if span == _FILE and not name.startswith(".")
        ]
        return (*found, *(carrier for name, carrier in self.defaults.items() if name in self._top_level))

    @property
    def _top_level(self) -> frozenset[str]:
        body = self.module.tree.body
        return frozenset(item.name for item in body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)))

    def uses(self) -> tuple[Use, ...]:
        """Each line once for each carrier."""
        if not (self.names or self.functions or self.defaults or self.outside):
            return ()
        seen: set[tuple[int, str]] = set()
        found: list[Use] = []
        for use in self._uses():
            key = (use.node.lineno, use.rule)
            if key not in seen:
                seen.add(key)
                found.append(use)
        return tuple(found)

    def _uses(self) -> Iterator[Use]:
        for node in lookup.nodes_on(self.module, self._known()):
            if isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
                yield from self._use(node)
            elif isinstance(node, ast.Call):
                yield from self._relies(node)
            elif isinstance(node, ast.alias):
                yield from self._imported(node)

    def _use(self, node: ast.Name | ast.Attribute) -> Iterator[Use]:
        name = node.id if isinstance(node, ast.Name) else node.attr
        bound = self._variable(name, node.lineno) if isinstance(node, ast.Name) else self._attribute_of_self(node)
        bound = bound or self._callee(node) or self._from_outside(node, called=False)
        if bound is None or (node.lineno <= bound.line and bound.origin.startswith(f"{self.path}:")):
            return
        if bound.kind not in REPORTED and not (words.names_gpu(name) and bound.kind == "monitor"):
            return
        rule = "capability-logic" if bound.kind in ("capability", "name") else "gpu-gate" if bound.kind == "gate" else "carried-value"
        yield Use(node, name, rule, bound.origin)

    def _attribute_of_self(self, node: ast.Attribute) -> _Bound | None:
        if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
            return self.names.get((self.module.class_span(node.lineno), f".{node.attr}"))
        return None

    def _relies(self, node: ast.Call) -> Iterator[Use]:
        """A call that leaves out the argument whose default is CUDA."""
        carrier = self._default_of(node.func)
        if carrier is None or any(keyword.arg in (None, carrier.parameter) for keyword in node.keywords):
            return
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            return
        if carrier.position is None or len(node.args) <= carrier.position:
            yield Use(node, f"{strings.called(node)}({carrier.parameter}=)", "relies-on-default", carrier.origin)

    def _default_of(self, function: ast.expr) -> Carrier | None:
        if isinstance(function, ast.Name) and function.id in self.defaults:
            return self.defaults[function.id]
        if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id in ("self", "cls"):
            return self.defaults.get(f".{function.attr}")
        carrier = self.outside.get(self.module.name_of(function) or "") if self.outside else None
        return carrier if carrier is not None and carrier.kind == "default" else None

    def _imported(self, node: ast.alias) -> Iterator[Use]:
        """An import of a gate or of something of the GPU's name: the line goes where its uses go."""
        name = node.asname or node.name
        qualified = next((meaning for _span, meaning in self.module.bindings.meanings(name, node.lineno)), None)
        carrier = self.outside.get(qualified or "")
        if carrier is not None and (carrier.kind == "gate" or words.names_gpu(node.name)):
            yield Use(node, node.name, "gpu-gate" if carrier.kind == "gate" else "carried-value", carrier.origin)


_FILE: Span = (0, 1 << 60)


def _made_of(node: ast.AST) -> list[ast.expr]:
    """The parts that give an expression its value; empty for forms that make something new."""
    if isinstance(node, ast.BinOp):
        return [node.left, node.right]
    if isinstance(node, ast.BoolOp):
        return node.values
    if isinstance(node, (ast.UnaryOp,)):
        return [node.operand]
    if isinstance(node, ast.Compare):
        return [node.left, *node.comparators]
    if isinstance(node, (ast.Subscript, ast.Starred, ast.Await, ast.NamedExpr)):
        return [node.value]
    if isinstance(node, (ast.Tuple, ast.List)):
        return node.elts
    if isinstance(node, ast.Dict):
        return node.values
    if isinstance(node, ast.JoinedStr):
        return [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
    return []


def _paired(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    """What each part of ``target`` is given: ``a, *b, c = *x, y`` gives ``y`` to ``c``, and to ``a`` and ``b`` what they have of the whole.

    Parts before the first star of either side are told by their place from the left, parts after the last by their place from the right.
    """
    if not (isinstance(target, (ast.Tuple, ast.List)) and isinstance(value, (ast.Tuple, ast.List))):
        yield target, value
        return
    left, right = target.elts, value.elts
    before = min(_plain(left), _plain(right))
    after = 0 if before == len(left) == len(right) else min(_plain(left[::-1]), _plain(right[::-1]))
    for part, given in (*zip(left[:before], right[:before], strict=True), *zip(_last(left, after), _last(right, after), strict=True)):
        yield from _paired(part, given)
    rest = ast.Tuple(right[before : len(right) - after], ast.Load())
    for part in left[before : len(left) - after]:
        yield part, rest


def _plain(parts: list[ast.expr]) -> int:
    """How many stand before the first star."""
    return next((place for place, part in enumerate(parts) if isinstance(part, ast.Starred)), len(parts))


def _last(parts: list[ast.expr], count: int) -> list[ast.expr]:
    return parts[len(parts) - count :]


def _may_be_named(value: ast.expr, bound: _Bound) -> bool:
    """Whether a variable or a function for ``value`` is followed."""
    return bound.kind not in _NEUTRAL and bound.steps < STEPS and _keeps_kind(value, bound.kind)


def _keeps_kind(value: ast.expr, kind: Kind) -> bool:
    """Whether a name for ``value`` still stands for what CUDA said.

    A device chosen by a flag is a device, which is found as such; a number of samples per device is the program's own.
    """
    if kind in ("count", "memory") and isinstance(value, ast.BinOp):
        return False
    if isinstance(value, ast.IfExp) and kind == "flag":
        return all(isinstance(item, ast.Constant) and isinstance(item.value, (bool, int, float)) for item in (value.body, value.orelse))
    return True


def _own_name(module: Module, function: Function) -> str:
    """``name`` of a function of the file, ``.name`` of a method."""
    return f".{function.name}" if isinstance(module.owner.get(function), ast.ClassDef) else function.name


_GATES = frozenset(("skipUnless", "skipIf", "skipif"))


def _is_gate(function: Function) -> bool:
    """Whether the function makes a decorator that skips tests."""
    for statement in function.body[-2:]:
        if isinstance(statement, ast.Return) and isinstance(statement.value, ast.Call):
            inner: ast.expr = statement.value
            while isinstance(inner, ast.Call):
                inner = inner.func
            if isinstance(inner, ast.Attribute) and inner.attr in _GATES:
                return True
    return False


def _defaulted(function: Function) -> Iterator[tuple[str, int | None, ast.expr]]:
    """Name, position among the arguments of a caller, and default of each parameter that has one."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    bound = 1 if positional and positional[0].arg in ("self", "cls") else 0
    first = len(positional) - len(arguments.defaults)
    for index, value in enumerate(arguments.defaults, first):
        yield positional[index].arg, index - bound, value
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if default is not None:
            yield argument.arg, None, default
