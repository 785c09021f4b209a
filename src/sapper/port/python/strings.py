"""String literals that name CUDA, judged by where they flow.

A literal ``"cuda"`` is a device because of what takes it (``device=``, ``torch.device(``, ``.to(``, a comparison, a
default), not because of its text: the same letters in a log line, a docstring or a file name are prose. What decides is
the first holder above the literal that is not a mere form of it (an f-string, a sum, a conditional, a list).
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from sapper.port.python import lookup, memo, words

if TYPE_CHECKING:
    from sapper.port.python.module import Module

_DEVICE = re.compile(r"cuda(?::(?:\d+|\{\w*\}|%[dis]|\*)?)?", re.I)
_NCCL = re.compile(r"(?:\w+:\w+,)*(?:cuda:)?nccl(?:,\w+:\w+)*", re.I)
_NCCL_ENVIRONMENT = re.compile(r"(?:TORCH_)?NCCL_[A-Z0-9_]+|TORCH_NCCL\w*|NCCL_[A-Z0-9_]+=.*")
_VISIBLE = re.compile(r"\s*CUDA_VISIBLE_DEVICES(?:=.*)?|NVIDIA_VISIBLE_DEVICES(?:=.*)?", re.S)
_CUDA_ENVIRONMENT = re.compile(r"\s*(?:PYTORCH_|TORCH_|FORCE_|[A-Z]+_)*(?:CUDA|CUDNN|CUBLAS|NVTE|NVIDIA|NVTX)_?[A-Z0-9_]*(?:=.*)?", re.S)
_API = re.compile(r"torch\.cuda(?:\.\w+)*|torch\.backends\.cudnn(?:\.\w+)*|torch\.backends\.cuda(?:\.\w+)*")
_TYPED = re.compile(r"torch\.cuda\.(?:sparse\.)?\w+Tensor")
_IDENTIFIER = re.compile(r"-{0,2}[A-Za-z_][A-Za-z0-9_-]*")
_OPTION = re.compile(r"(?:^|\s)(?:--?[\w.-]*device[\w.-]*[= ]|[\w.]*device=)[\"']?cuda\b|--backend[= ]nccl\b")
_COMMAND = re.compile(r"\s*(?:nvidia-smi|nvcc|cuobjdump|ncu|nsys)(?:\s.*)?|(?:.*/)?(?:bin/)?(?:nvcc|ptxas)", re.S)
_COMPILER_FLAG = re.compile(
    r"-[DUlL]\S*(?:CUDA|cudart|cublas|cudnn|nccl|nvrtc)\S*|--expt-\w+-\w+|-?-?gencode\b.*|arch=compute_\S*|--use_fast_math"
)
_KERNEL_SOURCE = re.compile(r"\S*\.cuh?")
_OUT_OF_MEMORY = re.compile(r".*(?:CUDA|CUDNN|cuDNN|CUBLAS|NCCL)\b.*", re.S)
_KERNEL_TEXT = re.compile(r"__global__|__device__\s|cudaStream_t|#include\s*<cuda")
_CHIP = re.compile(
    r"(?:NVIDIA[ -]?)?(?:Tesla |GeForce )?"
    r"(?:[AHB][128]00[A-Za-z]?|H20|GB[23]00|GH200|L40S|A10G|V100|P100|RTX ?[A-Z]?\d+.*|GeForce.*|Tesla.*)(?:[ -].{0,24})?"
)

PROSE_KEYWORDS = frozenset(
    ("help", "reason", "msg", "message", "description", "match", "desc", "title", "label", "doc", "prog", "epilog", "metavar", "text",
     "comment", "placeholder", "info", "url", "filename", "path", "caption", "author", "license", "long_description", "classifiers")
)  # fmt: skip
_PROSE_CALLS = frozenset(
    ("print", "debug", "info", "warning", "warn", "error", "exception", "critical", "log", "echo", "secho", "write", "skip", "fail",
     "exit", "xfail", "input", "Path", "join", "abspath", "dirname", "basename", "exists", "isdir", "isfile", "open", "glob", "rglob",
     "iglob", "fullmatch", "search", "findall", "sub", "Markdown", "HTML", "deprecated", "rmtree", "mkdir", "title", "xlabel", "ylabel",
     "ArgumentParser", "add_argument_group", "range_push", "nvtx_range", "annotate", "record_function", "mark", "range", "_warn")
)  # fmt: skip
_PROSE_ENDS = ("Error", "Exception", "Warning", "Exit", "_log", "_warn", "_rank_0", "_rank", "_once", "_warning", "_info")
_CONTEXTS = frozenset(("autocast", "GradScaler", "custom_fwd", "custom_bwd"))
_MESHES = frozenset(("init_device_mesh", "DeviceMesh", "_init_device_mesh", "from_group"))
_DISPATCH = frozenset(("impl", "custom_op", "register_kernel", "triton_op", "register_fake", "register_autocast", "Library"))
_LOADERS = frozenset(("map_location", "to_device"))
_GETTERS = frozenset(("get", "pop", "setdefault", "getenv", "env", "get_env"))
_NAMING = frozenset(("getattr", "hasattr", "setattr", "delattr", "patch", "object", "import_module", "__import__", "find_spec"))
_OPTIONS = frozenset(("add_argument", "option", "Option", "Argument", "field", "Field", "DEFINE_string", "DEFINE_enum", "HfArg", "Choice"))
_FORMS = frozenset(("format", "upper", "lower", "strip", "capitalize", "encode"))
_COMPARING = frozenset(("startswith", "endswith", "find", "count", "index", "replace", "removeprefix", "partition", "split", "__eq__"))


class Flow(NamedTuple):
    """Where a literal goes: the kind of sink, and what takes it."""

    sink: str
    """``prose``, ``device``, ``compare``, ``default``, ``key``, ``map_location``, ``context``, ``mesh``, ``dispatch``,
    ``name`` (of an attribute or module), ``index`` (of a table), ``loose``."""
    callee: str = ""
    keyword: str = ""


class Literal(NamedTuple):
    """A literal that a rule counts."""

    node: ast.expr
    text: str
    rule: str
    """Name of the rule, such as ``device-string``."""


PROSE = Flow("prose")


@memo.per_module
def literals(module: Module) -> tuple[Literal, ...]:
    """The literals of the file that name CUDA where it matters, in the order of the file."""
    return tuple(_found(module))


@memo.per_module
def literals_by_rule(module: Module) -> dict[str, list[Literal]]:
    """The same by the names of the rules that count them."""
    found: dict[str, list[Literal]] = {}
    for one in literals(module):
        found.setdefault(one.rule, []).append(one)
    return found


def _found(module: Module) -> Iterator[Literal]:
    said = [(node, node.value) for node in lookup.candidates(module, ast.Constant) if isinstance(node.value, str) and node.value]
    whole: list[tuple[ast.expr, str]] = [(node, text) for node, text in said if not _inside_text(module, node)]
    whole += [(node, _spelled(node)) for node in lookup.candidates(module, ast.JoinedStr)]
    for node, text in whole:
        name = _rule_of(module, node, text)
        if name is not None:
            yield Literal(node, text if len(text) < 60 else text[:57] + "...", name)


def _inside_text(module: Module, node: ast.Constant) -> bool:
    """Whether the constant is a piece of an f-string, which is judged as a whole."""
    return isinstance(module.parent(node), ast.JoinedStr)


def _spelled(node: ast.JoinedStr) -> str:
    """An f-string with ``{}`` for what is filled in."""
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)


def _rule_of(module: Module, node: ast.expr, text: str) -> str | None:
    """The name of the rule that counts the literal ``text`` at ``node``; None where it is prose or names no CUDA."""
    if len(text) > 400:
        return "kernel-in-string" if _KERNEL_TEXT.search(text) and not _is_docstring(module, node) else None
    judge = _judge_of(text)
    return judge(flow(module, node), text) if judge is not None else None


def _is_docstring(module: Module, node: ast.expr) -> bool:
    return isinstance(module.parent(node), ast.Expr)


Judge = Callable[[Flow, str], "str | None"]
"""From where a literal goes, and its text, to the name of its rule; None where it is none's."""

