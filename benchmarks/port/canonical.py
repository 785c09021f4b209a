"""Statements in a form in which two rewrites of one line are equal where only taste differs.

Folded: which accessor stands for the device's type (``DEVICE``), for a function of ``torch.cuda`` (``ACCELERATOR.x``), for the
backend of collectives (``BACKEND``); old and new names of one function; positional and keyword arguments of autocast.
Not folded: what is asked, where it stands, what surrounds it. ``torch.cuda`` and ``"cuda"`` themselves are never folded, so
a line that was left is not equal to one that was rewritten.
"""

from __future__ import annotations

import ast
import re

DEVICE, ACCELERATOR, BACKEND, INDEX = "DEVICE", "ACCELERATOR", "BACKEND", "INDEX"

_DEVICE_NAMES = re.compile(
    r"_?(?:get_|infer_|current_)*(?:torch_|accel(?:erator)?_|current_|default_|target_|local_)?(?:device|accelerator|DEVICE)"
    r"(?:_name|_type|_TYPE|_str|_string)?"
)
"""Variables, attributes and functions that people call the device by."""
_MODULE_NAMES = re.compile(
    r"(?:get_|torch_|current_)*(?:device|accelerator|backend|platform)(?:_module|_namespace|_api)?|accelerator|sapper_device"
    r"|torch_accelerator_module|DEVICE_MODULE"
)
_BACKEND_NAMES = re.compile(
    r"(?:get_)?(?:nccl|dist|distributed|collective|communication|default|comm)?_?backend(?:_name|_for_device)?|DISTRIBUTED_BACKEND"
)
_INDEX_NAMES = re.compile(r"get_device_id|get_current_device_index|get_device_index|current_device_index|current_device_idx")
_MEMBERS = frozenset(
    [
        "is_available", "device_count", "current_device", "set_device", "synchronize", "empty_cache", "memory_allocated",
        "max_memory_allocated", "memory_reserved", "max_memory_reserved", "reset_peak_memory_stats", "memory_stats",
        "mem_get_info", "get_device_name", "get_device_properties", "get_device_capability", "manual_seed", "manual_seed_all",
        "get_rng_state", "set_rng_state", "get_rng_state_all", "set_rng_state_all", "Stream", "Event", "stream", "current_stream",
        "default_stream", "is_bf16_supported", "ipc_collect", "memory_summary", "set_stream", "OutOfMemoryError", "utilization",
        "range_push", "range_pop", "memory", "FloatTensor", "IntTensor", "LongTensor", "HalfTensor", "ByteTensor",
        "BFloat16Tensor", "DoubleTensor", "random_seed", "is_initialized", "total_memory",
    ]
)  # fmt: skip
_SAME_MEMBER = {
    "current_device_index": "current_device", "current_device_idx": "current_device", "set_device_index": "set_device",
    "set_device_idx": "set_device", "memory_cached": "memory_reserved", "max_memory_cached": "max_memory_reserved",
    "reset_max_memory_allocated": "reset_peak_memory_stats", "reset_max_memory_cached": "reset_peak_memory_stats",
    "manual_seed_all": "manual_seed", "get_memory_info": "mem_get_info",
}  # fmt: skip
_FUNCTIONS = {
    "get_device_count": "device_count", "device_count": "device_count", "backend_device_count": "device_count",
    "backend_empty_cache": "empty_cache", "backend_synchronize": "synchronize", "backend_manual_seed": "manual_seed",
    "backend_max_memory_allocated": "max_memory_allocated", "backend_reset_peak_memory_stats": "reset_peak_memory_stats",
    "backend_memory_allocated": "memory_allocated", "torch_accelerator_available": "is_available",
    "is_accelerator_available": "is_available",
    "empty_cache": "empty_cache", "synchronize": "synchronize", "clear_device_cache": "empty_cache",
}  # fmt: skip
"""Helper functions that people wrote or imported for one function of the module."""
_AUTOCAST = {"autocast", "torch.autocast", "amp.autocast", "torch.amp.autocast", "torch.amp.autocast_mode.autocast"}
_SCALER = {"GradScaler", "torch.GradScaler", "amp.GradScaler", "torch.amp.GradScaler", "torch.amp.grad_scaler.GradScaler"}
_WORDS = re.compile(r"cuda|gpu|accel(?:erator)?|npu|xpu|hardware", re.IGNORECASE)
_DTYPES = {
    "FloatTensor": "float32", "DoubleTensor": "float64", "HalfTensor": "float16", "BFloat16Tensor": "bfloat16", "ByteTensor": "uint8",
    "IntTensor": "int32", "LongTensor": "int64",
}  # fmt: skip


