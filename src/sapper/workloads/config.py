"""The loader: a ``config.json``, a folder that holds one, or a bundled name becomes a Model."""

from __future__ import annotations

import difflib
import functools
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sapper import files
from sapper.errors import BadFile, UnknownName
from sapper.workloads import captured
from sapper.workloads.families import registry
from sapper.workloads.fields import Fields
from sapper.workloads.model import Model

BUNDLED = Path(__file__).parent / "bundled"

_QUANTISED = {"fp8": "fp8", "fbgemm_fp8": "fp8", "mxfp4": "fp4", "nvfp4": "fp4"}
_MODELOPT = {
    "FP8": "fp8",
    "NVFP4": "fp4",
    "W4A16_AWQ": "int4",
    "W4A8_AWQ": "int4",
    "INT4_AWQ": "int4",
    "W8A8_SQ_PER_CHANNEL": "int8",
    "INT8_SQ": "int8",
}
_PROGRAM = re.compile(r".+\.py(:\w*)?")
"""A builder as `capture` and `prove` take it, or its file."""
_METHODS = (*_QUANTISED, "gptq", "awq", "bitsandbytes", "compressed-tensors", "modelopt")


def load(source: str | os.PathLike[str]) -> Model:
    """The model that ``source`` describes; its ``origin`` says which of the three it was.

    Args:
        source: A ``config.json`` file, a folder holding one, the name of a bundled model (in any case), or a Workload file
            that ``sapper capture`` wrote.

    Raises:
        UnknownName: No such file, folder or bundled model; carries near names.
        BadFile: Malformed, an architecture that we do not know, or a field that is missing, unknown or cannot be.
    """
    text = os.fspath(source)
    key = normal(text)
    if key in bundled() and not os.path.exists(text):
        path = bundled()[key]
        model = from_config(files.read_json(path), name=path.stem, where=f"{path.stem} (bundled)", source=f"bundled:{path.stem}")
        return replace(model, origin="bundled")
    path = Path(text)
    if os.path.isdir(text):
        path = path / "config.json"
        if not path.exists():
            raise BadFile("SP-MODEL-016", where=text)
    elif _PROGRAM.fullmatch(text) or not (os.path.exists(text) or text.endswith(".json")):
        raise unknown(text)
    raw = read_config(path)
    if captured.is_captured(raw):
        return captured.as_model(captured.check(raw, str(path)), source=str(path))
    name = path.resolve().parent.name if path.name == "config.json" else path.stem
    return from_config(raw, name=name or path.stem, where=str(path), source=str(path))


_NOT_JSON = re.compile(r"(?<=[\[:,\s])(?:-?Infinity|NaN)(?=\s*[,\]}])")
"""Python writes infinities into JSON, and published configs have them in fields that nothing here depends on."""


def read_config(path: Path, *, not_json: str = "null") -> Any:
    """The parsed ``config.json`` at ``path``, with ``not_json`` (a template of :func:`re.sub`) in place of infinities.

    Raises:
        BadFile: As :func:`sapper.files.read_json`.
    """
    return files.parse_json(_NOT_JSON.sub(not_json, files.read_text(path)), os.fspath(path))


def from_config(raw: Any, *, name: str, where: str, source: str = "") -> Model:
    """The model of a parsed config.

    Args:
        raw: What the JSON file holds.
        name: The model's name.
        where: What to name in errors.
        source: What the model says it was read from.

    Raises:
        BadFile: As :func:`load`.
    """
    if not isinstance(raw, Mapping):
        raise BadFile("SP-MODEL-003", where=where, expected="object", value=files.type_name(raw))
    raw = dict(raw)
    dtype = _weights_dtype(raw.pop("quantization_config", None), where)
    kind = raw.get("model_type")
    families = registry()
    if not isinstance(kind, str) or kind not in families:
        shown = kind if isinstance(kind, str) else _architecture(raw)
        raise BadFile("SP-MODEL-001", where=where, kind=shown or "-", near=near(shown, families), known=", ".join(sorted(families)))
    fields = Fields(raw, where=where, name=name)
    model = families[kind](fields)
    fields.finish()
    return replace(
        model, notes=(*model.notes, *(n for n in fields.notes if n not in model.notes)), weights_dtype=dtype, source=source
    )


def normal(name: str) -> str:
    """A model's name as bundled names are compared: lower case, without the owner, ``_`` and blanks read as ``-``."""
    return name.strip().lower().replace("_", "-").replace(" ", "-").rpartition("/")[2]


@functools.cache
def bundled() -> dict[str, Path]:
    """Bundled models: normal name -> config file."""
    return {normal(path.stem): path for path in sorted(BUNDLED.glob("*.json"))}


def unknown(text: str) -> UnknownName:
    """The error of a name that no bundled model bears: that of a program says how it becomes a model here."""
    shown = "".join(c if c.isprintable() else "?" for c in text)[:120]
    if _PROGRAM.fullmatch(text):
        return UnknownName("SP-MODEL-023", name=shown, builder=shown if ":" in shown else f"{shown}:BUILDER")
    names = near(normal(text), [path.stem for path in bundled().values()])
    return UnknownName("SP-MODEL-022" if names == "-" else "SP-MODEL-010", name=shown, near=names)


def near(name: str, known: Iterable[str]) -> str:
    """Names of ``known`` that look like ``name``, as a message lists them."""
    found = difflib.get_close_matches(name, sorted(known), 4, cutoff=0.5)
    return ", ".join(f"`{n}`" for n in found) or "-"


def _architecture(raw: Mapping[str, Any]) -> str:
    names = raw.get("architectures")
    return str(names[0])[:80] if isinstance(names, list) and names else ""


def _weights_dtype(table: Any, where: str) -> str | None:
    """Dtype of quantised weights; params are counted as those of the unquantised model."""
    if table is None:
        return None
    method = table.get("quant_method") if isinstance(table, Mapping) else None
    if not isinstance(table, Mapping) or not (isinstance(method, str) or table.get("config_groups")):
        raise _unquantised(where, "quant_method", method, _METHODS)
    if isinstance(method, str) and method in _QUANTISED:
        return _QUANTISED[method]
    if method == "bitsandbytes":
        return "int4" if table.get("load_in_4bit") is True else "int8"
    if method in ("gptq", "awq"):
        bits = table.get("bits", 4)
        if bits not in (4, 8) or isinstance(bits, bool):
            raise _unquantised(where, "bits", bits, ("4", "8"))
        return f"int{bits}"
    if method == "modelopt" and isinstance(table.get("quant_algo"), str) and table["quant_algo"] in _MODELOPT:
        return _MODELOPT[table["quant_algo"]]
    if method in (None, "compressed-tensors", "modelopt"):
        return _grouped(table, where)
    raise _unquantised(where, "quant_method", method, _METHODS)


def _grouped(table: Mapping[str, Any], where: str) -> str:
    groups = table.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    if isinstance(weights, Mapping):
        kind, bits = weights.get("type"), weights.get("num_bits")
        found = {"float8": "fp8", "float4": "fp4", "int8": "int8", "int4": "int4"}.get(f"{kind}{bits}")
        if found:
            return found
    raise _unquantised(where, "config_groups", weights, ("float 8", "float 4", "int 8", "int 4"))


def _unquantised(where: str, key: str, value: Any, known: tuple[str, ...]) -> BadFile:
    return BadFile("SP-MODEL-017", where=f"{where}: quantization_config.{key}", method=str(value)[:60], known=", ".join(known))