# -- From sink to rule ---------------------------------------------------------------------------------------------------

_DEVICE_RULES = {
    "device": "device-string",
    "compare": "device-comparison",
    "default": "device-default",
    "key": "cuda-key",
    "index": "cuda-key",
    "map_location": "map-location",
    "context": "autocast-device",
    "mesh": "device-mesh",
    "dispatch": "dispatch-key",
    "name": "cuda-by-name",
    "loose": "device-string",
}


def _device(to: Flow, text: str) -> str | None:
    if to.sink == "default" and text.startswith("-"):
        return "cuda-named"
    return _DEVICE_RULES.get(to.sink)


def _nccl(to: Flow, _text: str) -> str | None:
    if to.sink == "prose":
        return None
    return "nccl-comparison" if to.sink == "compare" else "nccl-backend"


def _unless_prose(name: str) -> Judge:
    return lambda to, _text: None if to.sink == "prose" else name


def _identifier(to: Flow, text: str) -> str | None:
    """Words of code in quotes: keys of checkpoints, options of the command line, names for ``getattr``."""
    if to.sink == "prose" or not words.names_cuda(text.lstrip("-").replace("-", "_")):
        return None
    if to.sink in ("key", "index"):
        return "cuda-key"
    return "cuda-by-name" if to.sink == "name" else "cuda-named"


