"""Time of collective operations, vectorised over plans.

Every argument may be a number or an array that broadcasts. A group has ``inner`` members inside each of ``outer`` scale-up
domains, n = inner * outer. Sizes are bytes of one chip's buffer:

=================  ======================================================================================
all_reduce         the buffer that every chip holds before and after
reduce_scatter     the whole buffer before, of which each keeps 1/n
all_gather         the whole buffer after, of which each brings 1/n
all_to_all         all that one chip sends, its own 1/n included (which does not travel)
broadcast, send    the message
=================  ======================================================================================

Cost model: start + hops * hop + wire time (alpha-beta: Hockney 1994, doi:10.1016/S0167-8191(06)80021-9; formulas of the
algorithms: Thakur, Rabenseifner, Gropp 2005, doi:10.1177/1094342005051521), each level of the network with its own alpha
and beta, of the candidates the fastest, as NCCL chooses (NVIDIA/nccl, src/graph/tuning.cc):

* ring: 2(n-1)/n of the buffer through each chip, which no algorithm of messages undercuts (Patarasu and Yuan 2009,
  doi:10.1016/j.jpdc.2008.09.002). Over several domains there are as many rings as members inside, each leaving by another
  chip's NIC, so that the levels work at once and the slower one counts.
* hierarchical: reduce-scatter inside, all-reduce of 1/inner over the NICs by recursive halving and doubling
  (Rabenseifner 2004, doi:10.1007/978-3-540-24685-5_1), all-gather inside.
* double binary tree: 2 log2 hops, the buffer up and down (Sanders, Speck, Traeff 2009, doi:10.1016/j.parco.2009.09.001).
* in the switch: (n+1)/n of the buffer through each chip (NVIDIA/nccl-tests, doc/PERFORMANCE.md).

A large message pays ``fill`` per hop, since the protocol that is fast for small ones spends half of the wire on flags:
:func:`with_protocol` passes from one to the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sapper.errors import MissingFact
from sapper.predict.arrays import Floats
from sapper.predict.fabric import Curve, Fabric, Tier, no_fabric
from sapper.predict.fabric_of import fabric_of

__all__ = [
    "ALGORITHMS", "LIMITS", "Cost", "Fabric", "Line", "Tier", "all_gather_s", "all_reduce_lines", "all_reduce_s", "all_to_all_s",
    "broadcast_s", "cost", "fabric_of", "half_performance_bytes", "no_fabric", "reduce_scatter_s", "send_s",
]

Algorithm = Literal["none", "ring", "hierarchical", "tree", "in-switch", "pairwise", "bruck"]
ALGORITHMS: tuple[Algorithm, ...] = ("none", "ring", "hierarchical", "tree", "in-switch", "pairwise", "bruck")
LIMITS = ("none", "latency", "scale-up", "scale-out")
Operation = Literal["all_reduce", "reduce_scatter", "all_gather", "all_to_all", "broadcast"]

_PIECE = 8192
"""Plans priced at a time: their arrays fit a core's cache."""
_MOST_KEYS = 4_000_000
"""Greatest table of group shapes; where sizes are greater still, they are sorted instead."""
TREE_EFFICIENCY = 0.9
"""A tree's rate over a ring's (NVIDIA/nccl @01afd20 src/graph/tuning.cc: ``busBw * .9``)."""


@dataclass(frozen=True)
class Cost:
    """A collective's time and what explains it; arrays of one shape."""

    time_s: Floats
    scale_up_bytes: Floats
    """Sent by one chip over its scale-up links."""
    scale_out_bytes: Floats
    """Sent by one chip over its NICs."""
    algorithm: NDArray[np.int8]
    """Index into ALGORITHMS."""
    limit: NDArray[np.int8]
    """Index into LIMITS: what takes the greatest part."""


@dataclass(frozen=True)
class _Shape:
    """Distinct groups of n = m * o chips, m inside a domain, o domains; ``index`` of m in the tables of the scale-up tier."""

    m: Floats
    o: Floats
    n: Floats
    index: NDArray[np.intp]