def canonical(node: ast.AST, *, names: bool = True) -> str:
    """The folded form of a statement or of a compound statement's head.

    Args:
        node: What :func:`units` gives.
        names: Whether ``use_cuda`` and ``use_accel`` are one name too.
    """
    copy = ast.parse(ast.unparse(node))
    folded: ast.AST = _Fold().visit(copy)
    for _ in range(2):  # what was folded inside lets more be folded around it
        folded = _Fold().visit(folded)
    if names:
        folded = _Names().visit(folded)
    return ast.dump(folded)


class _Fold(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in (DEVICE, ACCELERATOR, BACKEND, INDEX):
            return node
        if isinstance(node.ctx, ast.Load) and node.id == "backend":
            return _name(BACKEND)
        if node.id == "DEVICE_TYPE" or (isinstance(node.ctx, ast.Load) and _DEVICE_NAMES.fullmatch(node.id)):
            return _name(DEVICE)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.ctx, ast.Load) and re.fullmatch(
            r"[\w.()]*(?:accelerator|state|State\(\))\.device(?:\.type)?", ast.unparse(node)
        ):
            return _name(DEVICE)
        node.attr = _SAME_MEMBER.get(node.attr, node.attr)
        if node.attr in _MEMBERS and _is_module(node.value):
            return ast.Attribute(_name(ACCELERATOR), node.attr, node.ctx)
        self.generic_visit(node)
        if not isinstance(node.ctx, ast.Load):
            return node
        if node.attr in ("type", "index") and _is(node.value, DEVICE):
            return _name(DEVICE if node.attr == "type" else INDEX)
        text = ast.unparse(node)
        if re.fullmatch(r"(?:self|cls)\.\w+", text) and _DEVICE_NAMES.fullmatch(node.attr):
            return _name(DEVICE)
        if node.attr in ("device_name", "device_type", "current_device_name", "communication_backend_name") and _is_module(node.value):
            return _name(BACKEND if "backend" in node.attr else DEVICE)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        function = ast.unparse(node.func)
        last = function.split(".")[-1]
        if folded := self._accessor(node, function, last):
            return folded
        self.generic_visit(node)
        if _is(node.func, DEVICE) or (_is(node.func, BACKEND) and not node.args):
            return self._at(node.args[0]) if node.args and _is(node.func, DEVICE) else node.func
        if function in _AUTOCAST:
            return _autocast(node)
        if function in _SCALER:
            arguments = [*node.args, *(word.value for word in node.keywords if word.arg == "device")]
            return ast.Call(_name("GradScaler"), arguments, [word for word in node.keywords if word.arg != "device"])
        if function in ("torch.device", "str") and node.args:
            return self._device(node)
        return self._method(node, last)

    def _accessor(self, node: ast.Call, function: str, last: str) -> ast.AST | None:
        if last in _FUNCTIONS and ("." not in function or _is_module(_base(node.func))):
            rest = [item for item in node.args if not _DEVICE_NAMES.fullmatch(ast.unparse(item).split(".")[-1])]
            return ast.Call(ast.Attribute(_name(ACCELERATOR), _FUNCTIONS[last], ast.Load()), rest, node.keywords)
        if last in ("get_default_backend_for_device",) or (_BACKEND_NAMES.fullmatch(last) and not node.args):
            return _name(BACKEND)
        if _INDEX_NAMES.fullmatch(last) or (last == "current_device" and _is_module(_base(node.func))):
            return _name(INDEX)
        if last in ("get_torch_device", "get_device_module", "get_torch_device_namespace") and not node.args:
            return _name(ACCELERATOR)
        if last == "current_accelerator" or (last in ("device_type", "device_name", "torch_device") and _is_module(_base(node.func))):
            return self._at(node.args[0]) if node.args else _name(DEVICE)
        if _DEVICE_NAMES.fullmatch(last) and function == last and not node.keywords:
            return self._at(node.args[0]) if node.args else _name(DEVICE)
        if last == "on_accelerator" or function == "sapper_device.is_accelerator":
            return ast.Compare(ast.Attribute(self.visit(node.args[0]), "on", ast.Load()), [ast.NotEq()], [ast.Constant("cpu")])
        return None

    def _at(self, index: ast.expr) -> ast.AST:
        """Device number ``index``; the current one and the first one are the device itself."""
        index = self.visit(index)
        if _is(index, INDEX) or (isinstance(index, ast.Constant) and index.value in (0, None)):
            return _name(DEVICE)
        return ast.Call(_name("DEVICE_AT"), [index], [])

    def _device(self, node: ast.Call) -> ast.AST:
        first = node.args[0]
        if _is(first, DEVICE):
            return self._at(node.args[1]) if len(node.args) > 1 else first
        if _is(first, INDEX):
            return _name(DEVICE)
        return first if isinstance(first, ast.Call) and _is(first.func, "DEVICE_AT") else node

    def _method(self, node: ast.Call, last: str) -> ast.AST:
        """``.to(device=x)`` is ``.to(x)``, and the index of the current device there is the device."""
        if last == "to":
            node.args += [word.value for word in node.keywords if word.arg == "device"]
            node.keywords = [word for word in node.keywords if word.arg != "device"]
            node.args = [_name(DEVICE) if _is(item, INDEX) else item for item in node.args]
        for word in node.keywords:
            if word.arg in ("device", "device_id", "map_location") and _is(word.value, INDEX):
                word.value = _name(DEVICE)
        if isinstance(node.func, ast.Attribute) and _is(node.func.value, ACCELERATOR):
            node.args = [item for item in node.args if not _is(item, DEVICE)]
            node.keywords = [word for word in node.keywords if not _is(word.value, DEVICE)]
            return _typed(node)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        self.generic_visit(node)
        values = node.values
        if values and isinstance(values[0], ast.FormattedValue) and _is(values[0].value, DEVICE):
            if len(values) == 2 and isinstance(values[1], ast.Constant) and values[1].value in (":0", ""):
                return _name(DEVICE)
            if len(values) == 3 and isinstance(values[2], ast.FormattedValue) and ast.unparse(ast.Constant(values[1].value)) == "':'":  # type: ignore[attr-defined]
                return self._at(values[2].value)
            if len(values) == 1:
                return _name(DEVICE)
        return node

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        """A choice between the device and the CPU by whether there is one."""
        self.generic_visit(node)
        test = ast.unparse(node.test)
        if (
            test == f"{ACCELERATOR}.is_available()"
            and _is(node.body, DEVICE)
            and ast.unparse(node.orelse) in ("'cpu'", "torch.device('cpu')")
        ):
            return _name(DEVICE)
        return node


