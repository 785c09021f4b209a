"""Question: one job put to many clusters, one of which is the reference."""

from __future__ import annotations

import math

import msgspec

from sapper import units
from sapper.clusters.cluster import Cluster
from sapper.errors import BadValue
from sapper.evidence import Fact
from sapper.predict.job import TrainJob

DEFAULT_BATCH_TOKENS = 4 * 2**20
"""Tokens of a global batch where the user gives none: 4 Mi, the size of Llama 2 (arXiv:2307.09288, section 2.2)."""

SHORT_TEXT = 16
"""Tokens below which a sample is none of text."""
DEFAULT_SAMPLES = 1024
"""Samples of a global batch where they are not of text and the user gives none (a usual batch of image training)."""

_SCALES = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12}
_MOST_TOKENS = 1e16
"""Two hundred times the text that is thought to exist (arXiv:2211.04325): beyond it is a slip of the keyboard."""


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What a buyer asks: this job, against that reference, on these options."""

    job: TrainJob
    reference: Cluster
    options: tuple[Cluster, ...]
    plan: str | None = None
    """The plan to use everywhere, as ``--plan`` takes it (``dp`` may be left out); None searches each option's best."""
    power_price: Fact | None = None
    """Money per joule, unit ``CNY/J`` or another currency's. None: each cluster's own."""
    pue: Fact | None = None
    """Power usage effectiveness of the site. None: each cluster's own."""
    batch_given: bool = True
    """Whether the user chose the global batch, or we did."""
    top: int = 5
    """Plans to keep of each search."""

    @property
    def chip_ids(self) -> tuple[str, ...]:
        """Catalogue ids of all chips that are asked for, the reference's first, those in groups of unlike chips too."""
        return tuple(dict.fromkeys(group.chip.id for cluster in (self.reference, *self.options) for group in cluster.groups))


def tokens(text: str, *, where: str | None = None) -> float:
    """Read a number of tokens: ``1T``, ``300B``, ``15e12``, ``1.5 T``, ``2_000_000``.

    Raises:
        BadValue: Not a number, zero, negative, or more than anybody has.
    """
    stripped = text.strip().removesuffix("tokens").strip()
    scale = stripped[-1:] if stripped[-1:] in _SCALES and not stripped[-1:].isdigit() else ""
    try:
        value = float(stripped[: len(stripped) - len(scale)].strip().replace("_", "").replace(",", "")) * _SCALES[scale]
    except ValueError:
        raise BadValue("SP-ASSESS-001", where=where, text=text) from None
    if not math.isfinite(value) or value < 1 or value > _MOST_TOKENS:
        raise BadValue("SP-ASSESS-002", where=where, text=text, most=f"{_MOST_TOKENS:.0e}")
    return value


def default_batch(seq_len: int) -> int:
    """Sequences of a global batch of about :data:`DEFAULT_BATCH_TOKENS`, as a power of two; :data:`DEFAULT_SAMPLES` where a
    sample is too short to be text (an image, a click)."""
    if seq_len < SHORT_TEXT:
        return DEFAULT_SAMPLES
    return int(2 ** max(0, round(math.log2(max(1.0, DEFAULT_BATCH_TOKENS / seq_len)))))


def power_price(text: str, *, where: str | None = None) -> Fact:
    """Read a price of energy such as ``0.6 CNY/kWh``; the Fact's unit is ``CNY/J``.

    Raises:
        BadValue: No currency per kWh, or not above zero.
    """
    for currency in ("CNY", "USD", "EUR"):
        if f"{currency}/kWh" in text:
            value = units.parse(text, f"{currency}/kWh", where=where)
            if value <= 0 or value > 100:
                raise BadValue("SP-ASSESS-003", where=where, text=text)
            per_j = value / 3.6e6
            return Fact(value=per_j, unit=f"{currency}/J", source="--power-price", grade="assumed", note=text.strip())
    raise BadValue("SP-ASSESS-003", where=where, text=text)


def pue(value: float, *, where: str | None = None) -> Fact:
    """Power usage effectiveness of the site as a Fact.

    Raises:
        BadValue: Below 1 (a site cannot use less than its machines) or above 5.
    """
    if not math.isfinite(value) or not 1 <= value <= 5:
        raise BadValue("SP-ASSESS-004", where=where, text=f"{value:g}")
    return Fact(value=value, unit="1", source="--pue", grade="assumed")