@dataclass(frozen=True)
class _Way:
    """One algorithm for each shape: latency, and per byte of the buffer the seconds and bytes of each level."""

    algorithm: Algorithm
    latency_s: Floats
    fill_s: Floats
    up_s: Floats
    """On the scale-up wire, per byte of the buffer."""
    out_s: Floats
    up_bytes: Floats
    """Over the scale-up wire, per byte of the buffer."""
    out_bytes: Floats
    at_once: bool = True
    """Whether the levels work at once or one after the other."""

    @property
    def wire_s(self) -> Floats:
        """Seconds on the wire per byte of the buffer."""
        return np.maximum(self.up_s, self.out_s) if self.at_once else self.up_s + self.out_s


def with_protocol(wire_s: Floats, fill_s: Floats | float) -> Floats:
    """Seconds that ``wire_s`` of payload take: twice as long when it is small, ``fill_s`` more when it is large.

    The low-latency protocol of collective libraries sends a flag with each word and so half the payload (NCCL's LL); the
    other fills a pipeline first. x + x f/(x+f) has both as limits and follows measured curves: all-reduce of 8x H200 from
    1 MiB to 16 GiB (ml-engineering @744d01e, network/README.md) within a fifth once the host's own time is taken off.
    """
    return np.asarray(wire_s + wire_s * fill_s / np.maximum(wire_s + fill_s, 1e-30), float)


# -- the operations


def all_reduce_s(size_bytes: ArrayLike, inner: ArrayLike, outer: ArrayLike, fabric: Fabric) -> Floats:
    """Seconds of an all-reduce of a buffer of ``size_bytes``; 0 for a group of one.

    Raises:
        MissingFact: A group crosses domains and the fabric has no network between them.
    """
    return _fastest(_all_reduce, size_bytes, inner, outer, fabric)


@dataclass(frozen=True)
class Line:
    """One algorithm for one group: what of its time does not depend on the buffer, and what does."""

    latency_s: float
    s_per_byte: float
    fill_s: float

    def time_s(self, size_bytes: float) -> float:
        """Of a buffer of ``size_bytes``: :func:`with_protocol` for one number."""
        wire_s = size_bytes * self.s_per_byte
        return self.latency_s + wire_s + wire_s * self.fill_s / max(wire_s + self.fill_s, 1e-30)


def all_reduce_lines(inner: int, outer: int, fabric: Fabric) -> tuple[Line, ...]:
    """The algorithms that :func:`all_reduce_s` takes the fastest of, for a caller that asks one group many times.

    Raises:
        MissingFact: As :func:`all_reduce_s`.
    """
    _, shape, _ = _shapes(1.0, inner, outer, fabric)
    if not (shape.n > 1).any():
        return (Line(0.0, 0.0, 0.0),)
    return tuple(Line(float(way.latency_s[0]), float(way.wire_s[0]), float(way.fill_s[0])) for way in _all_reduce(shape, fabric))


def reduce_scatter_s(size_bytes: ArrayLike, inner: ArrayLike, outer: ArrayLike, fabric: Fabric) -> Floats:
    """Seconds of a reduce-scatter that starts from ``size_bytes`` on each chip; otherwise as :func:`all_reduce_s`."""
    return _fastest(_reduce_scatter, size_bytes, inner, outer, fabric)


def all_gather_s(size_bytes: ArrayLike, inner: ArrayLike, outer: ArrayLike, fabric: Fabric) -> Floats:
    """Seconds of an all-gather that ends with ``size_bytes`` on each chip; otherwise as :func:`all_reduce_s`."""
    return _fastest(_all_gather, size_bytes, inner, outer, fabric)


def all_to_all_s(size_bytes: ArrayLike, inner: ArrayLike, outer: ArrayLike, fabric: Fabric) -> Floats:
    """Seconds of an all-to-all in which each chip sends ``size_bytes`` in all; otherwise as :func:`all_reduce_s`."""
    return _fastest(_all_to_all, size_bytes, inner, outer, fabric)


