"""Terms of one engine iteration on one chip, at nominal rates: what the constants of the serving book multiply.

A *bundle* is an array K x ... over :data:`TERMS`, in seconds at nominal rates (the terms of the chip and its links) or in
counts (kernels, iterations, sequences, prompts). Every time is linear in it, ``(factors * bundle).sum(0)``, where factors
are 1/efficiency or seconds per count; so a request, whose life is a weighted sum of iterations, is one bundle too.

Roofline (Williams et al., CACM 2009) with a soft knee: a matmul that needs c seconds of the matrix unit and m of the memory
takes (c^p + m^p)^(1/p), since neither is ever hidden whole near the ridge. That form is homogeneous, so by Euler's theorem it
is a weighted sum of c and m, which is how it is split over the terms (at :data:`REFERENCE` efficiencies).
Shape legend: K = terms, R = grid of rows, L = linear layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sapper.predict import collectives
from sapper.predict.arrays import Floats
from sapper.predict.collectives import Fabric
from sapper.predict.features import domain_split
from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.parts import Cache, Linears, Parts
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.rates import ACTIVATION_BYTES, CACHE_BYTES, STORED_BYTES, Rates
from sapper.predict.shapes import MatrixUnit, shape_efficiency

TERMS = (
    "matmul", "low", "thin", "rowwise", "attention", "memory", "cache", "reread", "vector", "launch_s", "link", "latency", "host_s",
    "sequence_s", "prompt_s", "token_s", "stream_s",
)
"""Constants of the serving book, in order; those in ``_s`` are seconds per count, the others efficiencies."""
PLACE = {name: index for index, name in enumerate(TERMS)}
REFERENCE = {"matmul": 0.7, "low": 0.6, "attention": 0.5, "memory": 0.8, "cache": 0.7}
"""Efficiencies at which the soft roofline is split."""
KNEE = 3.0
SKINNY_TILE = 16.0
"""Least rows of a matrix instruction with operands swapped: m64n8k16 and m16n8k16 (PTX ISA 8.5, section 9.7.14)."""
SKINNY_RATE = 0.7
THIN_ROWS = 256.0
"""Rows at which half of a matmul counts as thin: libraries tune for large products, and what they make of a few dozen rows is a
matter of its own."""


def zeros(*shape: int) -> Floats:
    """An empty bundle."""
    return np.zeros((len(TERMS), *shape))


def factors(natural: dict[str, Floats]) -> Floats:
    """What a bundle is multiplied by, from constants in their natural scale."""
    return np.array([natural[name] if name.endswith("_s") else 1.0 / natural[name] for name in TERMS])


def slopes(seconds: Floats, constants: Sequence[str]) -> Floats:
    """C x 1: slope of the log of the sum of ``seconds`` (K) over the log of each constant, which is its term's share."""
    shares = seconds / max(float(seconds.sum()), 1e-30)
    found = np.zeros((len(constants), 1))
    for row, name in enumerate(constants):
        if name in PLACE:
            found[row] = shares[PLACE[name]] * (1.0 if name.endswith("_s") else -1.0)
    return found


def efficiency(m: Floats, *, n: Floats, k: Floats, groups: Floats, unit: MatrixUnit) -> Floats:
    """Shape efficiency, with what few rows reach: their kernels swap operands and split the depth, so that they fill whole
    waves of small tiles."""
    tiled = shape_efficiency(m, n, k, groups=groups, unit=unit)
    if unit.kind == "systolic":
        return tiled
    skinny = m / (np.ceil(m / SKINNY_TILE) * SKINNY_TILE) * SKINNY_RATE
    return np.asarray(np.maximum(tiled, skinny * k / (k + 96.0)), float)


