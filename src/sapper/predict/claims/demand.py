"""Demand: the FLOP/s and bytes/s that a row's value implies at the least.

Whatever a server batches, overlaps or hides, a token that is made has been computed, and a decode step has read each
weight that it used. Where a source may share work between requests (a prefix cache) or between tokens (speculative
decoding), the bound that this breaks is not drawn.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from sapper.predict.claims.limits import width_bytes
from sapper.predict.claims.work import Work, training_flops_per_token, work_of
from sapper.predict.rows.metrics import UNITS, per_chip
from sapper.predict.rows.row import Row
from sapper.predict.serve.rows.metrics import KNOWN

SHORTEST = 0.8
"""Mean lengths over nominal ones: benchmarks draw lengths from 0.8 to 1.0 of those that they name (InferenceX, sa-bench)."""
FULL = 0.5
"""Least share of a closed loop's time in which all its requests are under way: a loop of a single wave drains while its last
requests end, one of many hardly ever."""
_DRAFTED = r"speculat|\bmtp\b|eagle|medusa|draft|lookahead"
_REUSED = r"cache.?hit|prefix.?cach"
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}


class Demand(msgspec.Struct, frozen=True, kw_only=True):
    """What the row's value asks of all its chips together; None: the row does not say enough, and ``lacks`` names what."""

    flops_per_s: float | None = None
    bytes_per_s: float | None = None
    lacks: str | None = None


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """An inference row and the least work of its model."""

    row: Row
    work: Work
    weight_bytes: float
    """Read by each decode step."""
    batch: float
    """Sequences that a step surely serves; 1 where the row does not say."""
    prompt: int
    new: int

    @property
    def context(self) -> int:
        """Tokens that the middle step of a request sees."""
        return max(1, self.prompt + self.new // 2)

    def step_bytes(self) -> float:
        """Bytes of one decode step."""
        return self.weight_bytes + self.batch * self.work.cache_bytes(self.context)


def demand_of(row: Row) -> Demand:
    """The least that the row's value implies."""
    return _training(row) if row.kind == "training" else _serving(row)


def _training(row: Row) -> Demand:
    per_token = training_flops_per_token(row)
    if per_token is None:
        return Demand(lacks="model")
    chips = float(row.n_chips)
    if row.metric.startswith("tokens_per_s"):
        scale = 1e3 if row.unit.startswith("k") else 1.0
        return Demand(flops_per_s=row.value * scale * (chips if per_chip(row) else 1.0) * per_token)
    tokens = row.model.seq_len
    if tokens is None:
        return Demand(lacks="model.seq_len")
    if row.metric.startswith("samples_per_s"):
        return Demand(flops_per_s=row.value * (chips if per_chip(row) else 1.0) * tokens * per_token)
    if row.metric == "step_time":
        seconds = row.value * _SECONDS.get(row.unit, 0.0)
        if row.global_batch is None or seconds <= 0.0:
            return Demand(lacks="global_batch" if row.global_batch is None else "unit")
        return Demand(flops_per_s=row.global_batch * tokens * per_token / seconds)
    return Demand()


def _serving(row: Row) -> Demand:
    metric = row.metric.lower()
    maker = next((maker for pattern, maker in _MAKERS if re.fullmatch(pattern, metric)), None)
    if maker is None:
        return Demand(lacks=None if metric in KNOWN or row.metric in UNITS else "metric")
    work = work_of(row.model)
    if work is None:
        return Demand(lacks="model")
    found = maker(serving_of(row, work))
    words = f"{row.framework or ''} {row.note} {row.phase or ''} {' '.join(row.extra)}"
    if re.search(_DRAFTED, words, re.IGNORECASE):
        found = msgspec.structs.replace(found, bytes_per_s=None, lacks="speculation")
    if re.search(_REUSED, words.replace("_", " "), re.IGNORECASE):
        found = msgspec.structs.replace(found, flops_per_s=None, lacks="prefix_cache")
    return found


def serving_of(row: Row, work: Work) -> Serving:
    """An inference row with what it surely moves and computes."""
    # A server's concurrency counts waiting requests too, so that it bounds no step from below.
    waits = re.search("serving|server|interactive", row.phase or "", re.IGNORECASE) is not None
    width = width_bytes(row.precision) or 0.5
    return Serving(
        row=row, work=work, weight_bytes=work.weights * width, batch=1.0 if waits or row.batch is None else max(1.0, row.batch),
        prompt=int(row.input_len or 0), new=max(1, int(row.output_len or 1)),
    )


def _per_step(given: Serving) -> Demand:
    """Time of a decode step, or its inverse for each user."""
    rate = given.row.metric.lower().startswith("tokens_per_s")
    seconds = 1.0 / given.row.value if rate else given.row.value * _SECONDS.get(given.row.unit, 0.0)
    if seconds <= 0.0:
        return Demand(lacks="unit")
    flops = given.batch * given.work.decode_flops(given.context)
    return Demand(flops_per_s=max(flops / seconds, _of_loop(given, seconds)), bytes_per_s=given.step_bytes() / seconds)


def _of_loop(given: Serving, tpot_s: float) -> float:
    """FLOP/s of a closed loop whose prompts and answers are read and made in the time that a request is under way (Little's law);
    0 where the row does not say how many are, or splits its chips."""
    extra = given.row.extra
    under_way, first_ms = extra.get("concurrency"), extra.get("ttft_ms")
    if not isinstance(under_way, (int, float)) or not isinstance(first_ms, (int, float)) or extra.get("disagg") or not given.prompt:
        return 0.0
    prompt, steps = max(1, int(SHORTEST * given.prompt)), max(0, int(SHORTEST * given.new) - 1)
    flops = given.work.prefill_flops(prompt) + steps * given.work.decode_flops(prompt)
    return FULL * under_way * flops / (first_ms * _SECONDS["ms"] + (given.new - 1) * tpot_s)


def _per_second(given: Serving) -> Demand:
    """New tokens a second of all requests."""
    rate = given.row.value * _chips_meant(given.row)
    if given.row.batch is None or given.batch == 1.0 != given.row.batch:
        moved = given.work.cache_bytes(given.context)
    else:
        moved = given.step_bytes() / given.batch
    flops = given.work.decode_flops(given.context)
    if given.row.phase != "decode" and given.prompt and given.row.output_len:
        flops += given.work.prefill_flops(given.prompt) / given.new
    return Demand(flops_per_s=rate * flops, bytes_per_s=rate * moved)


def _per_request(given: Serving) -> Demand:
    """Seconds from prompts to last tokens of a batch."""
    seconds = given.row.value * _SECONDS.get(given.row.unit, 0.0)
    if seconds <= 0.0 or given.row.output_len is None:
        return Demand(lacks="unit" if seconds <= 0.0 else "output_len")
    steps = given.new - 1
    flops = given.work.prefill_flops(given.prompt) if given.prompt else 0.0
    flops += steps * given.work.decode_flops(given.context)
    return Demand(flops_per_s=given.batch * flops / seconds, bytes_per_s=steps * given.step_bytes() / seconds)


def _forward(given: Serving) -> Demand:
    """Seconds of one forward pass over a batch of prompts."""
    seconds = given.row.value * _SECONDS.get(given.row.unit, 0.0)
    if seconds <= 0.0 or not given.prompt:
        return Demand(lacks="unit" if seconds <= 0.0 else "input_len")
    return Demand(flops_per_s=given.batch * given.work.prefill_flops(given.prompt) / seconds)


def _prefill(given: Serving) -> Demand:
    """Prompt tokens a second."""
    tokens = given.prompt or 1
    return Demand(flops_per_s=given.row.value * _chips_meant(given.row) * given.work.prefill_flops(tokens) / tokens)


def _chips_meant(row: Row) -> float:
    """How often the job holds what the unit speaks of: a chip, a node of eight, or all."""
    chips = float(row.stated_chips or 1)
    words = f"{row.metric} {row.unit}".lower()
    node = re.search(r"per (\d+)-(?:gpu|npu|chip|card)", words)
    if node:
        return max(1.0, chips / float(node[1]))
    return chips if "per_chip" in words or re.search(r"/(gpu|npu|chip|card)\b", words) else 1.0


_MAKERS: tuple[tuple[str, Callable[[Serving], Demand]], ...] = (
    (r"tpot|itl|inter_token_latency|time_per_output_token|decode_latency|tokens_per_s_per_(user|request)", _per_step),
    (r"(output|decode)_tokens_per_s(_per_chip)?", _per_second),
    (r"e2e_latency|latency|e2e|request_latency", _per_request),
    (r"forward_latency|prefill_latency|forward_time", _forward),
    (r"prefill_tokens_per_s(_per_chip)?", _prefill),
)