def broadcast_s(size_bytes: ArrayLike, inner: ArrayLike, outer: ArrayLike, fabric: Fabric) -> Floats:
    """Seconds of a broadcast of ``size_bytes``; otherwise as :func:`all_reduce_s`."""
    return _fastest(_broadcast, size_bytes, inner, outer, fabric)


def send_s(size_bytes: ArrayLike, fabric: Fabric, crosses_domain: ArrayLike) -> Floats:
    """Seconds of one message of ``size_bytes`` between two chips.

    Args:
        size_bytes: Of the message.
        fabric: The network.
        crosses_domain: Whether the chips lie in different domains.

    Raises:
        MissingFact: A message crosses domains and the fabric has no network between them.
    """
    v, crosses = np.broadcast_arrays(np.asarray(size_bytes, float), np.asarray(crosses_domain, bool))
    _need_network(fabric, bool(crosses.any()))
    inside = _message(v, fabric.scale_up)
    return np.asarray(np.where(crosses, _message(v, fabric.scale_out), inside) if fabric.scale_out is not None else inside, float)


def _message(v: Floats, tier: Tier | None) -> Floats:
    if tier is None:
        return np.zeros_like(v)
    return tier.start_s + tier.hop_s + with_protocol(v / tier.pair_bytes_per_s, tier.fill_s)


def cost(operation: Operation, size_bytes: ArrayLike, *, inner: ArrayLike, outer: ArrayLike, fabric: Fabric) -> Cost:
    """Time of a collective with its bytes on the wire, its algorithm and what binds it.

    Raises:
        MissingFact: As :func:`all_reduce_s`.
    """
    v, shape, index = _shapes(size_bytes, inner, outer, fabric)
    ways = _OPERATIONS[operation](shape, fabric)
    alone = (shape.n <= 1)[index]
    times = np.stack([_time_s(way, v, index) for way in ways])
    best = np.argmin(times, axis=0)

    def pick(name: str) -> Floats:
        table = np.stack([np.broadcast_to(getattr(way, name), shape.n.shape) for way in ways])
        return np.asarray(np.where(alone, 0.0, v * table[best, index]), float)

    time_s = np.where(alone, 0.0, np.take_along_axis(times, best[None], 0)[0])
    limit = np.where(time_s - pick("wire_s") > pick("wire_s"), 1, np.where(pick("up_s") >= pick("out_s"), 2, 3))
    names = np.array([ALGORITHMS.index(way.algorithm) for way in ways], np.int8)
    return Cost(
        time_s=np.asarray(time_s, float), scale_up_bytes=pick("up_bytes"), scale_out_bytes=pick("out_bytes"),
        algorithm=np.where(alone, 0, names[best]).astype(np.int8), limit=np.where(alone, 0, limit).astype(np.int8),
    )


def half_performance_bytes(operation: Operation, fabric: Fabric, *, inner: int, outer: int) -> float:
    """Size at which a collective reaches half of its greatest rate (Hockney's n_1/2); 0 for a group of one."""
    large = 2.0**50
    rate = large / float(cost(operation, large, inner=inner, outer=outer, fabric=fabric).time_s) if inner * outer > 1 else 0.0
    low, high = 1.0, large
    while rate and high / low > 1.001:
        middle = (low * high) ** 0.5
        reached = middle / float(cost(operation, middle, inner=inner, outer=outer, fabric=fabric).time_s)
        low, high = (middle, high) if reached < rate / 2.0 else (low, middle)
    return high if rate else 0.0


# -- candidates


_Candidates = Callable[[_Shape, Fabric], list[_Way]]


