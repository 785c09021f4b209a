"""The two sides of a comparison: the real model of the library, and Sapper's workload of the config.json that it writes."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import random
import warnings
from pathlib import Path
from typing import Any

import fake_trace
import transformers
from cases import Case

from sapper import workloads
from sapper.workloads.families import seq2seq

logging.getLogger("transformers").setLevel(logging.ERROR)

COMPARED = frozenset({"matmul", "router", "conv", "attention"})
"""Kinds of our ops that the library runs as matmul, convolution or attention."""


def quiet() -> contextlib.ExitStack:
    """The library talks on stderr and warns about missing kernels; both are beside the point."""
    stack = contextlib.ExitStack()
    stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
    stack.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    return stack


def real_config(case: Case, architecture: str, values: dict[str, Any]) -> transformers.PretrainedConfig:
    """The library's own configuration object."""
    with quiet():
        return getattr(transformers, case.config_class)(architectures=[architecture], **values)


def bundled_config(case: Case, path: Path) -> transformers.PretrainedConfig:
    """The library's reading of a config that ships with Sapper."""
    raw = {"architectures": [case.architectures[0]]} | json.loads(path.read_text("utf-8"))
    with quiet():
        return getattr(transformers, case.config_class).from_dict(raw)


def inputs(case: Case, config: transformers.PretrainedConfig, seq_len: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the inputs of one sequence or one image."""
    if case.kind == "vision":
        size = config.image_size
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return {"pixel_values": (1, config.num_channels, height, width)}
    found = {"input_ids": (1, seq_len)}
    if case.kind == "seq2seq" and not config.architectures[0].endswith("EncoderModel"):
        found["decoder_input_ids"] = (1, seq2seq.target_len(seq_len))
    return found


def trace(case: Case, config: transformers.PretrainedConfig, seq_len: int, *, fake: bool) -> fake_trace.Count:
    """The count over the real model."""
    with quiet():
        return fake_trace.count(config, inputs(case, config, seq_len), fake=fake)


def draw(case: Case, index: int) -> transformers.PretrainedConfig:
    """The ``index``-th seeded draw; architectures take turns."""
    r = random.Random(f"{case.model_type} {index}")
    architecture, values = case.architectures[index % len(case.architectures)], case.draw(r)
    if architecture.endswith("ForQuestionAnswering"):
        values["num_labels"] = 2  # a start and an end; the library accepts nothing else
    return real_config(case, architecture, values)


def written(config: transformers.PretrainedConfig, folder: Path) -> Path:
    """The config.json that the library itself writes."""
    path = folder / "config.json"
    with quiet():
        config.to_json_file(str(path))
    return path


def ours(case: Case, source: Path | str, seq_len: int) -> workloads.Workload:
    """Sapper's workload of one sequence or image."""
    return workloads.load(source).workload(None if case.kind == "vision" else seq_len)


def priced(workload: workloads.Workload, case: Case) -> float:
    """Forward FLOPs of the compared kinds, full square of scores."""
    kinds = COMPARED | ({"scan"} if case.scan_is_matmul else set())
    total = 0.0
    for block in workload.blocks:
        every = block.experts / block.experts_per_token if case.dense_experts and block.experts else 1.0
        total += block.count * sum(op.full_flops * (every if op.expert else 1.0) for op in block.ops if op.kind in kinds)
    return total


def difference(workload: workloads.Workload, count: fake_trace.Count) -> str:
    """What a failing test shows: the library's largest products, and our ops."""
    ops = "\n".join(
        f"{block.count} x {block.name} {op.name} {op.kind} {op.full_flops:.6g} params {op.params}"
        for block in workload.blocks for op in block.ops if op.kind in COMPARED or op.params
    )
    return f"library:\n{count.explain()}\nours:\n{ops}"
