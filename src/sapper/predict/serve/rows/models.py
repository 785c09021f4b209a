"""The model of an inference row: by its name, with the row's dims where it states them."""

from __future__ import annotations

import functools
import json
import math
from typing import Any

import msgspec

from sapper.errors import MissingFact
from sapper.predict.rows.models import MOST_OFF, config_of
from sapper.predict.rows.row import Model as Named
from sapper.predict.rows.row import RowFault
from sapper.workloads.config import from_config
from sapper.workloads.dims import from_dims
from sapper.workloads.model import Model
from sapper.workloads.names import meaning

_SIZES = ("layers", "hidden", "heads")


def model_of(named: Named) -> Model:
    """The model that a row names.

    A name that means a bundled model is that model; what the row says of its architecture (``dense`` for every model, in
    some files) is not heard then. Other rows need their dims.

    Raises:
        RowFault: A dim that is missing, or params that contradict the row's.
        SapperError: Dims that make no model.
    """
    found = _model(json.dumps(_dims(named), sort_keys=True), named)
    stated = named.params_b
    if stated is not None and abs(math.log(found.params / (stated * 1e9))) > math.log(MOST_OFF):
        values = {"name": named.name, "found": f"{found.params / 1e9:.3g}", "stated": f"{stated:g}"}
        raise RowFault("SP-ROW-022", "model.params_b", **values)
    return found


def _dims(named: Named) -> dict[str, Any]:
    dims = {name: value for name, value in msgspec.to_builtins(named).items() if value is not None and name != "seq_len"}
    if meaning(named.name).exact:
        # Dims of a source are copies of the config at best: those that name a width of their own (padded vocabularies) stay.
        dims = {name: value for name, value in dims.items() if name in ("name", "layers", "hidden", "heads", "kv_heads", "ffn")}
    elif dims.get("arch") not in ("dense", "moe", "moe-mla"):
        dims.pop("arch", None)
    return dims


@functools.lru_cache(maxsize=1024)
def _model(dims: str, named: Named) -> Model:
    try:
        return from_dims(json.loads(dims), name=named.name)
    except MissingFact as missing:
        needed = set(str(missing.values["fields"]).split(", "))
        if all(getattr(named, name) for name in _SIZES) and not needed & {"experts", "topk"}:
            config, _ = config_of(named, attention="flash")
            return from_config(config, name=named.name, where=f"model {named.name}")
        first = str(missing.values["fields"]).split(", ")[0]
        raise RowFault("SP-ROW-001", f"model.{first}") from missing
