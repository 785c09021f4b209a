"""Clusters as a user writes them on the command line.

======================================  ==========================================================================
``64x ascend-910b3``                    64 chips, in nodes by the rule of :mod:`sapper.clusters.build`
``a100-sxm-80gb:64``                    the same, count last
``8x ascend-910b2 / 64 nodes``          8 chips in each of 64 nodes
``h100-sxm-80gb``                       one chip
``cloudmatrix384``, ``2x dgx h100``     systems of the catalogue
``8x h100-sxm-80gb + 8x ascend-910b3``  a mixed cluster
``cluster.toml``                        a file, see :mod:`sapper.clusters.file`
======================================  ==========================================================================

Full-width characters and the Chinese measure words for cards and nodes are read as well.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

import msgspec

from sapper.chips import Catalogue, Chip, System, catalogue
from sapper.clusters.assume import Assumptions
from sapper.clusters.build import MOST_CHIPS, NODE_SIZED, group_of
from sapper.clusters.cluster import Cluster, Group
from sapper.clusters.joined import joined
from sapper.errors import AmbiguousName, BadValue, MissingFact
from sapper.evidence import Fact

Given = Assumptions | Mapping[str, str] | None

# Measure words: ka, zhang, kuai, pian, ke, ge for chips; jiedian, tai for nodes.
_COUNT = re.compile(r"(-?\d[\d_]*)\s*(?:[xX\u00d7*]|[\u5361\u5f20\u5757\u7247\u9897\u4e2a])\s*(\S.*)", re.DOTALL)
_COUNT_LAST = re.compile(r"(.*\S)\s*:\s*(-?\d[\d_]*)", re.DOTALL)
_NODES = re.compile(r"(.*\S)\s*/\s*(-?\d[\d_]*)\s*(?:nodes?|\u8282\u70b9|\u4e2a\u8282\u70b9|\u53f0)?", re.DOTALL | re.IGNORECASE)
_NO_NAME = re.compile(r"-?\d[\d_]*\s*[xX\u00d7*:\u5361\u5f20\u5757\u7247\u9897\u4e2a]")
_LONGEST = 2000
"""Characters of a spec; longer text is a mistake and would only slow the search for near names."""


class Part(msgspec.Struct, frozen=True):
    """One group as written: a name, and the counts that stand beside it."""

    text: str
    name: str
    count: int | None
    nodes: int | None


def parse_cluster(text: str, *, assumptions: Given = None, catalogue: Catalogue | None = None) -> Cluster:
    """The cluster that ``text`` means.

    Args:
        text: A spec as this module lists them, or the path of a cluster file.
        assumptions: ``{"scale_out": "200Gb/s", "mtt-s4000.tdp": "450 W"}``: fills values that the catalogue does not know.
        catalogue: Where names are looked up; None: the catalogue of the search path.

    Raises:
        BadValue: The text cannot be read, a count cannot be meant, or chips do not fill whole nodes.
        UnknownName, AmbiguousName: A chip, an assumption.
        MissingFact: A system whose number of chips nobody states.
        BadFile: The cluster file.
    """
    chips = catalogue or _catalogue()
    assumed = Assumptions.of(assumptions, chips)
    cluster = _cluster(text, assumed, chips)
    assumed.check_chips(group.chip.id for group in cluster.groups)
    return cluster


def parse_groups(
    text: str, *, chips: int | None = None, assumptions: Given = None, catalogue: Catalogue | None = None
) -> tuple[Cluster, ...]:
    """The clusters of a comma-separated list such as ``64x a100-sxm-80gb, 910b3, cluster.toml``, each an option of its own.

    A chip without a count has ``chips`` chips; without ``chips`` it has the count of the first option, so that the list
    above compares 64 with 64. Systems and files keep their own numbers.

    Raises:
        BadValue: The list is empty; and all that :func:`parse_cluster` raises.
    """
    found = catalogue or _catalogue()
    assumed = Assumptions.of(assumptions, found)
    parts = [part.strip() for part in re.split("[,;\uff0c\uff1b\u3001\n]", text) if part.strip()]
    if not parts:
        raise BadValue("SP-CLUSTER-001", text=text)
    if chips is not None:
        _check_count(chips, text, "--chips")
    shared = chips if chips is not None else _shared_count(parts[0])
    clusters = tuple(_cluster(part, assumed, found, count=shared) for part in parts)
    assumed.check_chips(group.chip.id for cluster in clusters for group in cluster.groups)
    return clusters


def cluster_of(chip: Chip, chips: int, *, per_node: int | None = None, assumptions: Given = None) -> Cluster:
    """``chips`` chips of one kind, for callers that have the chip; nodes as in :func:`parse_cluster`.

    Raises:
        BadValue: The chips do not fill whole nodes.
    """
    group = group_of(chip, chips, per_node=per_node, assumed=Assumptions.of(assumptions))
    return Cluster(name=_name([group]), groups=(group,))


def _catalogue() -> Catalogue:
    return catalogue()


def is_file(text: str) -> bool:
    """Whether a spec is the path of a file: it ends in .toml or begins like a path."""
    stripped = text.strip()
    return stripped.lower().endswith(".toml") or stripped.startswith(("./", "../", "/", "~", ".\\", "..\\"))


def _cluster(text: str, assumed: Assumptions, chips: Catalogue, *, count: int | None = None) -> Cluster:
    if is_file(text):
        from sapper.clusters.file import read_cluster

        return read_cluster(text.strip(), assumptions=assumed, catalogue=chips)
    if len(text) > _LONGEST:
        raise BadValue("SP-CLUSTER-004", text=f"{text[:40]}...")
    plain = " ".join(unicodedata.normalize("NFKC", text).split())
    if not plain:
        raise BadValue("SP-CLUSTER-001", text=text)
    pieces = re.split(r"(?:^|\s)\+(?:\s|$)", plain)
    if any(is_file(piece) for piece in pieces):
        raise BadValue("SP-CLUSTER-017", text=plain)
    groups = distinct([_group(read_part(piece), assumed, chips, count=count) for piece in pieces])
    whole = sum(group.chips for group in groups)
    if whole > MOST_CHIPS:
        raise BadValue("SP-CLUSTER-002", where=plain, value=str(whole), most=MOST_CHIPS)
    return Cluster(name=_name(groups), groups=tuple(groups), links=joined(groups, (), assumed))


def read_part(text: str) -> Part:
    """The name and the counts of one group.

    Raises:
        BadValue: Nothing stands there, or a count is not a number of chips or nodes.
    """
    rest = text.strip()
    nodes = count = None
    match = _NODES.fullmatch(rest)
    if match:
        rest, nodes = match[1], _number(match[2], text)
    match = _COUNT.fullmatch(rest)
    if match:
        count, rest = _number(match[1], text), match[2]
    else:
        match = _COUNT_LAST.fullmatch(rest)
        if match:
            rest, count = match[1], _number(match[2], text)
    if _NO_NAME.fullmatch(rest) or not any(character.isalnum() for character in rest):
        raise BadValue("SP-CLUSTER-004", text=text or " ")
    return Part(text, rest, count, nodes)


def _number(digits: str, text: str) -> int:
    # int() refuses numbers of thousands of digits with a ValueError; no cluster has ten.
    number = int(digits) if len(digits) <= 10 else MOST_CHIPS + 1
    _check_count(number, digits if len(digits) <= 20 else f"{digits[:17]}...", text)
    return number


def _check_count(number: int, value: str, where: str) -> None:
    if not 1 <= number <= MOST_CHIPS:
        raise BadValue("SP-CLUSTER-002", where=where.strip() or None, value=str(number) if where == "--chips" else value, most=MOST_CHIPS)


def _shared_count(first: str) -> int | None:
    if is_file(first) or len(first) > _LONGEST:
        return None
    pieces = re.split(r"\s\+\s", " ".join(unicodedata.normalize("NFKC", first).split()))
    if len(pieces) != 1:
        return None
    part = read_part(pieces[0])
    return None if part.nodes is not None else part.count


def _group(part: Part, assumed: Assumptions, chips: Catalogue, *, count: int | None) -> Group:
    found = _find(part.name, chips)
    if isinstance(found, System):
        return _system(found, part, assumed, chips)
    count = part.count if part.count is not None or part.nodes is not None else count
    if part.nodes is not None:
        return group_of(found, nodes=part.nodes, per_node=part.count, assumed=assumed)
    return group_of(found, 1 if count is None else count, assumed=assumed)


def _find(name: str, chips: Catalogue) -> Chip | System:
    """The chip that ``name`` means, else the system.

    Raises:
        UnknownName, AmbiguousName: As the catalogue raises them.
    """
    if not chips.names.find(name) and len(chips.system_names.find(name)) >= 1:
        return chips.resolve_system(name)
    try:
        return chips.resolve(name)
    except AmbiguousName:
        if name in chips.systems:
            return chips.systems[name]
        raise


def _system(system: System, part: Part, assumed: Assumptions, chips: Catalogue) -> Group:
    if system.count is None:
        raise MissingFact("SP-CLUSTER-005", where=part.text, system=system.id, chip=system.chip)
    if part.nodes is not None:
        raise BadValue("SP-CLUSTER-018", text=part.text, system=system.id, count=system.count)
    chip = chips.resolve(system.chip)
    many = part.count or 1
    if many * system.count > MOST_CHIPS:
        raise BadValue("SP-CLUSTER-002", where=part.text, value=str(many * system.count), most=MOST_CHIPS)
    if system.count <= NODE_SIZED:
        group = group_of(chip, nodes=many, per_node=system.count, assumed=assumed)
        size = Fact(value=float(system.count), unit="", source=f"catalogue, {system.id} count", grade="vendor-claimed")
        return msgspec.structs.replace(group, node_size=size)
    return group_of(chip, many * system.count, assumed=assumed)


def distinct(groups: list[Group]) -> list[Group]:
    """The groups with names that differ: a second group of the same chip gets ``-2``."""
    seen: dict[str, int] = {}
    named = []
    for group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        number = seen[group.name]
        named.append(group if number == 1 else msgspec.structs.replace(group, name=f"{group.name}-{number}"))
    return named


def _name(groups: list[Group]) -> str:
    return " + ".join(f"{group.chips}x {group.chip.id}" for group in groups)
