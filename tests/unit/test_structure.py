"""What the house is built by: layers, sizes, names, and words that do not belong."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import pkgutil
import re
import sys
import types
import typing
from pathlib import Path

import msgspec
import pytest

import sapper
from sapper.evidence import Fact, Interval
from support import ROOT, called, nodes_of, tree_of

SRC = ROOT / "src" / "sapper"
SOURCES = sorted(SRC.rglob("*.py"))

LAYERS = {
    0: {"", "__main__", "units", "errors", "messages", "files", "places", "memory"},
    1: {"chips", "evidence"},
    2: {"workloads", "clusters", "backends", "probe", "programs"},
    3: {"capture", "predict", "port", "prove", "mix"},
    4: {"assess"},
    5: {"cli", "dossier", "web"},
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}
SIDEWAYS = {
    ("chips", "evidence"),  # a catalogue value is a Fact
    ("programs", "workloads"),  # a config of a bundled model
    ("mix", "predict"),  # mix plans with predict
    ("prove", "predict"),  # prove asks predict how fast an op should be
    ("prove", "capture"),  # and counts its work by capture's rules
    ("cli", "dossier"),  # a verb writes the page
    ("web", "dossier"),
}
"""Imports inside a layer, (from, to); inside layer 0 all may."""

MAX_MODULE_LINES = 600
MEDIAN_MODULE_LINES = 200
MAX_FUNCTION_LINES = 60


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT))


def part_of(path: Path) -> str:
    """The part of the package that a file belongs to, such as ``chips`` or ``units``."""
    first = path.relative_to(SRC).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


@functools.cache
def imports_of(path: Path) -> list[tuple[int, str]]:
    """Line and absolute name of every import, at any depth, ``importlib.import_module("...")`` included."""
    package = ["sapper", *path.relative_to(SRC).parts[:-1]]
    found: list[tuple[int, str]] = []
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            found += [(node.lineno, f"{module}.{alias.name}" if module == "sapper" else module) for alias in node.names]
        elif isinstance(node, ast.Call) and called(node) == "import_module":
            found += [(node.lineno, str(argument.value)) for argument in node.args[:1] if isinstance(argument, ast.Constant)]
    return found


def test_every_part_has_a_layer() -> None:
    assert {part_of(path) for path in SOURCES} - set(LAYER_OF) == set()


def test_imports_point_downward() -> None:
    faults = []
    for path in SOURCES:
        own = part_of(path)
        if own == "__main__":
            continue
        for line, name in imports_of(path):
            if not name.startswith("sapper."):
                continue
            other = name.split(".")[1]
            if other == "__version__" or other == own:
                continue
            above = LAYER_OF[other] > LAYER_OF[own]
            beside = LAYER_OF[other] == LAYER_OF[own] != 0 and (own, other) not in SIDEWAYS
            if above or beside:
                faults.append(f"{shown(path)}:{line}: {own} (layer {LAYER_OF[own]}) imports {other} (layer {LAYER_OF[other]})")
    assert faults == []


OUTSIDE = {
    "torch": {"backends", "capture", "mix", "port", "probe", "programs", "prove"},  # port: only the dry run, in the user's own processes
    "transformers": {"capture", "programs"},
    "matplotlib": {"dossier"},
}
"""Packages that the base install lacks, and the parts that may import them."""


def test_what_the_base_install_lacks_is_imported_only_where_it_may_be() -> None:
    faults = []
    for path in SOURCES:
        for line, name in imports_of(path):
            package = name.split(".")[0]
            if package in OUTSIDE and part_of(path) not in OUTSIDE[package]:
                faults.append(f"{shown(path)}:{line}: imports {package}")
    assert faults == []


def test_no_module_is_too_long() -> None:
    lengths = {shown(path): len(path.read_text("utf-8").splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > MAX_MODULE_LINES} == {}
    ordered = sorted(length for length in lengths.values() if length > 5)
    assert ordered[len(ordered) // 2] < MEDIAN_MODULE_LINES


def functions_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in nodes_of(path) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_no_function_is_too_long() -> None:
    faults = [
        f"{shown(path)}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines"
        for path in SOURCES
        for node in functions_of(path)
        if node.end_lineno and node.end_lineno - node.lineno + 1 >= MAX_FUNCTION_LINES
    ]
    assert faults == []


def swappable(node: ast.stmt) -> bool:
    """Whether a caller could exchange two positional arguments, or loses count of them, without the type checker noticing."""
    assert isinstance(node, ast.FunctionDef)
    arguments = [*node.args.posonlyargs, *node.args.args]
    types_ = [ast.unparse(argument.annotation) if argument.annotation else "" for argument in arguments]
    return len(arguments) > 4 or (len(arguments) > 2 and len(set(types_)) < len(types_))


ONE_SIGNATURE = {
    "capture/attention.py": "the arguments of torch.nn.functional.scaled_dot_product_attention",
    "prove/change/functions.py": "the arguments of the functions of torch.nn.functional in whose place they stand",
    "predict/collectives.py": "every collective takes (size, inner, outer, fabric), as the table at the top of the file says",
    "predict/shapes.py": "M, N, K in the order of BLAS",
    "port/dryrun/inside/vendor_ops.py": "the arguments of the vendor's operators in whose place they stand",
}
"""Modules whose functions share one well-known order of arguments."""


def test_public_functions_take_what_follows_the_second_argument_by_keyword() -> None:
    """Unless each argument is of a type of its own, so that an exchange cannot pass unseen."""
    faults = []
    for path in SOURCES:
        if path.relative_to(SRC).as_posix() in ONE_SIGNATURE:
            continue
        for node in tree_of(path).body:
            public = isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not node.decorator_list
            if public and swappable(node):
                faults.append(f"{shown(path)}:{node.lineno} {node.name}({ast.unparse(node.args)})")
    assert faults == []


def test_sources_are_ascii() -> None:
    faults = []
    for path in SOURCES:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if not line.isascii():
                faults.append(f"{shown(path)}:{number}: {line.strip()}")
    # A docstring that shows a message file has to show its Chinese.
    assert [fault for fault in faults if not fault.startswith("src/sapper/messages/__init__.py")] == []


def test_every_module_begins_alike() -> None:
    faults = []
    for path in SOURCES:
        tree = tree_of(path)
        if not ast.get_docstring(tree):
            faults.append(f"{shown(path)}: no docstring")
        if len(tree.body) > 1 and "from __future__ import annotations" not in path.read_text("utf-8"):
            faults.append(f"{shown(path)}: no `from __future__ import annotations`")
    assert faults == []


SUFFIXES = (
    "_s", "_bytes", "_flops", "_flops_per_s", "_bytes_per_s", "_tokens_per_s", "_per_s", "_w", "_j", "_hz", "_mm2",
    "_cny", "_usd", "_eur", "_cny_per_h", "_usd_per_h", "_cny_per_j", "_usd_per_j",
    "_rad", "_share", "_fraction", "_ratio", "_log", "_ulp",
)  # fmt: skip
EXACT = ("flops", "flops_full", "bytes", "share", "fraction", "ratio", "domain_size", "hidden_size", "node_size")
"""A name may be the unit itself; the sizes are counts of chips and of units."""

DIMENSIONLESS = {
    # values whose unit stands in the field `unit` beside them, or in the Fact's own where it varies (money per joule)
    "value", "values", "limit", "best_value", "low", "mid", "high", "by_devices", "amount", "measured", "predicted", "power_price",
    "fact", "extra", "most", "least", "before", "after",
    # shares of one, ratios, signed errors, deviations of a logarithm
    "level", "pue", "fraction_best", "fraction_range", "efficiency", "efficiency_fact", "p2p", "oversubscription", "factor", "headroom",
    "busy", "filled", "gain", "gap",
    "width", "width_now", "width_then", "error", "bias", "coverage", "mean_abs", "mean_abs_all", "median_abs", "max_abs", "sd", "weight",
    "probability", "slower", "optimism", "error_before", "error_after", "width_before", "width_after",
    "ratio", "error_l2", "error_max", "allowed_l2", "allowed_max",
    # of a training: losses, step sizes, lengths of gradients, factors between distances
    "loss", "loss_truth", "loss_peer", "loss_allowed", "lr", "clip", "gradient_norm", "gradient_norm_truth", "factors",
    # changed lines for each finding of a group
    "rates",
    # shapes and counts that the catalogue keeps as facts, and counts that exceed a machine's integers
    "compute_units", "transistors", "params_b", "steps", "tokens", "batch", "micro_batch", "input_len", "output_len", "rounds",
    # processes that want to run
    "load",
    # calendar years
    "year", "stack_year", "cut_year", "from_year", "to_year",
    # measures that a regulation defines
    "tpp", "density",
    # places on a page
    "mark", "pieces", "whisker", "scale",
}  # fmt: skip
"""Real numbers and facts without a unit, by what they are."""

PHYSICAL = re.compile(
    r"(?:^|_)(?:bandwidth|memory|capacity|power|energy|time|latency|duration|size|rate|price|cost|peak|speed|flops|bytes)(?:_|$)"
)
"""An integer is a count, a degree or a shape, unless its name says otherwise."""

TEXT_FACTS = {"release", "process", "text", "relative_claims"}
"""Facts that hold words."""


def structs() -> list[type[msgspec.Struct]]:
    """All schemas of the package."""
    for module in pkgutil.walk_packages(sapper.__path__, "sapper."):
        if module.name != "sapper.__main__":
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                assert (error.name or "").split(".")[0] in OUTSIDE, error
    found: list[type[msgspec.Struct]] = []
    stack = [msgspec.Struct]
    while stack:
        subs = [sub for sub in stack.pop().__subclasses__() if sub.__module__.startswith("sapper.")]
        found += subs
        stack += subs
    return found


def field_types(struct: type[msgspec.Struct]) -> list[tuple[str, object]]:
    """Fields with their types; one whose type is imported for checking only is no number and left out."""
    scope = vars(sys.modules[struct.__module__])
    found = []
    for name, text in struct.__annotations__.items():
        with contextlib.suppress(NameError):
            found.append((name, eval(text, dict(scope)) if isinstance(text, str) else text))
    return found


def kinds_in(type_: object) -> set[object]:
    """The plain types inside a type: of ``dict[str, Fact] | None`` Fact and None."""
    origin = typing.get_origin(type_)
    arguments = typing.get_args(type_)
    if origin is typing.Literal:
        return set()
    if origin is dict:
        return kinds_in(arguments[1])
    if origin in (list, tuple, set, frozenset, typing.Union, types.UnionType) or origin is not None:
        return {kind for argument in arguments for kind in kinds_in(argument)}
    return {type_}


def numeric_fields() -> list[tuple[str, str]]:
    found = []
    for struct in structs():
        for name, type_ in field_types(struct):
            kinds = kinds_in(type_)
            if struct is Interval:
                continue
            real = float in kinds or (int in kinds and PHYSICAL.search(name))
            if (real and str not in kinds) or (Fact in kinds and name not in TEXT_FACTS):
                found.append((f"{struct.__module__}.{struct.__name__}", name.rstrip("_")))
    return found


def test_every_number_of_a_schema_says_its_unit() -> None:
    faults = [
        f"{owner}.{name}"
        for owner, name in numeric_fields()
        if not name.endswith(SUFFIXES) and name not in EXACT and name not in DIMENSIONLESS
    ]
    assert sorted(faults) == []


@pytest.mark.torch
def test_the_list_of_unitless_names_has_no_dead_entries() -> None:
    """With the schemas of all modules, also those that import PyTorch."""
    names = {name for _, name in numeric_fields()}
    assert DIMENSIONLESS - names == set()


PATTERNS = (
    "src/**/*.py", "src/**/*.j2", "src/**/*.html", "src/sapper/messages/data/*.toml", "tests/**/*.py", "scripts/*", "examples/*",
    "docs/**/*.md", "benchmarks/*", "*.md", "Makefile", "pyproject.toml", ".ci/run",
)  # fmt: skip
TEXTS = [path for pattern in PATTERNS for path in ROOT.glob(pattern) if path.is_file() and "__pycache__" not in path.parts]
FORBIDDEN = {
    "a path of somebody's machine": r"(?<![\w.])/(?:work|root|home|Users|tmp)/\w",
    "a registry's host": r"py" + r"pi\.org|pythonhost" + r"ed|npm" + r"js\.org|--(?:extra-)?index" + r"-url",
    "unfinished work": r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|raise NotImplemented" + r"Error(?!\()",
    "a blanket excuse": r"pragma: no" + r" cover|# type: ign" + r"ore(?!\[)|# no" + r"qa(?!:)",
}


SOURCES_OF_VERDICTS = re.compile(r"port-rules(\.zh)?\.md")
"""Generated from tables that cite the page on which a thing was read, a package's own among them."""


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_word_that_does_not_belong(what: str) -> None:
    faults = []
    for path in TEXTS:
        if what == "a registry's host" and SOURCES_OF_VERDICTS.fullmatch(path.name):
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            if re.search(FORBIDDEN[what], line):
                faults.append(f"{shown(path)}:{number}: {line.strip()[:120]}")
    assert faults == []


def test_pytorch_is_no_dependency() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = [*project["dependencies"], *(item for items in project["optional-dependencies"].values() for item in items)]
    assert [item for item in named if re.match(r"torch|transformers|tensorflow|jax", item)] == []
    assert len(project["dependencies"]) <= 6
