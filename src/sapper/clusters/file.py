"""A cluster file: TOML that says what the command line cannot (own links, own chips, unlike groups, prices).

See docs/clusters.md for every field and examples/clusters for whole files. A value that the file gives replaces the
catalogue's and says so in its evidence; a value that it leaves out comes from the catalogue.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import msgspec

from sapper import messages
from sapper.chips import Catalogue, Chip, catalogue
from sapper.chips.faults import Fault, Reader, join
from sapper.chips.schema import ScaleUp
from sapper.clusters.assume import MOST_PUE, Assumptions, money_per_joule
from sapper.clusters.build import MOST_CHIPS, group_of
from sapper.clusters.cluster import TOPOLOGIES, Cluster, Group, GroupLink, Link
from sapper.clusters.joined import joined
from sapper.clusters.priors import SCALE_OUT, link_prior
from sapper.clusters.spec import distinct
from sapper.clusters.torus import RANK, wraps
from sapper.errors import BadFile, BadValue, SapperError
from sapper.evidence import GRADES, Fact
from sapper.files import parse_toml, read_text

FILE_FIELDS = ("name", "note", "power_price", "pue", "sources", "group", "link")
GROUP_FIELDS = ("name", "chip", "nodes", "chips_per_node", "scale_up", "scale_out", "note")
SCALE_UP_FIELDS = ("name", "topology", "bandwidth", "p2p", "domain", "latency", "start", "dims", "wrap", "note")
SCALE_OUT_FIELDS = ("name", "bandwidth", "latency", "start", "oversubscription", "note")
LINK_FIELDS = ("from", "to", "bandwidth", "latency", "note")
MOST_GROUPS = 100
MOST_OVERSUBSCRIPTION = 1000.0


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What a cluster file holds, or its faults."""

    cluster: Cluster | None
    faults: tuple[Fault, ...] = ()


def read_cluster(path: str | os.PathLike[str], *, assumptions: Assumptions | None = None, catalogue: Catalogue | None = None) -> Cluster:
    """The cluster of a file.

    Args:
        path: The file.
        assumptions: Fill what neither the file nor the catalogue knows.
        catalogue: Where chips are looked up; None: the catalogue of the search path.

    Raises:
        BadFile: Unreadable, malformed, or with faults; the first is named with its line, and how many more there are.
    """
    checked = check_cluster(path, assumptions=assumptions, catalogue=catalogue)
    if checked.cluster is not None:
        return checked.cluster
    first, more = checked.faults[0], len(checked.faults) - 1
    if more == 0:
        raise BadFile(first.code, where=first.where, **first.values)
    problem = messages.Phrase(first.code, **first.values)
    raise BadFile("SP-CLUSTER-020", where=first.where, problem=problem, more=more, file=os.fspath(path))


def check_cluster(path: str | os.PathLike[str], *, assumptions: Assumptions | None = None, catalogue: Catalogue | None = None) -> Checked:
    """The cluster of a file, or all its faults.

    Raises:
        BadFile: The file is unreadable or no TOML.
    """
    where = os.path.expanduser(os.fspath(path))
    return check_text(read_text(where), where, assumptions=assumptions, catalogue=catalogue)


def check_text(text: str, where: str, *, assumptions: Assumptions | None = None, catalogue: Catalogue | None = None) -> Checked:
    """The same for the ``text`` of a file ``where``."""
    reader = _Reader(parse_toml(text, where), where=where, text=text)
    cluster = _cluster(reader, assumptions or Assumptions(), catalogue or _catalogue())
    faults = tuple(sorted(reader.faults, key=lambda fault: (fault.line or 0, fault.field)))
    return Checked(cluster=None, faults=faults) if faults or cluster is None else Checked(cluster=cluster)


def _catalogue() -> Catalogue:
    return catalogue()


class _Reader(Reader):
    """The reader of chip files with the words of cluster files, and the file itself as the source of bare values."""

    def __init__(self, table: dict[str, Any], *, where: str, text: str) -> None:
        super().__init__(table, where=where, text=text)
        self.sources.setdefault("default", {"source": f"cluster file {os.path.basename(where)}", "grade": "assumed"})

    def fault(self, code: str, field: str, value: Any = None, /, **values: Any) -> None:
        """Note a fault; what names the documents of chips names those of clusters."""
        super().fault("SP-CLUSTER-013" if code == "SP-CHIP-013" else code, field, value, **values)

    def refused(self, error: SapperError, field: str, value: Any) -> None:
        """Note an error that a deeper layer raised about ``field``."""
        super().fault(error.code, field, value, **error.values)

    def count(self, table: Mapping[str, Any], key: str, path: str) -> int | None:
        """A number of nodes or chips."""
        return self.integer(table, key, path, "devices")

    def ratio(self, table: Mapping[str, Any], key: str, path: str, *, most: float, example: str) -> float | None:
        """A number from 1 to ``most``."""
        value = table.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            self.wrong_type(join(path, key), value, "number")
            return None
        if not 1.0 <= value <= most:
            self.fault("SP-CHIP-020", join(path, key), value, low="1", high=f"{most:g}", example=example)
            return None
        return float(value)


