"""The chip that a row means: by catalogue id, else by the label; a die of it, or a variant that the row describes."""

from __future__ import annotations

import re

import msgspec

from sapper.chips.catalogue import Catalogue
from sapper.chips.schema import Chip, MemorySpec, ScaleUp
from sapper.errors import AmbiguousName, UnknownName
from sapper.evidence import Fact
from sapper.predict.rows.case import Assumption
from sapper.predict.rows.row import Row, RowFault

_REMARK = re.compile(r"\(.*?\)")
_MEMORY = re.compile(r"(\d+)\s*gi?b\b(?:\s*(hbm\w*|gddr\w*))?", re.IGNORECASE)
_POWER = re.compile(r"(\d{2,4})\s*w\b", re.IGNORECASE)
_BANDWIDTH = re.compile(r"(\d+(?:\.\d+)?)\s*tb/s", re.IGNORECASE)
_FORM = re.compile(r"\b(sxm\d?|pcie|oam|nvl\d*)\b", re.IGNORECASE)
_NOISE = re.compile(r"\b(gpu|ai accelerator|accelerator|npu|tpu chip)\b", re.IGNORECASE)


def chip_of(row: Row, catalogue: Catalogue) -> tuple[Chip, tuple[Assumption, ...]]:
    """The chip of the row, and what had to be assumed of it.

    A label that names a chip of the catalogue and a memory that this chip does not have (``H100 96GB HBM2e 500W``) is a
    variant: the catalogue's chip with the facts that the row states.

    Raises:
        RowFault: No chip of the catalogue bears the id or the label, or several do.
    """
    chip = _by_id(row, catalogue) or _by_label(row.chip, catalogue)
    variant = _variant(chip, row)
    if variant is None:
        return chip, ()
    return variant, (Assumption(field="chip", value=row.chip, code="assume.variant", values={"base": chip.id}),)


def _by_id(row: Row, catalogue: Catalogue) -> Chip | None:
    if row.chip_id is None:
        return None
    if row.chip_id in catalogue.chips:
        return catalogue.chips[row.chip_id]
    raise RowFault("SP-ROW-012", "chip_id", name=row.chip_id)


def _by_label(label: str, catalogue: Catalogue) -> Chip:
    bare = _NOISE.sub(" ", _REMARK.sub(" ", label))
    inner = [found[1] for found in re.finditer(r"\(([^()]{2,40})\)", label)]
    short = _FORM.sub(" ", _POWER.sub(" ", _MEMORY.sub(" ", bare))).replace("HBM3", " ")
    ambiguous: list[Chip] = []
    for name in (label, bare, *inner, short):
        spelled = " ".join(name.replace("-", " ").split()).strip(" ,")
        if not spelled:
            continue
        try:
            found = catalogue.find(spelled)
        except (UnknownName, AmbiguousName):
            continue
        if len(found) == 1:
            return found[0]
        ambiguous = ambiguous or found
    chosen = _narrowed(ambiguous, label)
    if len(chosen) == 1:
        return chosen[0]
    if ambiguous:
        raise RowFault("SP-ROW-013", "chip", name=label, candidates=", ".join(chip.id for chip in ambiguous))
    raise RowFault("SP-ROW-012", "chip", name=label)


def _narrowed(chips: list[Chip], label: str) -> list[Chip]:
    """Of several chips, those whose memory and form the label names."""
    memory, form = _MEMORY.search(label), _FORM.search(label)
    if memory:
        chips = [chip for chip in chips if _same_size(chip, int(memory[1]))]
    if form:
        kind = re.sub(r"\d", "", form[1].lower())
        chips = [chip for chip in chips if kind in f"{chip.id} {chip.name} {chip.form_factor}".lower()]
    return chips if memory or form else []


def _gib(chip: Chip) -> float | None:
    fact = chip.memory.capacity_bytes
    return None if fact is None or fact.number is None else fact.number / 2**30


def _same_size(chip: Chip, gib: int) -> bool:
    """Whether a chip has the memory that a label states; marketing rounds (B200: 180 of 192)."""
    have = _gib(chip)
    return have is not None and abs(have / gib - 1) < 0.1


def _variant(chip: Chip, row: Row) -> Chip | None:
    memory = _MEMORY.search(_REMARK.sub(" ", row.chip))
    if memory is None or _gib(chip) is None or _same_size(chip, int(memory[1])) or chip.devices_per_card is not None:
        return None
    bandwidth, power = _BANDWIDTH.search(row.note), _POWER.search(row.chip) or _POWER.search(row.note)
    if bandwidth is None:
        raise RowFault("SP-ROW-012", "chip", name=row.chip)

    def stated(value: float, unit: str) -> Fact:
        return Fact(value=value, unit=unit, source=row.url or row.source, grade="measured-elsewhere", note=row.note or row.chip)

    capacity = stated(float(memory[1]) * 2**30, "bytes")
    spec = MemorySpec(
        type=(memory[2] or chip.memory.type or "").upper() or None,
        capacity_bytes=capacity,
        bandwidth_bytes_per_s=stated(float(bandwidth[1]) * 1e12, "bytes/s"),
    )
    tdp = stated(float(power[1]), "W") if power else chip.tdp_w
    return msgspec.structs.replace(
        chip, id=f"{chip.id}+{memory[1]}gb", memory=spec, tdp_w=tdp, name=row.chip, measured=(), price=()
    )


def die_of(chip: Chip) -> Chip:
    """One of the devices that a program sees on a card of several: every figure of the card divided by their number."""
    parts = chip.devices_per_card or 1
    if parts == 1:
        return chip
    memory = chip.memory
    spec = msgspec.structs.replace(
        memory,
        capacity_bytes=_share(memory.capacity_bytes, parts),
        usable_bytes=_share(memory.usable_bytes, parts),
        bandwidth_bytes_per_s=_share(memory.bandwidth_bytes_per_s, parts),
    )
    up = chip.scale_up
    scale_up: ScaleUp | None = None if up is None else msgspec.structs.replace(
        up,
        bandwidth_bytes_per_s=_share(up.bandwidth_bytes_per_s, parts),
        domain_size=None if up.domain_size is None else up.domain_size * parts,
    )
    return msgspec.structs.replace(
        chip,
        id=f"{chip.id}+die",
        name=f"{chip.name} (1 of {parts} devices)",
        peak_flops_per_s={dtype: _divided(fact, parts) for dtype, fact in chip.peak_flops_per_s.items()},
        compute_units=_share(chip.compute_units, parts),
        memory=spec,
        scale_up=scale_up,
        tdp_w=_share(chip.tdp_w, parts),
        devices_per_card=None,
    )


def _share(fact: Fact | None, parts: int) -> Fact | None:
    return None if fact is None else _divided(fact, parts)


def _divided(fact: Fact, parts: int) -> Fact:
    return fact if fact.number is None else msgspec.structs.replace(fact, value=fact.number / parts)
