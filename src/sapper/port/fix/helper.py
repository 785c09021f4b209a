"""The project's own device helper: functions and variables that already say which device there is, for more than CUDA.

They are known by what they give back, not by their names: the device's type, its module, its index, the backend of
collectives; or an object with methods for all of it. One counts only if it looks at two vendors or at PyTorch's own
``torch.accelerator``: a helper that knows only CUDA has to be ported like everything else.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sapper.port.fix.change import Expression, Need
from sapper.port.fix.policy import Accelerator
from sapper.port.fix.rewrite.vendors import VENDORS

Role = Literal["type", "module", "index", "backend", "device", "object"]

_BACKENDS = frozenset({"nccl", "hccl", "mccl", "cncl", "xccl", "ccl", "gloo", "rccl", "eccl", "bkcl"})
_TYPES = (VENDORS | {"cuda", "cpu", "meta"}) - _BACKENDS
_LIKE_CUDA = frozenset(
    {"synchronize", "current_device", "device_count", "empty_cache", "memory_allocated", "set_device", "is_available", "manual_seed"}
)
_MIN_METHODS = 4
"""Members that a class has in common with ``torch.cuda`` if it stands for it."""
_NEUTRAL = ("_get_available_device_type", "get_device_module", "_get_device_module", "current_accelerator", "torch.accelerator")


@dataclass(frozen=True)
class Found:
    """One helper. ``call`` is whether its name is called."""

    role: Role
    module: str
    name: str
    call: bool

    @property
    def text(self) -> str:
        """The expression."""
        return f"{self.name}()" if self.call else self.name


@dataclass
class Helpers:
    """Those of a project, the one that most of its files use per role."""

    by_role: dict[Role, Found] = field(default_factory=dict)
    members: frozenset[str] = frozenset()
    """Members of the ``object``, where there is one."""
    files: frozenset[str] = frozenset()
    """Where they are defined; nothing is rewritten there."""

    def __bool__(self) -> bool:
        return any(role in self.by_role for role in ("type", "module", "object"))


def helpers(trees: Mapping[str, ast.Module], modules: Mapping[str, str]) -> Helpers:
    """The helpers of a project.

    Args:
        trees: Syntax by path.
        modules: Name under which the project imports each file, by path.
    """
    candidates: list[tuple[str, Found]] = []
    members: set[str] = set()
    for path, tree in trees.items():
        if _is_test(path):
            continue
        found = list(_in_module(tree, modules[path]))
        candidates += [(path, one) for one in found]
    classes, like = _classes(trees)
    members |= like
    if members:
        candidates += [(path, one) for path, tree in trees.items() if not _is_test(path) for one in _objects(tree, modules[path], classes)]
    uses = _uses(trees.values())
    best: dict[Role, tuple[int, str, Found]] = {}
    for path, one in candidates:
        module, count = _import_path(one, uses)
        named = Found(one.role, module, one.name, one.call)
        if one.role not in best or count > best[one.role][0]:
            best[one.role] = (count, path, named)
    return Helpers(
        {role: one for role, (_n, _p, one) in best.items()}, frozenset(members), frozenset(path for _n, path, _o in best.values())
    )


def _is_test(path: str) -> bool:
    return any(part.startswith(("test", "conftest")) for part in path.split("/"))


def _uses(trees: Iterable[ast.Module]) -> Counter[tuple[str, str]]:
    """How often files import a name from a module, by absolute name."""
    return Counter(
        (node.module or "", alias.name)
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level == 0
        for alias in node.names
    )


def _import_path(one: Found, uses: Counter[tuple[str, str]]) -> tuple[str, int]:
    """The module that most files import a helper from: its own, or a package above it that passes it on."""
    package = one.module.split(".")[0]
    paths = {module: count for (module, name), count in uses.items() if name == one.name and module.split(".")[0] == package}
    own = {module: count for module, count in paths.items() if one.module == module or one.module.startswith(f"{module}.")}
    return max(own.items(), key=lambda item: (item[1], item[0])) if own else (one.module, 0)


# -- What a function gives back ------------------------------------------------------------------------------------------


def _in_module(tree: ast.Module, module: str) -> Iterator[Found]:
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    kinds: dict[str, list[Role | None]] = {}
    neutral = {name for name, node in functions.items() if _is_neutral(node)}
    grown = True
    while grown:  # a helper that asks another one is as neutral as that one
        calling = {name for name, node in functions.items() if name not in neutral and _calls(node) & neutral}
        grown = bool(calling)
        neutral |= calling
    for name, node in functions.items():
        kinds[name] = _results(node, kinds)
    for name in functions:
        role = kinds[name][0] if len(kinds[name]) == 1 else None
        if name in neutral and role and not name.startswith("_") and not _needs_arguments(functions[name]):
            yield Found(role, module, name, call=True)
    yield from _variables(tree, module, kinds, neutral)


def _variables(tree: ast.Module, module: str, kinds: dict[str, list[Role | None]], neutral: set[str]) -> Iterator[Found]:
    """``device_type, device_module = get_device_info()`` at the top of a module."""
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call) or not isinstance(node.value.func, ast.Name):
            continue
        called = node.value.func.id
        target = node.targets[0]
        names = target.elts if isinstance(target, ast.Tuple) else [target]
        if called in neutral and len(names) == len(kinds.get(called, [])):
            for name, role in zip(names, kinds[called], strict=True):
                if isinstance(name, ast.Name) and role and not name.id.startswith("_"):
                    yield Found(role, module, name.id, call=False)


def _results(function: ast.FunctionDef, known: dict[str, list[Role | None]]) -> list[Role | None]:
    """Role of each value that a function returns; of a tuple one each; [None] where its returns disagree."""
    assigned: dict[str, list[ast.expr]] = {}
    returned: list[ast.expr] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    assigned.setdefault(target.id, []).append(node.value)
        elif isinstance(node, ast.Return) and node.value is not None:
            returned.append(node.value)
    if len(returned) == 1 and isinstance(returned[0], ast.Tuple):
        return [_agreed([item], assigned, known) for item in returned[0].elts]
    return [_agreed(returned, assigned, known)]


def _agreed(values: list[ast.expr], assigned: dict[str, list[ast.expr]], known: dict[str, list[Role | None]]) -> Role | None:
    roles = {role for value in values for role in _roles(value, assigned, known, depth=0) if role != "none"}
    return roles.pop() if len(roles) == 1 else None  # type: ignore[return-value]


def _roles(value: ast.expr, assigned: dict[str, list[ast.expr]], known: dict[str, list[Role | None]], depth: int) -> set[str]:
    if depth > 4:
        return {"other"}
    if isinstance(value, ast.Name) and value.id in assigned:
        return {role for item in assigned[value.id] for role in _roles(item, assigned, known, depth + 1)}
    if isinstance(value, ast.IfExp):
        return _roles(value.body, assigned, known, depth + 1) | _roles(value.orelse, assigned, known, depth + 1)
    if isinstance(value, ast.Constant):
        if value.value is None:
            return {"none"}
        return {"type"} if value.value in _TYPES else {"backend"} if value.value in _BACKENDS else {"other"}
    if isinstance(value, ast.Attribute):
        if ast.unparse(value) in {f"torch.{name}" for name in _TYPES}:
            return {"module"}
        return {"type"} if value.attr == "type" else {"other"}
    if isinstance(value, ast.Call):
        return _called(value, known)
    return {"other"}


def _called(value: ast.Call, known: dict[str, list[Role | None]]) -> set[str]:
    name = ast.unparse(value.func)
    last = name.split(".")[-1]
    if name == "getattr" and value.args and ast.unparse(value.args[0]) == "torch":
        return {"module"}
    if last in ("get_device_module", "_get_device_module"):
        return {"module"}
    if last == "_get_available_device_type":
        return {"type"}
    if last in ("current_device", "current_device_index"):
        return {"index"}
    if name == "torch.device" or last == "current_accelerator":
        return {"device"}
    if name in known and len(known[name]) == 1:
        return {known[name][0] or "other"}
    return {"other"}


def _is_neutral(node: ast.AST) -> bool:
    """Whether code looks at two vendors, or at what PyTorch has for all of them."""
    text = ast.unparse(node)
    if any(word in text for word in _NEUTRAL):
        return True
    words = {item.value for item in ast.walk(node) if isinstance(item, ast.Constant) and isinstance(item.value, str)}
    words |= {part for item in ast.walk(node) if isinstance(item, ast.Attribute) for part in (item.attr,)}
    words |= {part for item in ast.walk(node) if isinstance(item, ast.Name) for part in item.id.lower().split("_")}
    words |= {part for item in ast.walk(node) if isinstance(item, ast.Attribute) for part in item.attr.lower().split("_")}
    return len(words & (_TYPES - {"cpu", "meta"})) >= 2


def _calls(node: ast.AST) -> set[str]:
    return {item.func.id for item in ast.walk(node) if isinstance(item, ast.Call) and isinstance(item.func, ast.Name)}


def _needs_arguments(node: ast.FunctionDef) -> bool:
    arguments = node.args
    positional = len(arguments.posonlyargs) + len(arguments.args)
    return positional > len(arguments.defaults) or any(default is None for default in arguments.kw_defaults)


# -- Objects that stand for the device ------------------------------------------------------------------------------------


def _classes(trees: Mapping[str, ast.Module]) -> tuple[set[str], set[str]]:
    """Names of classes that are like ``torch.cuda``, and the members that all of them have."""
    names: set[str] = set()
    members: list[set[str]] = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not _is_test(path):
                own = {item.name for item in node.body if isinstance(item, ast.FunctionDef)}
                if len(own & _LIKE_CUDA) >= _MIN_METHODS:
                    names.add(node.name)
                    members.append(own)
    if len(names) < 2:  # a wrapper around one device is no choice between several
        return set(), set()
    return names, set.intersection(*members)


def _objects(tree: ast.Module, module: str, classes: set[str]) -> Iterator[Found]:
    """Functions that give such an object: by annotation, or by a name that says so in the module that imports the classes."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or _needs_arguments(node) or node.name.startswith("_"):
            continue
        annotation = ast.unparse(node.returns).split(".")[-1].strip("'\"") if node.returns else ""
        mentioned = {item.id for item in ast.walk(node) if isinstance(item, ast.Name)} & classes
        if (
            annotation in classes
            or (node.name.startswith("get_accelerator") and not annotation)
            or (mentioned and "accelerator" in node.name)
        ):
            yield Found("object", module, node.name, call=True)