def _cluster(reader: _Reader, assumed: Assumptions, chips: Catalogue) -> Cluster | None:
    table = reader.table
    reader.fields(table, "", FILE_FIELDS)
    name = reader.string(table, "name") or os.path.basename(reader.where).removesuffix(".toml")
    pue = reader.ratio(table, "pue", "", most=MOST_PUE, example="1.25")
    price = _price(reader)
    entries = reader.tables(table, "group")
    if not entries and isinstance(table.get("group", []), list):
        reader.fault("SP-CLUSTER-014", "group")
    if len(entries) > MOST_GROUPS:
        reader.fault("SP-CLUSTER-019", "group", len(entries), most=MOST_GROUPS)
        return None
    groups = [group for path, entry in entries if (group := _group(reader, entry, path, assumed, chips)) is not None]
    _check_names(reader, entries)
    groups = distinct(groups)
    links = tuple(link for path, entry in reader.tables(table, "link") if (link := _group_link(reader, entry, path, groups)) is not None)
    if sum(group.chips for group in groups) > MOST_CHIPS:
        reader.fault("SP-CLUSTER-002", "group", sum(group.chips for group in groups), most=MOST_CHIPS)
    if reader.faults or not groups:
        return None
    site = Fact(value=pue, unit="", **_file_evidence(reader)) if pue is not None else assumed.fact("pue")
    return Cluster(
        name=name, groups=tuple(groups), links=joined(groups, links, assumed), power_price=price or assumed.fact("power_price"), pue=site,
    )


def _file_evidence(reader: _Reader) -> dict[str, Any]:
    return reader.sources["default"]


def _price(reader: _Reader) -> Fact | None:
    value = reader.table.get("power_price")
    if value is None:
        return None
    if not isinstance(value, str):
        reader.fault("SP-CLUSTER-021", "power_price", value)
        return None
    try:
        amount, unit = money_per_joule(value, where="power_price")
    except BadValue:
        reader.fault("SP-CLUSTER-021", "power_price", value)
        return None
    return Fact(value=amount, unit=unit, **_file_evidence(reader))


def _check_names(reader: _Reader, entries: list[tuple[str, dict[str, Any]]]) -> None:
    seen: dict[str, str] = {}
    for path, entry in entries:
        name = entry.get("name")
        if isinstance(name, str):
            if name in seen:
                reader.fault("SP-CLUSTER-016", join(path, "name"), name, first=seen[name])
            seen.setdefault(name, path)


def _group(reader: _Reader, table: dict[str, Any], path: str, assumed: Assumptions, chips: Catalogue) -> Group | None:
    reader.fields(table, path, GROUP_FIELDS)
    before = len(reader.faults)
    chip = _chip(reader, table, path, chips)
    nodes, per_node = reader.count(table, "nodes", path), reader.count(table, "chips_per_node", path)
    name = reader.string(table, "name", path)
    if nodes is None and "nodes" not in table:
        reader.fault("SP-CLUSTER-013", join(path, "nodes"))
    if chip is None or nodes is None or len(reader.faults) > before:
        _links(reader, table, path)
        return None
    if nodes * (per_node or 1) > MOST_CHIPS:
        reader.fault("SP-CLUSTER-002", join(path, "nodes"), nodes * (per_node or 1), most=MOST_CHIPS)
        return None
    own, wired = _links(reader, table, path)
    group = group_of(_with_own(chip, own), nodes=nodes, per_node=per_node, assumed=assumed, name=name)
    up = _scale_up(group, own, reader, join(path, "scale_up"), catalogued=chip.scale_up) if own else group.scale_up
    out = _scale_out(group.scale_out, wired) if wired else group.scale_out
    # The chip stays as the catalogue has it, because its measurements refer to its own links.
    own_chip = msgspec.structs.replace(group.chip, scale_up=chip.scale_up)
    return msgspec.structs.replace(group, chip=own_chip, scale_up=up, scale_out=out)


