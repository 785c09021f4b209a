"""Sailor's profiles (github.com/eth-easl/sailor, MIT; SOSP'25): per-layer seconds and floats, and fitted bandwidth curves.

``profiles_tmp.json``: model -> GPU -> micro-batch -> tensor degree -> layer -> [forward, backward, update] seconds.
``llm_info.json`` beside it: model -> tensor degree -> layer -> floats of weights, of kept activations (micro-batch 1) and of the
output. Everything is fp32. The update is that of the optimizer over a whole stage.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sapper.errors import BadFile
from sapper.files import read_json
from sapper.mix.profiles.links import Curve, MeasuredNetwork, Polynomial
from sapper.mix.profiles.profile import Profile
from sapper.mix.profiles.table import FLOAT_BYTES, Row, Stack, profile_of

OPTIMIZER_BYTES = 12.0
"""Two fp32 Adam moments, and the flat copy of the gradients that DeepSpeed reduces."""
OVERHEAD_BYTES = {"GH-96": 4.76e9}
"""Taken by kernels and libraries on a GPU, as the source states it (runtime_simulator.py, get_memory_footprint_on_gpu)."""
USUAL_OVERHEAD_BYTES = 3.0e9
"""The same of other GPUs (runtime_simulator.py, check_config_fits)."""
LIVE = 1.1
"""Taken over counted bytes of what changes every step: predict's allocator posterior (predict/data/memory_fitted.json)."""
SEQUENCE = {"OPT-350": 2048, "OPT-30": 2048, "GPT-Neo-2.7": 2048, "LLAMA-3-8": 8192}
"""Tokens of the profiled sequence, by model."""
SOURCE = "github.com/eth-easl/sailor@cf2c8e3cc53c sailor/Planner/simulations/profiles_tmp.json"


def read_sailor(path: str | os.PathLike[str], *, model: str, sizes: str | os.PathLike[str] | None = None) -> dict[str, Profile]:
    """The profiles of ``model`` by GPU.

    Args:
        path: ``profiles_tmp.json``.
        model: A key of it, such as ``OPT-350``.
        sizes: ``llm_info.json``; None: beside ``path``.

    Raises:
        BadFile: Unreadable, no such model, or layers that the two files do not agree on.
    """
    timed = _of_model(read_json(path), model, where=os.fspath(path))
    beside = os.path.join(os.path.dirname(os.fspath(path)), "llm_info.json")
    info = _of_model(read_json(sizes or beside), model, where=os.fspath(sizes or beside))
    try:
        return {gpu: _profile(model, gpu, by_size, info) for gpu, by_size in timed.items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile("SP-MIX-058", where=os.fspath(path), model=model, problem=str(error)) from error


def read_sailor_links(
    between: str | os.PathLike[str], inside: str | os.PathLike[str], *, groups: Mapping[str, str], nodes: Mapping[str, int], per_node: int,
    zone: str = "us-central1-a", whole: bool = False,
) -> MeasuredNetwork:
    """The network of groups of GPUs, from ``multizone_bandwidths_het.json`` and ``intra_node_bandwidths.json``.

    Args:
        between: Curves between nodes.
        inside: Curves inside a node.
        groups: Group -> GPU as the files name it.
        nodes: Group -> nodes.
        per_node: GPUs of a node.
        zone: Of all groups.
        whole: Each chip of a tensor parallel group sends the activation whole.

    Raises:
        BadFile: Unreadable, or no curves of such a GPU.
    """
    table, node = read_json(between), read_json(inside)
    try:
        curves: dict[tuple[str, str, int], Curve] = {}
        for source, gpu in groups.items():
            for count, zones in table[zone][gpu].items():
                for target, other in groups.items():
                    found = zones[zone].get(other, {}).get(count)
                    if found is not None:
                        curves[source, target, int(count)] = _curve(found)
        within: dict[tuple[str, int], Curve] = {
            (name, int(count)): _curve(found) for name, gpu in groups.items() for count, found in node[gpu].items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile("SP-MIX-058", where=os.fspath(between), model=zone, problem=str(error)) from error
    return MeasuredNetwork(chips_per_node=dict.fromkeys(groups, per_node), inside=within, between=curves, nodes=nodes, whole=whole)


def _curve(found: Any) -> Polynomial:
    coefficients, most = found
    return Polynomial(coefficients=tuple(float(one) for one in coefficients), most_bytes_per_s=float(most))


def _of_model(table: Any, model: str, *, where: str) -> Mapping[str, Any]:
    if not isinstance(table, dict) or model not in table:
        known = ", ".join(table) if isinstance(table, dict) else "-"
        raise BadFile("SP-MIX-059", where=where, model=model, known=known)
    return dict(table[model])


def _profile(model: str, gpu: str, by_size: Mapping[str, Any], info: Mapping[str, Any]) -> Profile:
    layers = {
        (int(tp), int(size)): found for size, by_tp in by_size.items() for tp, found in by_tp.items()
        if tp in info and len(found) == len(info["1"])
    }  # fmt: skip
    return profile_of(
        model, gpu, measured={(tp, size): _rows(found, info[str(tp)], size=size) for (tp, size), found in layers.items()},
        seq_len=SEQUENCE.get(model, 2048), update_s={tp: float(found["0"][2]) for (tp, _), found in sorted(layers.items(), reverse=True)},
        stack=Stack(optimizer_bytes=OPTIMIZER_BYTES, overhead_bytes=OVERHEAD_BYTES.get(gpu, USUAL_OVERHEAD_BYTES)), source=SOURCE,
    )  # fmt: skip


def _rows(layers: Mapping[str, Any], info: Mapping[str, Any], *, size: int) -> list[Row]:
    found = []
    for layer in range(len(layers)):
        (forward_s, backward_s, _), sizes = layers[str(layer)], info[str(layer)]
        output_bytes = float(sizes["act_output_floats"]) * FLOAT_BYTES
        # the gradient of the logits is as large as they are
        working = output_bytes * size if layer == len(layers) - 1 else 0.0
        kept = float(sizes["act_mem_floats"]) * FLOAT_BYTES * size * LIVE
        found.append(Row(forward_s, backward_s, kept, int(sizes["params_floats"]), output_bytes, working))
    return found
