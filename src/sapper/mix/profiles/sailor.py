"""Sailor's profiles (github.com/eth-easl/sailor, MIT; SOSP'25): per-layer seconds and floats, and fitted bandwidth curves.

``profiles_tmp.json``: model -> GPU -> micro-batch -> tensor degree -> layer -> [forward, backward, update] seconds.
``llm_info.json`` beside it: model -> tensor degree -> layer -> floats of weights, of kept activations (micro-batch 1) and of the
output. Everything is fp32. The update is that of the optimizer over a whole stage.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from sapper.errors import BadFile
from sapper.files import read_json
from sapper.mix.profiles.links import Curve, MeasuredNetwork, Polynomial
from sapper.mix.profiles.profile import HeldBytes, LayerCost, Profile, Timed

FLOAT_BYTES = 4.0
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
    zone: str = "us-central1-a",
) -> MeasuredNetwork:
    """The network of groups of GPUs, from ``multizone_bandwidths_het.json`` and ``intra_node_bandwidths.json``.

    Args:
        between: Curves between nodes.
        inside: Curves inside a node.
        groups: Group -> GPU as the files name it.
        nodes: Group -> nodes.
        per_node: GPUs of a node.
        zone: Of all groups.

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
    return MeasuredNetwork(chips_per_node=dict.fromkeys(groups, per_node), inside=within, between=curves, nodes=nodes)


def _curve(found: Any) -> Polynomial:
    coefficients, most = found
    return Polynomial(coefficients=tuple(float(one) for one in coefficients), most_bytes_per_s=float(most))


def _of_model(table: Any, model: str, *, where: str) -> Mapping[str, Any]:
    if not isinstance(table, dict) or model not in table:
        known = ", ".join(table) if isinstance(table, dict) else "-"
        raise BadFile("SP-MIX-059", where=where, model=model, known=known)
    return dict(table[model])


def _profile(model: str, gpu: str, by_size: Mapping[str, Any], info: Mapping[str, Any]) -> Profile:
    count = len(info["1"])
    measured = [
        (int(tp), int(size), layers) for size, by_tp in by_size.items() for tp, layers in by_tp.items()
        if tp in info and len(layers) == count
    ]  # fmt: skip
    measured.sort(key=lambda one: one[:2])
    degrees = sorted({tp for tp, _, _ in measured})
    kinds = ("embedding", *(f"block {layer}" for layer in range(1, count - 1)), "head")
    output = {kind: float(info["1"][str(layer)]["act_output_floats"]) * FLOAT_BYTES for layer, kind in enumerate(kinds)}
    return Profile(
        model=model, device=gpu, seq_len=SEQUENCE.get(model, 2048), layers=kinds, boundary_bytes=output,
        timed=tuple(_timed(kinds, layers, info[str(tp)], tp=tp, size=size) for tp, size, layers in measured),
        held=tuple(_held(kinds, info[str(tp)], [layers for degree, _, layers in measured if degree == tp], tp=tp) for tp in degrees),
        weight_bytes=FLOAT_BYTES, gradient_bytes=FLOAT_BYTES, optimizer_bytes=OPTIMIZER_BYTES, wire_bytes=FLOAT_BYTES,
        overhead_bytes=OVERHEAD_BYTES.get(gpu, USUAL_OVERHEAD_BYTES), source=SOURCE,
    )


def _timed(kinds: tuple[str, ...], layers: Mapping[str, Any], info: Mapping[str, Any], *, tp: int, size: int) -> Timed:
    found = {}
    for layer, kind in enumerate(kinds):
        forward_s, backward_s, _ = layers[str(layer)]
        kept = float(info[str(layer)]["act_mem_floats"]) * FLOAT_BYTES * size * LIVE
        # the gradient of the logits is as large as they are
        working = float(info[str(layer)]["act_output_floats"]) * FLOAT_BYTES * size if kind == "head" else 0.0
        found[kind] = LayerCost(forward_s=forward_s, backward_s=backward_s, saved_bytes=kept, working_bytes=working)
    return Timed(tp=tp, micro_batch=size, layers=found)


def _held(kinds: tuple[str, ...], info: Mapping[str, Any], measured: Iterable[Mapping[str, Any]], *, tp: int) -> HeldBytes:
    params = {kind: int(info[str(layer)]["params_floats"]) for layer, kind in enumerate(kinds)}
    # the whole model's update is given with every layer; each takes its share by weights
    update_s = max(float(layers["0"][2]) for layers in measured)
    return HeldBytes(tp=tp, params=params, update_s={kind: update_s * count / sum(params.values()) for kind, count in params.items()})