class _Names(ast.NodeTransformer):
    """Identifiers that say CUDA, GPU or accelerator say device."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id not in (DEVICE, ACCELERATOR, BACKEND, INDEX, "DEVICE_AT"):
            node.id = _WORDS.sub("device", node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if ast.unparse(node.value) != "torch" and node.attr != "is_cuda":
            node.attr = _WORDS.sub("device", node.attr)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = _WORDS.sub("device", node.arg)
        return node

    def visit_keyword(self, node: ast.keyword) -> ast.AST:
        self.generic_visit(node)
        node.arg = _WORDS.sub("device", node.arg) if node.arg else None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.name = _WORDS.sub("device", node.name)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.generic_visit(node)
        node.name = _WORDS.sub("device", node.name)
        return node


def _name(name: str) -> ast.Name:
    return ast.Name(name, ast.Load())


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _base(node: ast.AST) -> ast.AST:
    return node.value if isinstance(node, ast.Attribute) else node


def _is_module(node: ast.AST) -> bool:
    """Whether an expression stands for the module of the device: ``get_accelerator()``, ``device_module``, ``torch.accelerator``."""
    if _is(node, ACCELERATOR):
        return True
    text = ast.unparse(node)
    if text.startswith("torch.cuda"):
        return False
    last = text.removesuffix("()").split("(")[0].split(".")[-1]
    return bool(_MODULE_NAMES.fullmatch(last)) and (isinstance(node, (ast.Name, ast.Call)) or text.startswith(("torch.", "self.")))


def _autocast(node: ast.Call) -> ast.Call:
    """The device's type first, everything else by keyword."""
    words = {word.arg: word.value for word in node.keywords}
    if "device_type" in words:
        node.args.insert(0, words.pop("device_type"))
    rest = [ast.keyword(name, value) for name, value in sorted(words.items(), key=lambda item: str(item[0]))]
    for name, value in zip(("dtype", "enabled", "cache_enabled"), node.args[1:], strict=False):
        rest.append(ast.keyword(name, value))
    return ast.Call(_name("autocast"), node.args[:1], sorted(rest, key=lambda word: str(word.arg)))