def split(compute_s: Floats, memory_s: Floats, *, unit: str, memory: str = "memory") -> tuple[Floats, Floats]:
    """The soft roofline of two nominal times as (share of the unit's term, share of the memory's term)."""
    c, m = compute_s / REFERENCE[unit], memory_s / REFERENCE[memory]
    top = np.maximum(np.maximum(c, m), 1e-30)
    whole = ((c / top) ** KNEE + (m / top) ** KNEE) ** (1.0 / KNEE)
    shares = compute_s * (c / top / whole) ** (KNEE - 1.0), memory_s * (m / top / whole) ** (KNEE - 1.0)
    return np.asarray(shares[0], float), np.asarray(shares[1], float)


@dataclass(frozen=True)
class Iteration:
    """The terms of an iteration of one replica on its fullest chip, per attention rank; see :mod:`sapper.predict.serve.step`."""

    rows: Floats
    base: Floats
    """K x R: what depends on the number of new tokens."""
    sequence: Floats
    """K: each decoding sequence."""
    context: tuple[Floats, ...]
    """K for each cache type: each cached token that a decoding sequence reads."""
    pair: tuple[Floats, ...]
    """K for each cache type: each query-key pair of a prompt."""
    caches: tuple[Cache, ...]
    token_bytes: tuple[float, ...]
    """Cache bytes of a token on one chip, for each cache type."""
    stages: int = 1
    drafts: float = 0.0
    """Speculative decoding: tokens that each sequence has checked in an iteration besides the next one."""
    accepted: float = 1.0
    """Tokens that a sequence gains by an iteration in the mean, the next one included."""

    def at(self, tokens: Floats) -> Floats:
        """K x ...: the base terms for ``tokens`` new tokens, linear between grid points, proportional beyond."""
        x = np.asarray(tokens, float)
        inside = np.clip(x, self.rows[0], self.rows[-1])
        after = np.clip(np.searchsorted(self.rows, inside, side="right"), 1, len(self.rows) - 1)
        low, high = self.rows[after - 1], self.rows[after]
        share = (inside - low) / (high - low)
        value = self.base[:, after - 1] * (1.0 - share) + self.base[:, after] * share
        return np.asarray(value * np.maximum(x / self.rows[-1], 1.0), float)

    def decode(self, sequences: Floats, context: Floats) -> Floats:
        """K x ...: what ``sequences`` decoding requests of ``context`` cached tokens each take for one token of each: an
        iteration, or with speculative decoding the part of one."""
        count, seen = np.broadcast_arrays(np.asarray(sequences, float), np.asarray(context, float))
        total = self.at(count * (1.0 + self.drafts)) + np.multiply.outer(self.sequence, count)
        for cache, each in zip(self.caches, self.context, strict=True):
            read = seen if cache.window is None else np.minimum(seen, float(cache.window))
            total = total + np.multiply.outer(each, count * read)
        return np.asarray(total / self.accepted, float)

    def prompt(self, tokens: Floats, *, requests: Floats | float = 1.0) -> Floats:
        """K x ...: one iteration of ``requests`` whole prompts of ``tokens`` each."""
        length, many = np.broadcast_arrays(np.asarray(tokens, float), np.asarray(requests, float))
        total = self.at(length * many) + np.multiply.outer(self.sequence, many)
        for cache, each in zip(self.caches, self.pair, strict=True):
            total = total + np.multiply.outer(each, many * pairs(length, cache.window))
        return np.asarray(total, float)


def pairs(tokens: Floats, window: int | None) -> Floats:
    """Query-key pairs of a causal prompt: n(n+1)/2, of which a window of w keeps w(w+1)/2 + (n-w)w."""
    if window is None:
        return tokens * (tokens + 1.0) / 2.0
    ramp = np.minimum(tokens, float(window))
    return np.asarray(ramp * (ramp + 1.0) / 2.0 + np.maximum(tokens - window, 0.0) * window, float)


GRID = np.array(
    [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384], float
)