def _error(to: Flow, _text: str) -> str | None:
    return "error-by-text" if to.sink == "compare" else None


def _source(to: Flow, _text: str) -> str | None:
    """A file of CUDA that the build takes or looks for; one that is printed or compared is prose."""
    return "kernel-source" if to.sink not in ("prose", "compare") or to.callee in ("glob", "join") else None


def _chip(to: Flow, _text: str) -> str | None:
    return "chip-name" if to.sink in ("compare", "key", "index") else None


_JUDGES: tuple[tuple[re.Pattern[str], Judge], ...] = (
    (_DEVICE, _device),
    (_NCCL, _nccl),
    (_VISIBLE, _unless_prose("visible-devices")),
    (_NCCL_ENVIRONMENT, _unless_prose("nccl-environment")),
    (_CUDA_ENVIRONMENT, _unless_prose("cuda-environment")),
    (_TYPED, _unless_prose("typed-tensor")),
    (_API, _unless_prose("cuda-by-name")),
    (_COMMAND, _unless_prose("nvidia-tool")),
    (_KERNEL_SOURCE, _source),
    (_CHIP, _chip),
    (_COMPILER_FLAG, _unless_prose("nvidia-tool")),
    (_IDENTIFIER, _identifier),
)


@functools.lru_cache(maxsize=1 << 14)
def _judge_of(text: str) -> Judge | None:
    """What decides about the literal ``text``; projects say the same ones over and over."""
    for pattern, judge in _JUDGES:
        if pattern.fullmatch(text):
            return judge
    if _KERNEL_TEXT.search(text):
        return _unless_prose("kernel-in-string")
    if _OPTION.search(text):
        return _unless_prose("device-string")
    return _error if _OUT_OF_MEMORY.fullmatch(text) else None


# -- Where a literal goes ------------------------------------------------------------------------------------------------


def flow(module: Module, node: ast.expr) -> Flow:
    """Where the value of ``node`` goes."""
    at: ast.AST = node
    while True:
        above = module.parent(at)
        if above is None:
            return Flow("loose")
        if isinstance(above, ast.Attribute) and above.attr in _FORMS:
            at = module.parent(above) or above  # "cuda:{}".format(...)
            continue
        found = _taken(module, at, above)
        if found is not None:
            return found
        at = above