def _typed(node: ast.Call) -> ast.Call:
    """``ACCELERATOR.FloatTensor([x])`` is a tensor of that type on the device."""
    assert isinstance(node.func, ast.Attribute)
    dtype = _DTYPES.get(node.func.attr)
    if dtype is None:
        return node
    words = [ast.keyword("dtype", ast.Attribute(_name("torch"), dtype, ast.Load())), ast.keyword("device", _name(DEVICE))]
    return ast.Call(ast.Attribute(_name("torch"), "tensor", ast.Load()), node.args, words)


def tied(node: ast.AST) -> bool:
    """Whether a statement names CUDA where code means it: an API, a method, a device, NCCL, a decorator of tests."""
    return any(map(_ties, ast.walk(node)))


def _ties(node: ast.AST) -> bool:
    if isinstance(node, ast.Attribute):
        text = ast.unparse(node)
        return text.startswith("torch.cuda") or node.attr == "is_cuda"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.attr == "cuda"
    if isinstance(node, ast.Name):
        return bool(re.fullmatch(r"require_(?:torch_)?(?:multi_|single_)?(?:gpus?|cuda)", node.id))
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and bool(re.fullmatch(r"cuda(?::.*)?|nccl|torch\.cuda\..*", node.value))
    )


_NEUTRAL = (DEVICE, ACCELERATOR, BACKEND, INDEX, "DEVICE_AT", "GradScaler", "autocast")


def neutral(form: str) -> bool:
    """Whether a canonical form names the device, its module or its backend in a neutral way."""
    compares = "'cpu'" in form and ("Eq()" in form or "In()" in form)
    return compares or "require_" in form or any(f"'{name}'" in form for name in _NEUTRAL)


def units(tree: ast.Module) -> list[ast.AST]:
    """Statements in the order of the file, without imports; of compound ones only what their head says."""
    found: list[ast.AST] = []
    _collect(tree.body, found)
    return found


def _collect(body: list[ast.stmt], found: list[ast.AST]) -> None:
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.Pass)):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        head, blocks = _parts(node)
        found.append(head)
        for block in blocks:
            _collect(block, found)


def _parts(node: ast.stmt) -> tuple[ast.AST, list[list[ast.stmt]]]:
    blocks = [value for _name, value in ast.iter_fields(node) if isinstance(value, list) and value and isinstance(value[0], ast.stmt)]
    blocks += [handler.body for handler in getattr(node, "handlers", [])]
    blocks += [case.body for case in getattr(node, "cases", [])]
    if not blocks:
        return node, []
    fields = {name: value for name, value in ast.iter_fields(node) if name not in ("orelse", "finalbody", "handlers", "cases")}
    head = type(node)(**{**fields, "body": [ast.Pass()]}) if "body" in fields else node
    for name in ("orelse", "finalbody", "handlers"):
        if hasattr(node, name):
            setattr(head, name, [])
    if isinstance(node, (ast.Try, ast.Match)):
        head = ast.Pass()
    return ast.copy_location(ast.fix_missing_locations(head), node), blocks
