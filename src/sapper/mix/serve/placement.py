"""Placement: which layers stand on which node, and the links that requests take between them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import msgspec

from sapper.errors import BadPlan
from sapper.files import decode, read_json, write_atomic
from sapper.mix.serve.fleet import COORDINATOR, Fleet

FORMAT = "sapper-mix-placement/1"
Edge = tuple[int, int]
"""(from node, to node); -1 is the coordinator."""
Span = tuple[int, int]
"""Half-open range of layers."""


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node in the file."""

    node: str
    machine: str
    first: int
    last: int
    """One past the last layer."""


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One link in the file."""

    source: str
    target: str
    share: float
    """Of the requests that leave ``source``."""


class PlacementFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file that ``sapper mix serve --place --out`` writes."""

    format: str
    model: str
    layers: int
    nodes: tuple[Row, ...]
    routes: tuple[Route, ...]
    decode_tokens_per_s: float | None = None
    bound_tokens_per_s: float | None = None


@dataclass(frozen=True)
class Placement:
    """Layers by node; None: a node that is left out."""

    layers: int
    spans: tuple[Span | None, ...]

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """The links that requests may take: a node begins where another ends (no request enters a node in the middle of its range)."""
        starts: dict[int, list[int]] = {}
        for node, span in enumerate(self.spans):
            if span is not None:
                starts.setdefault(span[0], []).append(node)
        found = [(COORDINATOR, node) for node in starts.get(0, ())]
        for node, span in enumerate(self.spans):
            if span is None:
                continue
            if span[1] == self.layers:
                found.append((node, COORDINATOR))
            found += [(node, follower) for follower in starts.get(span[1], ())]
        return tuple(found)

    @cached_property
    def used(self) -> frozenset[int]:
        """Nodes that lie on a way through all layers."""
        into, out_of = reachable(self.edges, forward=True), reachable(self.edges, forward=False)
        return frozenset(into & out_of)

    def pruned(self) -> Placement:
        """Without the nodes that no request can pass."""
        return Placement(self.layers, tuple(span if node in self.used else None for node, span in enumerate(self.spans)))


def reachable(edges: Sequence[Edge], *, forward: bool) -> set[int]:
    """Nodes that can be reached from the coordinator, or that reach it."""
    following: dict[int, list[int]] = {}
    for source, target in edges:
        start, end = (source, target) if forward else (target, source)
        following.setdefault(start, []).append(end)
    found: set[int] = set()
    rest = list(following.get(COORDINATOR, ()))
    while rest:
        node = rest.pop()
        if node == COORDINATOR or node in found:
            continue
        found.add(node)
        rest += following.get(node, ())
    return found


def check(placement: Placement, fleet: Fleet) -> None:
    """Refuse a placement that cannot serve.

    Raises:
        BadPlan: A node holds more layers than it has room for, or layers outside the model; or no chain of nodes, each of which
            begins where the one before it ends, passes all layers.
    """
    for node, span in enumerate(placement.spans):
        if span is None:
            continue
        most = fleet.machines[node].most_layers
        if not 0 <= span[0] < span[1] <= placement.layers or span[1] - span[0] > most:
            raise BadPlan("SP-MIX-240", where=fleet.names[node], first=span[0], last=span[1], layers=placement.layers, most=most)
    if not placement.used:
        raise BadPlan("SP-MIX-241", layers=placement.layers, reached=_reached(placement))


def _reached(placement: Placement) -> int:
    """Layers that requests pass before no node begins where the last one ends."""
    into = reachable(placement.edges, forward=True)
    return max((span[1] for node, span in enumerate(placement.spans) if span is not None and node in into), default=0)


def write(
    path: str | os.PathLike[str],
    placement: Placement,
    fleet: Fleet,
    *,
    flows: dict[Edge, float],
    decode_tokens_per_s: float | None = None,
    bound_tokens_per_s: float | None = None,
) -> None:
    """Write ``placement`` and the shares of its links."""
    leaving: dict[int, float] = {}
    for (source, _), flow in flows.items():
        leaving[source] = leaving.get(source, 0.0) + flow

    def name(node: int) -> str:
        return "coordinator" if node == COORDINATOR else fleet.names[node]

    content = PlacementFile(
        format=FORMAT,
        model=fleet.model,
        layers=placement.layers,
        nodes=tuple(
            Row(node=fleet.names[node], machine=fleet.machines[node].name, first=span[0], last=span[1])
            for node, span in enumerate(placement.spans)
            if span is not None
        ),
        routes=tuple(
            Route(source=name(source), target=name(target), share=round(flow / leaving[source], 6))
            for (source, target), flow in flows.items()
            if flow > 0
        ),
        decode_tokens_per_s=decode_tokens_per_s,
        bound_tokens_per_s=bound_tokens_per_s,
    )
    write_atomic(path, msgspec.json.format(msgspec.json.encode(content), indent=2))


def read(path: str | os.PathLike[str], fleet: Fleet) -> Placement:
    """The placement of a file, for ``fleet``.

    Raises:
        BadFile: The file is no placement.
        BadPlan: It is for other nodes or another number of layers, or cannot serve.
    """
    content = decode(PlacementFile, read_json(path), os.fspath(path))
    places = {name: node for node, name in enumerate(fleet.names)}
    unknown = next((row for row in content.nodes if row.node not in places), None)
    if content.format != FORMAT or content.layers != fleet.layers or unknown is not None:
        raise BadPlan(
            "SP-MIX-242",
            where=os.fspath(path),
            format=content.format,
            layers=content.layers,
            due=fleet.layers,
            node="-" if unknown is None else unknown.node,
        )
    spans: list[Span | None] = [None] * fleet.nodes
    for row in content.nodes:
        spans[places[row.node]] = (row.first, row.last)
    placement = Placement(fleet.layers, tuple(spans))
    check(placement, fleet)
    return placement
