"""Varuna's profiles as Sailor's port of it has them: layer -> micro-batch -> seconds and bytes, a file for each tensor degree.

Files ``profile_N.json`` of one folder; ``mem_required`` is weights, gradients and activations of the layer while it computes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from sapper.errors import BadFile
from sapper.files import read_json
from sapper.mix.profiles.profile import Profile
from sapper.mix.profiles.table import FLOAT_BYTES, Row, profile_of

NAME = re.compile(r"profile_(\d+)\.json")


def read_varuna(path: str | os.PathLike[str], *, model: str = "", seq_len: int = 2048) -> dict[str, Profile]:
    """The profile of a folder, under the folder's name as the device.

    Raises:
        BadFile: No file ``profile_N.json``, or one that is malformed.
    """
    folder = os.path.abspath(os.fspath(path))
    names = sorted(filter(NAME.fullmatch, os.listdir(folder))) if os.path.isdir(folder) else []
    if not names:
        raise BadFile("SP-MIX-061", where=os.fspath(path), names="profile_N.json")
    measured: dict[tuple[int, int], list[Row]] = {}
    device = os.path.basename(folder)
    try:
        for name in names:
            tp = int(name.removeprefix("profile_").removesuffix(".json"))
            layers = read_json(os.path.join(folder, name))
            for size in layers["0"]:
                if all(size in layers[str(layer)] for layer in range(len(layers))):
                    measured[tp, int(size)] = [_row(layers[str(layer)][size], size=int(size)) for layer in range(len(layers))]
        # the format has no time of the optimizer: what it costs is left out
        source = f"Varuna profile {device}"
        return {device: profile_of(model or device, device, measured=measured, seq_len=seq_len, update_s={}, source=source)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadFile("SP-MIX-058", where=os.fspath(path), model=model or "-", problem=str(error)) from error


def _row(cost: Mapping[str, Any], *, size: int) -> Row:
    weights = float(cost["params_bytes"])
    saved = max(float(cost["mem_required"]) - weights, 0.0)
    return Row(float(cost["forward"]), float(cost["backward"]), saved, int(weights / FLOAT_BYTES), float(cost["output_activation"]) / size)