def iteration(job: ServeJob, parts: Parts, rates: Rates, *, plan: ServePlan, fabric: Fabric) -> Iteration:
    """The terms of one iteration of a replica.

    Under pipelining, tokens are cut into as many micro-batches as stages; a round in which each passes every stage takes as
    long as the whole model on one micro-batch (GPipe, arXiv:1811.06965, section 2.3), so that the grid's rows are divided.
    """
    rows = np.maximum(GRID / plan.pp, 1.0)
    base = zeros(len(GRID))
    _linears(base, job, parts.linears, rates, rows, plan)
    width = ACTIVATION_BYTES.get(job.dtype, 2.0)
    moved = rows * (parts.vector_whole + parts.vector_cut / plan.tp) * width
    base[PLACE["vector"]] += moved / rates.bandwidth_bytes_per_s
    base[PLACE["launch_s"]] += parts.kernels
    base[PLACE["host_s"]] += 1.0
    _links(base, parts, rows, plan=plan, fabric=fabric, width=width)
    sequence = zeros()
    sequence[PLACE["sequence_s"]] = 1.0
    heads = parts.linears.head
    per_row = 2.0 * parts.linears.n * parts.linears.k * parts.linears.layers * parts.linears.rows
    sequence[PLACE["matmul"]] += float(per_row[heads].sum()) / plan.tp / rates.wide_flops_per_s
    sequence[PLACE["cache"]] += 2.0 * 4.0 * parts.state_values / plan.tp / rates.bandwidth_bytes_per_s
    context, pair, sizes = [], [], []
    for cache in parts.caches:
        size_bytes = cache.token_values(plan.tp) * CACHE_BYTES[job.cache_dtype]
        one, two = zeros(), zeros()
        compute = cache.token_flops * cache.layers / plan.tp / rates.wide_flops_per_s
        shares = split(np.array(compute), np.array(size_bytes / rates.bandwidth_bytes_per_s), unit="attention", memory="cache")
        one[PLACE["attention"]], one[PLACE["cache"]] = shares
        # a kernel that gives each query head its own thread block reads the keys of its group again (PagedAttention v1 and v2)
        one[PLACE["reread"]] = size_bytes / rates.bandwidth_bytes_per_s * (cache.sharing(plan.tp) - 1.0)
        two[PLACE["attention"]] = cache.pair_flops * cache.layers / plan.tp / rates.wide_flops_per_s
        context.append(one / plan.pp)
        pair.append(two / plan.pp)
        sizes.append(size_bytes / plan.pp)
    return Iteration(
        rows=GRID, base=base, sequence=sequence, context=tuple(context), pair=tuple(pair), caches=parts.caches, token_bytes=tuple(sizes),
        stages=plan.pp,
    )


def local_sizes(linears: Linears, plan: ServePlan) -> tuple[Floats, Floats, Floats]:
    """(n, k, groups) of each linear layer on one chip: dense layers are cut by ``tp``, experts by ``ep`` and what is left."""
    cut = np.where(linears.expert, plan.tp * plan.attention_dp / plan.ep, float(plan.tp))
    n = linears.n / np.where(linears.column, np.minimum(cut, linears.most_cut), 1.0)
    k = linears.k / np.where(linears.row, cut, 1.0)
    groups = linears.groups / np.where(linears.expert, float(plan.ep), 1.0)
    return n, k, groups


def reached(experts: Floats, *, topk: Floats, tokens: Floats) -> Floats:
    """Expected distinct experts that ``tokens`` touch when each takes ``topk`` of ``experts`` at random."""
    miss = 1.0 - np.minimum(topk / np.maximum(experts, 1.0), 1.0)
    return np.asarray(experts * (1.0 - miss**tokens), float)


