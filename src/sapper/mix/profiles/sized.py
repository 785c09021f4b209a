"""Formats that hold times and not sizes: AMP's (.npy, forward seconds of each op) and Galvatron's (ms by type of layer).

The weights, activations and outputs of the layers come from the model that the caller names, as predict counts them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np

from sapper import workloads
from sapper.errors import BadFile
from sapper.files import read_json
from sapper.mix.profiles.profile import Profile
from sapper.mix.profiles.table import FLOAT_BYTES, FORWARD_SHARE, Row, profile_of
from sapper.predict.arrays import Floats
from sapper.workloads.kit import AttentionImpl
from sapper.workloads.op import Block, Workload

AMP_NAME = re.compile(r"(?:(?P<model>\w+)_(?P<device>\w+)_|profile_)(?P<tp>\d+)\.npy")
BACKWARD = (1.0 - FORWARD_SHARE) / FORWARD_SHARE
"""Backward over forward; both planners take it too (AMP: three times the forward pass; Galvatron: bct_fct_coe)."""


ATTENTION: AttentionImpl = "unfused"
"""Both were measured before attention was fused."""


def read_amp(path: str | os.PathLike[str], *, model: str, seq_len: int = 1024) -> dict[str, Profile]:
    """The profiles of a folder of ``MODEL_DEVICE_TP.npy`` (DachengLi1/AMP, src/known_cost) or ``profile_TP.npy`` (Sailor's port).

    The ops of DeepSpeed's list before the first block count to the embedding, those after the last to the head.

    Args:
        path: The folder.
        model: A config of the model, or its bundled name.
        seq_len: Tokens of a sequence.

    Raises:
        BadFile: No such file, or one whose ops are fewer than the model's layers.
    """
    folder = os.path.abspath(os.fspath(path))
    found: dict[str, dict[int, Floats]] = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        match = AMP_NAME.fullmatch(name)
        if match:
            try:
                times = np.load(os.path.join(folder, name), allow_pickle=False).astype(float)
            except (ValueError, OSError) as error:
                raise BadFile("SP-MIX-058", where=os.path.join(folder, name), model=model, problem=str(error)) from error
            device = f"{match['model']}_{match['device']}" if match["device"] else os.path.basename(folder)
            found.setdefault(device, {})[int(match["tp"])] = times
    if not found:
        raise BadFile("SP-MIX-061", where=os.fspath(path), names="MODEL_DEVICE_TP.npy, profile_TP.npy")
    job = workloads.load(model).workload(seq_len, dtype="fp32", attention_impl=ATTENTION)
    return {device: _amp(job, device, by_tp, where=folder) for device, by_tp in found.items()}


def _amp(job: Workload, device: str, by_tp: dict[int, Floats], *, where: str) -> Profile:
    blocks = _blocks(job)
    measured = {}
    for tp, times in by_tp.items():
        before = (len(times) - len(blocks)) // 3 or 1
        if times.ndim != 1 or len(times) < len(blocks) + 2:
            raise BadFile("SP-MIX-058", where=where, model=job.name, problem=f"{times.shape} < {len(blocks)} + 2")
        body = times[before : before + len(blocks)]
        forward_s = [float(times[:before].sum()), *(float(one) for one in body), float(times[before + len(blocks) :].sum())]
        measured[tp, 1] = _rows(job, forward_s, tp=tp)
    source = f"AMP profile {os.path.basename(where)}"
    return profile_of(job.name, device, measured=measured, seq_len=job.seq_len, update_s={}, source=source)


def read_galvatron(path: str | os.PathLike[str], *, model: str, seq_len: int = 2048) -> dict[str, Profile]:
    """The profile of a folder with ``compute_profile.json`` (PKU-DAIR/Hetu-Galvatron), under the folder's name as the device.

    ``layertype_0`` is the forward pass of one block and sequence in ms, ``layertype_other_0`` that of the rest of the model.

    Raises:
        BadFile: No such file, or one without the two.
    """
    folder = os.path.abspath(os.fspath(path))
    table = read_json(os.path.join(folder, "compute_profile.json"))
    job = workloads.load(model).workload(seq_len, dtype="fp32", attention_impl=ATTENTION)
    try:
        block_s, rest_s = (float(table[key]) / 1e3 for key in ("layertype_0", "layertype_other_0"))
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile("SP-MIX-058", where=folder, model=model, problem=str(error)) from error
    rows = _rows(job, [0.0, *(block_s for _ in _blocks(job)), rest_s], tp=1)
    device = os.path.basename(folder)
    source = f"Galvatron profile {device}"
    return {device: profile_of(job.name, device, measured={(1, 1): rows}, seq_len=seq_len, update_s={}, source=source)}


def _blocks(job: Workload) -> list[Block]:
    return [block for block in job.blocks if block.role == "layer" for _ in range(block.count)]


def _rows(job: Workload, forward_s: Sequence[float], *, tp: int) -> list[Row]:
    ends = {role: [block for block in job.blocks if block.role == role] for role in ("embedding", "head")}
    layers = [ends["embedding"], *([block] for block in _blocks(job)), ends["head"]]
    rows = []
    for blocks, one_s in zip(layers, forward_s, strict=True):
        saved = sum(op.saved_bytes for block in blocks for op in block.ops)
        params = sum(block.params for block in blocks)
        width = max((block.hidden_size for block in blocks), default=0) * FLOAT_BYTES * job.seq_len
        rows.append(Row(one_s, BACKWARD * one_s, saved / tp, params // tp, width if blocks is not ends["head"] else 0.0))
    return rows