# -- The policy ------------------------------------------------------------------------------------------------------------


class ProjectHelper:
    """The project's own helper, and ``torch.accelerator`` for what it lacks."""

    falls_to_cpu = False

    def __init__(self, found: Helpers, rest: Accelerator) -> None:
        self._found = found.by_role
        self._members = found.members
        self.answers = found.members if "object" in found.by_role else frozenset()
        self._rest = rest

    def device_type(self) -> Expression:
        """The helper's name of the device."""
        if "type" in self._found:
            return self._of("type")
        if "object" in self._found:
            name = next((name for name in ("device_name", "device_type", "name") if name in self._members), None)
            if name:
                return self._of("object", f".{name}()")
        return self._rest.device_type()

    def member(self, name: str) -> Expression | None:
        """The member of the helper's module or object."""
        if name == "current_device" and "index" in self._found:
            bare = self._found["index"]
            return Expression(bare.name if bare.call else f"(lambda: {bare.name})", _needs(bare))
        if "object" in self._found and name in self._members:
            return self._of("object", f".{name}")
        if "module" in self._found:
            return self._of("module", f".{name}")
        return self._rest.member(name)

    def module(self) -> Expression:
        """The helper's module."""
        role: Role = "module" if "module" in self._found else "object"
        return self._of(role) if role in self._found else self._rest.module()

    def backend(self) -> Expression | None:
        """The helper's backend, else PyTorch's for the helper's device."""
        if "backend" in self._found:
            return self._of("backend")
        if "communication_backend_name" in self._members and "object" in self._found:
            return self._of("object", ".communication_backend_name()")
        device = self.device_type()
        torch = Need("import torch", "torch")
        return Expression(f"torch.distributed.get_default_backend_for_device({device.text})", (torch, *device.needs), (2, 6))

    def on_accelerator(self) -> Expression | None:
        """The object's, where it has one."""
        return self._of("object", ".on_accelerator") if "on_accelerator" in self._members and "object" in self._found else None

    def current(self, *, as_device: bool) -> Expression:
        """The helper's index, else its module's, else the device's name."""
        if "index" in self._found:
            return self._of("index")
        if "module" in self._found:
            return self._of("module", ".current_device()")
        if "object" in self._found and "current_device" in self._members:
            return self._of("object", ".current_device()")
        return self.device_type() if as_device and "type" in self._found else self._rest.current(as_device=as_device)

    def _of(self, role: Role, rest: str = "") -> Expression:
        found = self._found[role]
        return Expression(f"{found.text}{rest}", _needs(found))


def _needs(found: Found) -> tuple[Need, ...]:
    return (Need(f"from {found.module} import {found.name}", found.name),)