def _linears(base: Floats, job: ServeJob, linears: Linears, rates: Rates, rows: Floats, plan: ServePlan) -> None:
    n, k, groups = (size[:, None] for size in local_sizes(linears, plan))
    expert, topk = linears.expert[:, None], linears.topk[:, None]
    tokens = np.where(expert, rows * plan.attention_dp, rows)
    touched = reached(linears.groups[:, None], topk=topk, tokens=tokens) / plan.ep
    active = np.where(expert, np.maximum(touched, np.minimum(groups, 1.0)), groups)
    m = np.where(expert, tokens * topk / plan.ep / np.maximum(active, 1e-9), tokens * linears.rows[:, None])
    m = np.where(linears.head[:, None], 1.0, m)
    m = np.maximum(m, 1.0)
    width = ACTIVATION_BYTES.get(job.dtype, 2.0)
    stored = np.where(linears.quantised, STORED_BYTES[job.weights_dtype], width)[:, None]
    low = linears.quantised[:, None] & rates.low
    peak = np.where(low, rates.peak_flops_per_s, rates.wide_flops_per_s)
    fill = efficiency(m, n=n, k=k, groups=active, unit=rates.unit)
    compute = 2.0 * m * n * k * active / (peak * fill)
    traffic = active * (n * k * stored + m * (n + k) * width) / rates.bandwidth_bytes_per_s
    layers = linears.layers[:, None]
    thin = 1.0 / (1.0 + (m / THIN_ROWS) ** 2)
    # what each row adds to the stream of the weights where a library has no kernel that hides it; experts have kernels of the engine's own
    base[PLACE["rowwise"]] += (layers * np.where(expert, 0.0, thin * 2.0 * m * n * k * active / peak)).sum(axis=0)
    for mask, unit in ((low, "low"), (~low, "matmul")):
        unit_s, memory_s = split(compute, traffic, unit=unit)
        base[PLACE["thin"]] += (layers * np.where(mask, unit_s * thin, 0.0)).sum(axis=0)
        base[PLACE[unit]] += (layers * np.where(mask, unit_s * (1.0 - thin), 0.0)).sum(axis=0)
        base[PLACE["memory"]] += (layers * np.where(mask, memory_s, 0.0)).sum(axis=0)


def _links(base: Floats, parts: Parts, rows: Floats, *, plan: ServePlan, fabric: Fabric, width: float) -> None:
    """Reductions of the tensor-parallel group (two a layer, arXiv:1909.08053, section 3), dispatch and combine of the experts
    where attention ranks hold different tokens, sends between stages."""
    size = rows * parts.hidden * width
    ones = np.ones(len(rows))
    if plan.tp > 1:
        inner, outer = domain_split(ones * plan.tp, stride=ones.astype(int), fabric=fabric)
        _add(base, parts.reductions, [collectives.all_reduce_s(s, inner, outer, fabric) for s in (size, ones)])
    if plan.attention_dp > 1 and parts.routed_layers:
        members = plan.ep if plan.ep > 1 else plan.attention_dp * plan.tp
        stride = 1 if plan.ep > plan.attention_dp or plan.ep == 1 else plan.tp
        inner, outer = domain_split(ones * members, stride=ones.astype(int) * stride, fabric=fabric)
        if plan.ep > 1:
            copies = float(min(_topk(parts), plan.ep))
            each = [collectives.all_to_all_s(s * copies / plan.tp, inner, outer, fabric) for s in (size, ones)]
        else:
            each = [collectives.all_gather_s(s * plan.attention_dp, inner, outer, fabric) for s in (size, ones)]
        _add(base, 2.0 * parts.routed_layers, each)
    if plan.pp > 1:
        crosses = plan.tp * plan.attention_dp >= fabric.domain_size
        _add(base, float(plan.pp - 1), [collectives.send_s(s, fabric, crosses) for s in (size, ones)])


def _topk(parts: Parts) -> float:
    return float(parts.linears.topk.max(initial=0.0))


def _add(base: Floats, times: float, seconds: list[Floats]) -> None:
    """A collective's time on the wire and to start, from that of its message and of an empty one."""
    whole, empty = seconds
    base[PLACE["link"]] += times * np.maximum(whole - empty, 0.0)
    base[PLACE["latency"]] += times * empty
