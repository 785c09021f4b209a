"""States of the random number generators of a process, as tensors of a checkpoint."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

import torch
from sapper.mix.checkpoint.shard import RNG, Shard, State, whole


def streams() -> dict[str, tuple[Shard]]:
    """The states of Python's, NumPy's and PyTorch's generators, the accelerator's own among them."""
    found = {f"{RNG}torch": (whole(torch.get_rng_state()),), f"{RNG}python": _text(random.getstate())}
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    found[f"{RNG}numpy"] = _text((kind, np.asarray(keys).tolist(), position, has_gauss, gauss))
    device = _accelerator()
    if device is not None:
        found[f"{RNG}accelerator"] = (whole(device.get_rng_state()),)
    return found


def restore(state: State) -> None:
    """Set the generators to ``state``; streams that it lacks stay as they are."""
    if f"{RNG}torch" in state:
        torch.set_rng_state(state[f"{RNG}torch"][0].tensor.clone())
    if f"{RNG}python" in state:
        version, numbers, gauss = _value(state[f"{RNG}python"])
        random.setstate((version, tuple(numbers), gauss))
    if f"{RNG}numpy" in state:
        kind, keys, position, has_gauss, gauss = _value(state[f"{RNG}numpy"])
        np.random.set_state((kind, np.array(keys, np.uint32), position, has_gauss, gauss))
    device = _accelerator()
    if device is not None and f"{RNG}accelerator" in state:
        device.set_rng_state(state[f"{RNG}accelerator"][0].tensor.clone())


def _accelerator() -> Any:
    """The module of the accelerator that this process uses, such as ``torch.cuda``; None: the CPU."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return None if found is None else getattr(torch, found.type, None)


def _text(value: Any) -> tuple[Shard]:
    return (whole(torch.frombuffer(bytearray(json.dumps(value).encode("ascii")), dtype=torch.uint8)),)


def _value(shards: Sequence[Shard]) -> Any:
    return json.loads(bytes(shards[0].tensor.numpy()))
