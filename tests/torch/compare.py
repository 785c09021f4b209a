"""The two sides of a comparison: the real model on fake tensors, and Sapper's workload of the config.json it writes."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import logging
import random
from pathlib import Path
from typing import Any

import fake_trace
import transformers
from cases import Case

logging.getLogger("transformers").setLevel(logging.ERROR)


def real_config(case: Case, architecture: str, values: dict[str, Any]) -> transformers.PretrainedConfig:
    """The library's own configuration object."""
    with contextlib.redirect_stderr(io.StringIO()):
        return getattr(transformers, case.config_class)(architectures=[architecture], **values)


def inputs(case: Case, config: transformers.PretrainedConfig, seq_len: int, target_len: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs of one sequence or one image."""
    if case.kind == "vision":
        return {"pixel_values": (1, config.num_channels, config.image_size, config.image_size)}
    found = {"input_ids": (1, seq_len)}
    if case.kind == "seq2seq" and not config.architectures[0].endswith("EncoderModel"):
        found["decoder_input_ids"] = (1, target_len)
    return found


@functools.cache
def trace(case: Case, text: str, seq_len: int, target_len: int) -> fake_trace.Count:
    """The count over the real model; ``text`` is its configuration as JSON, ``architectures`` included."""
    values = json.loads(text)
    config = real_config(case, values.pop("architectures")[0], values)
    return fake_trace.count(config, inputs(case, config, seq_len, target_len))


def draws(case: Case, count: int) -> list[tuple[str, dict[str, Any]]]:
    """``count`` seeded draws, each with the architecture that it is for (all architectures in turn)."""
    found = []
    for index in range(count):
        r = random.Random(f"{case.model_type} {index}")
        architecture, values = case.architectures[index % len(case.architectures)], case.draw(r)
        if architecture.endswith("ForQuestionAnswering"):
            values["num_labels"] = 2  # a start and an end; the library accepts nothing else
        found.append((architecture, values))
    return found


def config_json(config: transformers.PretrainedConfig, folder: Path) -> Path:
    """The config.json that the library itself writes."""
    path = folder / "config.json"
    config.to_json_file(str(path))
    return path


COMPARED = frozenset({"matmul", "router", "conv", "attention"})
"""Kinds of our ops that the library runs as matmul, convolution or attention."""


def priced(workload: Any, case: Case) -> float:
    """Forward FLOPs of the compared kinds, full square of scores."""
    kinds = COMPARED | ({"scan"} if case.scan_is_matmul else set())
    total = 0.0
    for block in workload.blocks:
        every = block.experts / block.experts_per_token if case.dense_experts and block.experts else 1.0
        total += block.count * sum(op.full_flops * (every if op.expert else 1.0) for op in block.ops if op.kind in kinds)
    return total