def _taken(module: Module, at: ast.AST, above: ast.AST) -> Flow | None:
    """What ``above`` makes of ``at``; None where it hands it on."""
    if isinstance(above, ast.Call):
        return _argument(module, at, above)
    if isinstance(above, ast.keyword):
        return _keyword(module, above)
    if isinstance(above, (ast.Compare, ast.MatchValue)):
        return Flow("compare")
    if isinstance(above, ast.Subscript):
        return Flow("index") if above.slice is at else None
    if isinstance(above, ast.Dict):
        return _entry(module, at, above)
    if isinstance(above, ast.arguments):
        return Flow("default")
    if isinstance(above, ast.Assert):
        return PROSE if above.msg is at else Flow("compare")
    if isinstance(above, ast.stmt):
        return _statement(module, above)
    return None


def _statement(module: Module, above: ast.stmt) -> Flow:
    if isinstance(above, ast.Expr):
        return PROSE
    if isinstance(above, (ast.Assign, ast.AnnAssign)):
        targets = above.targets if isinstance(above, ast.Assign) else [above.target]
        names = [item.id if isinstance(item, ast.Name) else item.attr if isinstance(item, ast.Attribute) else "" for item in targets]
        if any(name.startswith("__") or _PROSE_NAME.search(name) for name in names):
            return PROSE
        return Flow("default") if isinstance(module.owner.get(above), ast.ClassDef) else Flow("device")
    return Flow("device")


_PROSE_NAME = re.compile(
    r"(?:^|_)(?:message|msg|doc|docs|help|title|description|desc|prompt|error|label|readme|text|url|path|file|filename)s?$", re.I
)


def _entry(module: Module, at: ast.AST, above: ast.Dict) -> Flow | None:
    if at in above.keys:
        holder = module.parent(above)
        return PROSE if isinstance(holder, ast.keyword) and holder.arg in PROSE_KEYWORDS else Flow("key")
    key = above.keys[above.values.index(at)] if at in above.values else None
    name = key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else ""
    if name in PROSE_KEYWORDS or name in ("name", "zh", "en"):
        return PROSE
    return Flow("map_location", keyword=name) if name in _LOADERS else Flow("device", keyword=name)


def _keyword(module: Module, above: ast.keyword) -> Flow | None:
    call = module.parent(above)
    callee = called(call) if isinstance(call, ast.Call) else ""
    name = above.arg or ""
    if name in PROSE_KEYWORDS or (name == "name" and callee not in ("get_device", "device")):
        return PROSE
    if name in _LOADERS:
        return Flow("map_location", callee, name)
    if callee in _CONTEXTS:
        return Flow("context", callee, name)
    if callee in _MESHES or name in ("device_mesh", "mesh_device_type"):
        return Flow("mesh", callee, name)
    if callee in _DISPATCH:
        return Flow("dispatch", callee, name)
    if callee in _OPTIONS or name in ("choices", "default", "default_value"):
        return Flow("default", callee, name)
    return Flow("device", callee, name)


def _argument(module: Module, at: ast.AST, above: ast.Call) -> Flow | None:
    callee = called(above)
    position = next((index for index, item in enumerate(above.args) if item is at), None)
    if position is None:
        return None if above.func is at else Flow("device", callee)
    if callee in _COMPARING or callee.startswith("assert"):
        return PROSE if position >= 2 or (callee in ("assertTrue", "assertFalse") and position) else Flow("compare", callee)
    if callee in _PROSE_CALLS or callee.endswith(_PROSE_ENDS) or (callee in ("skipIf", "skipUnless") and position == 1):
        return PROSE
    if callee in _CONTEXTS:
        return Flow("context", callee)
    if callee in _MESHES:
        return Flow("mesh", callee)
    if callee in _DISPATCH and position:
        return Flow("dispatch", callee)
    if callee in _OPTIONS:
        return Flow("default", callee)
    if callee in _NAMING:
        return Flow("default" if callee == "getattr" and position == 2 else "name", callee)
    if callee in _GETTERS:
        return Flow("default" if position else "index", callee)
    if callee == "load" and position == 1 and module.name_of(above.func) == "torch.load":
        return Flow("map_location", callee)
    return Flow("device", callee)


def called(call: ast.Call) -> str:
    """The last part of what is called: ``to`` of ``x.to(...)``; empty where it has no name."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
