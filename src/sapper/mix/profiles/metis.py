"""Metis' profiles (github.com/SamsungLabs/Metis, USENIX ATC'24): a folder of JSON files, one for each shape.

Names are ``DeviceType.A100_tp1_bs2.json``, and ``mbs2_tmp1.json`` in a folder of the device in Sailor's port. Times of a layer are
forward and backward together, in ms; the memory of a layer, in MB, holds its weights and states too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from sapper.errors import BadFile
from sapper.files import read_json
from sapper.mix.profiles.profile import Profile
from sapper.mix.profiles.table import FLOAT_BYTES, FORWARD_SHARE, Row, profile_of

NAMES = (
    re.compile(r"DeviceType\.(?P<device>.+)_tp(?P<tp>\d+)_bs(?P<size>\d+)\.json"),
    re.compile(r"mbs(?P<size>\d+)_tmp(?P<tp>\d+)\.json"),
)
STATES = 4.0
"""Of the bytes of its weights: they, their gradients and two Adam moments, all as wide."""
SEQUENCE = 1024
"""Tokens of a sequence, which the files do not say (Metis' GPT)."""


def read_metis(path: str | os.PathLike[str], *, model: str = "", seq_len: int = SEQUENCE) -> dict[str, Profile]:
    """The profiles of a folder by device.

    Args:
        path: The folder; without devices in its files' names it is the device's own.
        model: As it is to be called; empty: as the files call it.
        seq_len: Tokens of a sequence.

    Raises:
        BadFile: No file of such a name, or one that is malformed.
    """
    folder = os.fspath(path)
    by_device: dict[str, dict[tuple[int, int], Mapping[str, Any]]] = {}
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise BadFile("SP-MIX-061", where=folder, names="DeviceType.NAME_tpN_bsN.json, mbsN_tmpN.json") from error
    for name in names:
        match = next((found for pattern in NAMES if (found := pattern.fullmatch(name))), None)
        if match:
            device = match.groupdict().get("device") or os.path.basename(os.path.abspath(folder))
            by_device.setdefault(device, {})[int(match["tp"]), int(match["size"])] = read_json(os.path.join(folder, name))
    if not by_device:
        raise BadFile("SP-MIX-061", where=folder, names="DeviceType.NAME_tpN_bsN.json, mbsN_tmpN.json")
    try:
        return {device: _profile(model, device, files, seq_len=seq_len, folder=folder) for device, files in by_device.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile("SP-MIX-058", where=folder, model=model or "-", problem=str(error)) from error


def _profile(model: str, device: str, files: Mapping[tuple[int, int], Mapping[str, Any]], *, seq_len: int, folder: str) -> Profile:
    any_file = next(iter(files.values()))
    return profile_of(
        model or str(any_file["model"]["model_name"]), device,
        measured={(tp, size): _rows(found, tp=tp, size=size) for (tp, size), found in files.items()}, seq_len=seq_len,
        update_s={tp: float(found["execution_time"]["optimizer_time_ms"]) / 1e3 for (tp, _), found in files.items()},
        source=f"Metis profile {os.path.basename(os.path.abspath(folder))}",
    )  # fmt: skip


def _rows(found: Mapping[str, Any], *, tp: int, size: int) -> list[Row]:
    parameters = found["model"]["parameters"]
    outputs = parameters.get("activation_parameters_bytes")
    rows = []
    columns = zip(
        parameters["parameters_per_layer_bytes"], found["execution_time"]["layer_compute_total_ms"],
        found["execution_memory"]["layer_memory_total_mb"], strict=True,
    )  # fmt: skip
    for layer, (weight_bytes, both_ms, memory_mb) in enumerate(columns):
        # Metis' own samples give the weights of a layer whole; they are told from others by having no activations beside them
        held = weight_bytes / FLOAT_BYTES / (1 if outputs else tp)
        saved = max(float(memory_mb) * 2**20 - STATES * held * FLOAT_BYTES, 0.0)
        both_s = float(both_ms) / 1e3
        output = float(outputs[layer]) / size if outputs else 0.0
        rows.append(Row(FORWARD_SHARE * both_s, (1.0 - FORWARD_SHARE) * both_s, saved, int(held), output))
    return rows
