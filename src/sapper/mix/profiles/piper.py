"""Piper's profiles (NeurIPS'21; github.com/msr-fiddle/piper) as its inputs are: a graph of layers for each micro-batch.

micro-batch -> ``nodes`` in order, each with ``TMPCs``: tensor degree -> ways to run it, of which the first is taken (``vanilla``).
``timePerSample`` is forward and backward of a micro-batch in seconds, ``memoryUsageA`` what is kept for each one in flight and
``memoryUsageB`` what is held once, in bytes. ``edges`` carry the bytes of one sequence between layers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from sapper.errors import BadFile
from sapper.files import read_json
from sapper.mix.profiles.profile import Profile
from sapper.mix.profiles.table import FLOAT_BYTES, FORWARD_SHARE, Row, profile_of


def read_piper(path: str | os.PathLike[str], *, model: str = "", seq_len: int = 2048) -> dict[str, Profile]:
    """The profile of a file, under the name of its folder as the device.

    Raises:
        BadFile: Unreadable or malformed.
    """
    where = os.fspath(path)
    device = os.path.basename(os.path.dirname(os.path.abspath(where)))
    try:
        measured = {}
        for size, graph in read_json(where).items():
            nodes = sorted(graph["nodes"], key=lambda node: int(node["id"]))
            leaves = {int(edge["sourceId"]): float(edge["communicationCost"]) for edge in graph["edges"]}
            degrees = set.intersection(*(set(node["TMPCs"]) for node in nodes))
            for tp in degrees:
                measured[int(tp), int(size)] = [_row(node["TMPCs"][tp][0], leaves.get(int(node["id"]), 0.0)) for node in nodes]
        source = f"Piper profile {device}"
        return {device: profile_of(model or device, device, measured=measured, seq_len=seq_len, update_s={}, source=source)}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BadFile("SP-MIX-058", where=where, model=model or "-", problem=str(error)) from error


def _row(way: Mapping[str, Any], output_bytes: float) -> Row:
    both_s = float(way["timePerSample"])
    params = int(float(way["parameterSize"]) / FLOAT_BYTES)
    return Row(FORWARD_SHARE * both_s, (1.0 - FORWARD_SHARE) * both_s, float(way["memoryUsageA"]), params, output_bytes)