def _fastest(ways: _Candidates, size_bytes: ArrayLike, inner: ArrayLike, outer: ArrayLike, fabric: Fabric) -> Floats:
    v, shape, index = _shapes(size_bytes, inner, outer, fabric)
    if not (shape.n > 1).any():
        return np.zeros_like(v)
    candidates = ways(shape, fabric)
    flat, place = v.reshape(-1), index.reshape(-1)
    best = np.empty(flat.shape)
    for start in range(0, flat.size, _PIECE):
        piece = slice(start, start + _PIECE)
        part, own = flat[piece], place[piece]
        times = [_time_s(way, part, own) for way in candidates]
        best[piece] = times[0] if len(times) == 1 else np.minimum.reduce(times)
    if (shape.n <= 1).any():
        best[(shape.n <= 1)[place]] = 0.0
    return np.asarray(best.reshape(v.shape), float)


def _time_s(way: _Way, v: Floats, index: NDArray[np.intp]) -> Floats:
    """Seconds of an algorithm for buffers ``v`` of groups ``index``: latency + x + x f/(x + f), x the seconds on the wire."""
    return way.latency_s[index] + with_protocol(way.wire_s[index] * v, way.fill_s[index])


def _shapes(size_bytes: ArrayLike, inner: ArrayLike, outer: ArrayLike, fabric: Fabric) -> tuple[Floats, _Shape, NDArray[np.intp]]:
    """Buffers as an array, the distinct (inner, outer) among them, and which of these each buffer has.

    Plans have few distinct groups, so that everything but three terms per algorithm is computed once per group.
    """
    v, m, o = np.broadcast_arrays(np.asarray(size_bytes, float), np.asarray(inner, float), np.asarray(outer, float))
    greatest = fabric.scale_up.size if fabric.scale_up is not None else 1
    slot = m.astype(np.intp)
    key = slot * (1 + int(o.max(initial=1.0))) + o.astype(np.intp)
    whole = bool((slot == m).all()) and bool((o == np.floor(o)).all())
    if whole and int(key.min(initial=0)) >= 0 and int(key.max(initial=0)) < _MOST_KEYS:
        seen = np.zeros(int(key.max(initial=0)) + 1, bool)
        seen[key] = True
        distinct = np.flatnonzero(seen)
        place = np.zeros(len(seen), np.intp)
        place[distinct] = np.arange(len(distinct))
        index = place[key]
        rows = 1 + int(o.max(initial=1.0))
        ms, os_ = (distinct // rows).astype(float), (distinct % rows).astype(float)
    else:
        pairs, index = np.unique(np.stack([m.ravel(), o.ravel()]), axis=1, return_inverse=True)
        ms, os_ = pairs[0], pairs[1]
        index = np.reshape(index, v.shape)
    _need_network(fabric, bool((os_ > 1).any()))
    table = np.clip(np.ceil(ms), 1, greatest).astype(np.intp)
    return v, _Shape(m=ms, o=os_, n=ms * os_, index=table), np.asarray(index, np.intp)


def _need_network(fabric: Fabric, crosses: bool) -> None:
    if crosses and fabric.scale_out is None:
        raise MissingFact("SP-CLUSTER-029")


def _all_reduce(s: _Shape, fabric: Fabric) -> list[_Way]:
    up, out = _levels(fabric)
    moved = 2.0 * (s.n - 1.0) / np.maximum(s.n, 1.0)
    ways = [_ring(s, fabric, moved, rounds=2.0, rate=up.reduce_bytes_per_s, efficiency=out.reduce_efficiency)]
    ways.append(_tree(s, fabric))
    if up.in_switch is not None and up.topology == "switch":
        ways.append(_in_switch(s, fabric))
    if fabric.scale_out is not None and (s.o > 1).any():
        ways.append(_hierarchical(s, fabric, rounds=2.0, rate=up.reduce_bytes_per_s))
    return ways


def _reduce_scatter(s: _Shape, fabric: Fabric) -> list[_Way]:
    return _once_round(s, fabric, _levels(fabric)[0].reduce_bytes_per_s)


def _all_gather(s: _Shape, fabric: Fabric) -> list[_Way]:
    return _once_round(s, fabric, _levels(fabric)[0].gather_bytes_per_s)


def _once_round(s: _Shape, fabric: Fabric, rate: Floats) -> list[_Way]:
    out = _levels(fabric)[1]
    moved = (s.n - 1.0) / np.maximum(s.n, 1.0)
    ways = [_ring(s, fabric, moved, rounds=1.0, rate=rate, efficiency=out.gather_efficiency)]
    if fabric.scale_out is not None and (s.o > 1).any():
        ways.append(_hierarchical(s, fabric, rounds=1.0, rate=rate))
    return ways


def _ring(s: _Shape, fabric: Fabric, moved: Floats, *, rounds: float, rate: Floats, efficiency: Curve) -> _Way:
    """Rings through all members: as many as a domain has members, each crossing by another NIC."""
    up, out = _levels(fabric)
    crosses = s.o > 1
    inside = up.ring_hops[s.index]
    hops_out = np.where(crosses, s.o - 1.0, 0.0)
    # a ring over several domains has n-1 hops, o-1 of them over the network
    hops_up = np.where(crosses, s.o * inside, inside)
    up_bytes = np.where(s.m > 1, moved * np.where(crosses, (s.m - 1.0) / s.m, 1.0), 0.0)
    out_bytes = np.where(crosses, moved / s.m, 0.0)
    return _Way(
        "ring",
        latency_s=_start(s, fabric) + rounds * (hops_up * up.hop_s + hops_out * out.hop_s),
        fill_s=rounds * (hops_up * up.fill_s + hops_out * out.fill_s),
        up_s=np.where(s.m > 1, moved / rate[s.index], 0.0), out_s=out_bytes / (out.bandwidth_bytes_per_s * _level(efficiency)),
        up_bytes=up_bytes, out_bytes=out_bytes,
    )


def _tree(s: _Shape, fabric: Fabric) -> _Way:
    up, out = _levels(fabric)
    crosses = s.o > 1
    hops_up, hops_out = up.tree_hops[s.index], np.where(crosses, np.ceil(np.log2(s.o)), 0.0)
    up_bytes = np.where(s.m > 1, 2.0, 0.0)
    out_bytes = np.where(crosses, 2.0 / s.m, 0.0)
    network = out.bandwidth_bytes_per_s * _level(out.reduce_efficiency)
    return _Way(
        "tree",
        latency_s=_start(s, fabric) + 2.0 * (hops_up * up.hop_s + hops_out * out.hop_s),
        fill_s=2.0 * (hops_up * up.fill_s + hops_out * out.fill_s),
        up_s=up_bytes / (TREE_EFFICIENCY * up.reduce_bytes_per_s[s.index]), out_s=out_bytes / (TREE_EFFICIENCY * network),
        up_bytes=up_bytes, out_bytes=out_bytes,
    )


def _in_switch(s: _Shape, fabric: Fabric) -> _Way:
    """Reduction in the scale-up switch; across domains the reduced share of each member goes round the network afterwards.

    Not at the same time: over 4 nodes of 8x H200 that algorithm is slower than the ring (310 and 365 GB/s, ml-engineering
    @744d01e, network/README.md).
    """
    up, out = _levels(fabric)
    crosses = s.o > 1
    up_bytes = np.where(s.m > 1, (s.m + 1.0) / s.m, 0.0)
    out_bytes = np.where(crosses, 2.0 / s.m * (s.o - 1.0) / s.o, 0.0)
    hops_out = np.where(crosses, 2.0 * np.ceil(np.log2(s.o)), 0.0)
    # its smallest messages go round the ring all the same (NCCL: LL up to 1 MiB), which the ring's candidate prices
    hops_up = 2.0 * up.ring_hops[s.index]
    network = out.bandwidth_bytes_per_s * _level(out.reduce_efficiency)
    return _Way(
        "in-switch", latency_s=_start(s, fabric) + hops_up * up.hop_s + hops_out * out.hop_s,
        fill_s=hops_up * up.fill_s + hops_out * out.fill_s, up_s=up_bytes / up.in_switch_bytes_per_s[s.index],
        out_s=out_bytes / network, up_bytes=up_bytes, out_bytes=out_bytes, at_once=False,
    )


def _hierarchical(s: _Shape, fabric: Fabric, *, rounds: float, rate: Floats) -> _Way:
    """Inside, then 1/inner over the network by recursive halving or doubling, then inside again; one after the other."""
    up, out = _levels(fabric)
    inside = rounds * up.ring_hops[s.index]
    hops_out = rounds * np.where(s.o > 1, np.ceil(np.log2(s.o)), 0.0)
    up_bytes = rounds * (s.m - 1.0) / s.m
    out_bytes = np.where(s.o > 1, rounds / s.m * (s.o - 1.0) / s.o, 0.0)
    network = out.bandwidth_bytes_per_s * _level(out.reduce_efficiency)
    return _Way(
        "hierarchical", latency_s=_start(s, fabric) + inside * up.hop_s + hops_out * out.hop_s,
        fill_s=inside * up.fill_s + hops_out * out.fill_s, up_s=up_bytes / rate[s.index], out_s=out_bytes / network,
        up_bytes=up_bytes, out_bytes=out_bytes, at_once=False,
    )


def _all_to_all(s: _Shape, fabric: Fabric) -> list[_Way]:
    """Pairwise exchange for large messages, Bruck's algorithm for small ones (Thakur et al. 2005, all-to-all)."""
    up, out = _levels(fabric)
    share_in = s.m / s.n
    up_bytes = share_in * np.where(s.m > 1, (s.m - 1.0) / s.m, 0.0)
    out_bytes = 1.0 - share_in
    network = out.bandwidth_bytes_per_s * _level(out.gather_efficiency)
    up_s = share_in * up.all_to_all_s_per_byte[s.index]
    start, far = _start(s, fabric), np.where(s.o > 1, s.n - s.m, 0.0)
    pairwise = _Way(
        "pairwise", latency_s=start + np.maximum(s.m - 1.0, 0.0) * up.hop_s + far * out.hop_s,
        fill_s=up.fill_s + np.where(s.o > 1, out.fill_s, 0.0), up_s=up_s, out_s=out_bytes / network,
        up_bytes=up_bytes, out_bytes=out_bytes,
    )
    rounds = np.ceil(np.log2(np.maximum(s.n, 1.0)))
    inside = np.ceil(np.log2(np.maximum(s.m, 1.0)))
    # each round sends half of the buffer on, where pairwise exchange sends each part once
    more = np.maximum(rounds / 2.0 * s.n / np.maximum(s.n - 1.0, 1.0), 1.0)
    bruck = replace(
        pairwise, algorithm="bruck", latency_s=start + inside * up.hop_s + (rounds - inside) * out.hop_s,
        up_s=up_s * more, out_s=pairwise.out_s * more, up_bytes=up_bytes * more, out_bytes=out_bytes * more,
    )
    return [pairwise, bruck]


def _broadcast(s: _Shape, fabric: Fabric) -> list[_Way]:
    """A pipelined ring: each chip passes the message on once (nccl-tests, doc/PERFORMANCE.md, broadcast)."""
    up, out = _levels(fabric)
    return [_ring(s, fabric, np.ones_like(s.n), rounds=1.0, rate=up.gather_bytes_per_s, efficiency=out.gather_efficiency)]


_OPERATIONS: dict[Operation, _Candidates] = {
    "all_reduce": _all_reduce, "reduce_scatter": _reduce_scatter, "all_gather": _all_gather, "all_to_all": _all_to_all,
    "broadcast": _broadcast,
}

_NO_LINKS = Tier(topology="none", bandwidth_bytes_per_s=float("inf"), size=1, hop_s=0.0)


def _levels(fabric: Fabric) -> tuple[Tier, Tier]:
    return fabric.scale_up or _NO_LINKS, fabric.scale_out or _NO_LINKS


def _start(s: _Shape, fabric: Fabric) -> Floats:
    up, out = _levels(fabric)
    return np.where(s.o > 1, max(up.start_s, out.start_s), up.start_s)


def _level(curve: Curve) -> float:
    """The share of the greatest group; the network's does not depend on the group."""
    return curve[-1][1]