def _chip(reader: _Reader, table: dict[str, Any], path: str, chips: Catalogue) -> Chip | None:
    """The chip that a group names: in the catalogue, or in a chip file beside the cluster file."""
    name = reader.string(table, "chip", path, required=True)
    if name is None:
        return None
    try:
        if not name.lower().endswith(".toml"):
            return chips.resolve(name)
        from sapper.chips.catalogue import read_head

        file = os.path.join(os.path.dirname(reader.where), os.path.expanduser(name))
        return catalogue((file,)).resolve(read_head(file).id)
    except SapperError as error:
        if isinstance(error, BadFile):
            reader.fault("SP-CLUSTER-022", join(path, "chip"), name, problem=messages.Phrase(error.code, **error.values), file=error.where)
        else:
            reader.refused(error, join(path, "chip"), name)
        return None


def _links(reader: _Reader, table: dict[str, Any], path: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the file says of the scale-up and the scale-out links."""
    found = []
    for key, known in (("scale_up", SCALE_UP_FIELDS), ("scale_out", SCALE_OUT_FIELDS)):
        at, entry = join(path, key), reader.sub(table, key, path)
        reader.fields(entry, at, known)
        values: dict[str, Any] = {
            "name": reader.string(entry, "name", at),
            "bandwidth": reader.fact(entry, "bandwidth", at, "link"),
            "latency": reader.fact(entry, "latency", at, "latency"),
            "start": reader.fact(entry, "start", at, "latency"),
        }
        if key == "scale_up":
            values |= {
                "topology": reader.choice(entry, "topology", at, (*TOPOLOGIES, "none")),
                "p2p": reader.fact(entry, "p2p", at, "link"), "domain": reader.integer(entry, "domain", at, "domain"),
                "dims": _dims(reader, entry, at), "wrap": _wrap(reader, entry, at),
            }
        else:
            values["oversubscription"] = reader.ratio(entry, "oversubscription", at, most=MOST_OVERSUBSCRIPTION, example="2")
        found.append({name: value for name, value in values.items() if value is not None})
    return found[0], found[1]


def _dims(reader: _Reader, table: dict[str, Any], path: str) -> tuple[int, ...] | None:
    value = table.get("dims")
    if value is None:
        return None
    if not isinstance(value, list) or not 1 <= len(value) <= 3 or any(isinstance(n, bool) or not isinstance(n, int) for n in value):
        reader.fault("SP-CLUSTER-023", join(path, "dims"), value)
        return None
    if any(not 1 <= size <= MOST_CHIPS for size in value):
        reader.fault("SP-CLUSTER-023", join(path, "dims"), value)
        return None
    return tuple(value)


def _wrap(reader: _Reader, table: dict[str, Any], path: str) -> tuple[bool, ...] | None:
    value = table.get("wrap")
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, bool) for item in value):
        reader.fault("SP-CLUSTER-024", join(path, "wrap"), value)
        return None
    return tuple(value)


def _with_own(chip: Chip, own: dict[str, Any]) -> Chip:
    """``chip`` with the file's topology and domain, so that the rules for nodes and slices follow them."""
    if not {"topology", "domain", "bandwidth"} & set(own):
        return chip
    base = chip.scale_up or ScaleUp(name="scale-up link", topology="unknown")
    topology = own.get("topology", base.topology)
    domain = own.get("domain", base.domain_size)
    return msgspec.structs.replace(chip, scale_up=msgspec.structs.replace(base, topology=topology, domain_size=domain))


def _scale_up(group: Group, own: dict[str, Any], reader: _Reader, path: str, *, catalogued: ScaleUp | None) -> Link | None:
    """The link of the catalogue with what the file gives in its place; None where the file says ``none``."""
    if own.get("topology") == "none":
        return None
    link = group.scale_up
    if link is None:
        prior = link_prior(own.get("topology", "unknown"))
        link = Link(name="scale-up link", topology=own.get("topology", "unknown"), latency_s=prior.hop_s, start_s=prior.start_s,
                    bandwidth_bytes_per_s=Fact(value=None, unit="bytes/s", source="not in the file", grade="assumed"),
                    domain_size=own.get("domain"))
    changes: dict[str, Any] = {}
    if catalogued is not None and own.get("topology", catalogued.topology) != catalogued.topology:
        # the latency of the catalogue was measured on links of another kind
        prior = link_prior(link.topology)
        changes |= {"latency_s": prior.hop_s, "start_s": prior.start_s, "p2p_bytes_per_s": None}
    if "dims" in own or "wrap" in own:
        wired = group.chip.scale_up.domain_size if group.chip.scale_up else None
        changes |= _slice(link, own, reader, path, wired=wired)
    for name, field in (("bandwidth", "bandwidth_bytes_per_s"), ("latency", "latency_s"), ("start", "start_s"), ("p2p", "p2p_bytes_per_s")):
        if name in own:
            changes[field] = _replacing(own[name], getattr(link, field))
    if "name" in own:
        changes["name"] = own["name"]
    if "bandwidth" in own and "p2p" not in own:
        changes["p2p_bytes_per_s"] = None
    return msgspec.structs.replace(link, **changes)


def _slice(link: Link, own: dict[str, Any], reader: _Reader, path: str, *, wired: int | None) -> dict[str, Any]:
    """Axes of a torus, checked against the topology and the domain."""
    rank, dims = RANK.get(link.topology), own.get("dims", link.dims)
    if rank is None or len(dims) != rank:
        reader.fault("SP-CLUSTER-025", join(path, "dims" if "dims" in own else "wrap"), list(dims), topology=link.topology)
        return {}
    whole = 1
    for size in dims:
        whole *= size
    if link.domain_size is not None and whole != link.domain_size:
        product = " x ".join(str(size) for size in dims)
        reader.fault("SP-CLUSTER-026", join(path, "dims"), list(dims), product=product, whole=whole, domain=link.domain_size)
        return {}
    closed = dict(zip(sorted(dims, reverse=True), wraps(tuple(sorted(dims, reverse=True)), wired or whole), strict=True))
    wrap = own.get("wrap", tuple(closed[size] for size in dims))
    if len(wrap) != rank:
        reader.fault("SP-CLUSTER-024", join(path, "wrap"), list(wrap))
        return {}
    return {"dims": dims, "wrap": wrap, "domain_size": whole}


def _scale_out(link: Link | None, own: dict[str, Any]) -> Link:
    prior = link_prior(SCALE_OUT)
    base = link or Link(
        name="network", topology="switch", latency_s=prior.hop_s, start_s=prior.start_s, domain_size=None,
        bandwidth_bytes_per_s=Fact(value=None, unit="bytes/s", source="not in the file", grade="assumed"),
    )
    changes: dict[str, Any] = {}
    for name, field in (("bandwidth", "bandwidth_bytes_per_s"), ("latency", "latency_s"), ("start", "start_s")):
        if name in own:
            changes[field] = _replacing(own[name], getattr(base, field))
    changes |= {name: own[name] for name in ("name", "oversubscription") if name in own}
    if "bandwidth" in own and "name" not in own:
        changes["name"] = "network"
    return msgspec.structs.replace(base, **changes)


def _replacing(new: Fact, old: Fact | None) -> Fact:
    """``new``, which says what it replaces where the catalogue knew another value; the better evidence where they agree."""
    if old is None or old.number is None:
        return new
    if old.number == new.number:
        return min(new, old, key=lambda fact: GRADES.index(fact.grade))
    note = f"replaces {old.number:g} {old.unit} ({old.grade}: {old.source})"
    return msgspec.structs.replace(new, note="; ".join(filter(None, (new.note, note))))


def _group_link(reader: _Reader, table: dict[str, Any], path: str, groups: list[Group]) -> GroupLink | None:
    reader.fields(table, path, LINK_FIELDS)
    names = [group.name for group in groups]
    ends = []
    for key in ("from", "to"):
        name = reader.string(table, key, path, required=True)
        # Faults of the groups themselves come first; names cannot be judged without them.
        if name is not None and name not in names and not reader.faults:
            reader.fault("SP-CLUSTER-015", join(path, key), name, known=", ".join(f"`{known}`" for known in names))
        ends.append(name)
    bandwidth = reader.fact(table, "bandwidth", path, "link")
    latency = reader.fact(table, "latency", path, "latency")
    if None in ends or reader.faults:
        return None
    if ends[0] == ends[1]:
        reader.fault("SP-CLUSTER-027", join(path, "to"), ends[1])
        return None
    return GroupLink(
        from_group=str(ends[0]), to_group=str(ends[1]), latency_s=latency or link_prior(SCALE_OUT).hop_s,
        bandwidth_bytes_per_s=bandwidth or Fact(value=None, unit="bytes/s", source="not in the file", grade="assumed", status="unknown"),
    )

