"""What a chip file holds, after its units are converted. One file per chip or system; see docs/chips.md.

Every measured or quoted number is a :class:`~sapper.evidence.Fact` in SI base units; None means that nobody whom we
read states it. ``withheld`` (a Fact with status ``withheld`` and value None) means that the vendor keeps it secret.
"""

from __future__ import annotations

from typing import Any

import msgspec

from sapper.evidence import Fact, Grade

DTYPES = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "int8", "fp4", "int4")
"""Dtypes that a peak may be stated for, widest first."""

DTYPE_BITS: dict[str, int] = {
    "fp64": 64, "fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "fp4": 4, "int4": 4,
}
"""Bits of one input number as the export rule counts them (TF32 is stored in 32)."""

ARCH_CLASSES = ("gpu", "npu", "systolic-tpu", "sram-lpu", "dataflow", "transformer-asic", "cpu")
MARKETS = ("data-center", "workstation", "consumer")
TOPOLOGIES = ("switch", "full-mesh", "ring", "torus-2d", "torus-3d", "pcie-tree", "unknown")


class MemorySpec(msgspec.Struct, frozen=True, kw_only=True):
    """Device memory."""

    type: str | None = None
    capacity_bytes: Fact | None = None
    usable_bytes: Fact | None = None
    """What the driver shows to a program."""
    bandwidth_bytes_per_s: Fact | None = None
    extra: dict[str, Fact] = msgspec.field(default_factory=dict)
    """Further pools, such as ``ddr_bytes``."""


class ScaleUp(msgspec.Struct, frozen=True, kw_only=True):
    """Links inside the scale-up domain."""

    name: str
    topology: str
    """One of :data:`TOPOLOGIES`."""
    bandwidth_bytes_per_s: Fact | None = None
    """Per chip and direction, all links together."""
    p2p_bytes_per_s: Fact | None = None
    """Between one pair, per direction."""
    domain_size: int | None = None


class ScaleOut(msgspec.Struct, frozen=True, kw_only=True):
    """Network between domains as the vendor's reference server has it."""

    text: Fact
    """As the source words it."""
    bandwidth_bytes_per_s: Fact | None = None
    """Per chip and direction, where the text gives it."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One measured figure, attached to the peak that it refers to."""

    metric: str
    """matmul, gemm, memory_bandwidth, all_reduce, all_gather, p2p_*, power, ..."""
    dtype: str | None = None
    format: str | None = None
    """The vendor's name of the number format or mode where ``dtype`` does not say all: nvfp4, HiFi2."""
    value: float | None = None
    """In the base unit ``unit``."""
    unit: str = ""
    best_value: float | None = None
    """The best of many runs, where the source gives that beside or instead of a typical value; in ``unit``."""
    text: str | None = None
    """What the source says where it is no single number."""
    fraction: float | None = None
    """Of the dense peak (matmul), of the bandwidth (memory), of one direction (links)."""
    fraction_best: float | None = None
    fraction_range: tuple[float, float] | None = None
    devices: int | None = None
    by_devices: dict[str, float] = msgspec.field(default_factory=dict)
    latency_s: float | None = None
    message_bytes: float | None = None
    """Size of the message that a collective moved."""
    refers_to_flops_per_s: float | None = None
    """The peak that ``fraction`` divides by; None where the source does not say."""
    definition: str | None = None
    """How the source defines its figure."""
    source: str
    date: str | None = None
    grade: Grade = "measured-elsewhere"
    status: str | None = None
    source_read: bool | None = None
    note: str | None = None
    raw: dict[str, Any] = msgspec.field(default_factory=dict)
    """Every further field of the record, nothing lost."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """A price somebody quoted."""

    amount: Fact
    currency: str
    """CNY, USD; per hour for cloud prices."""
    per_hour: bool = False
    tax: str = "unknown"
    """included, excluded, unknown."""
    quantity: str | None = None


class ExportRule(msgspec.Struct, frozen=True, kw_only=True):
    """One export-control event that touches the chip."""

    rule: str
    source: str
    date: str | None = None
    """ISO date of the first event, where the text has one."""
    dates: tuple[str, ...] = ()
    """ISO dates of all events that the text names, in order."""
    effect: str = "unclear"
    """licence-required, below-threshold, china-variant, entity-list, not-us-item, not-sold, unclear."""
    status: str


class Software(msgspec.Struct, frozen=True, kw_only=True):
    """How programs reach the chip."""

    stack: str | None = None
    torch_device: str | None = None
    collective: str | None = None
    dist_backend: str | None = None
    warp: int | None = None
    note: str | None = None
    source: str | None = None
    extra: dict[str, str] = msgspec.field(default_factory=dict)


class Conflict(msgspec.Struct, frozen=True, kw_only=True):
    """Values of one field that sources disagree on, kept side by side."""

    field: str
    values: tuple[Fact, ...]
    comment: str | None = None


class Chip(msgspec.Struct, frozen=True, kw_only=True):
    """A chip (as one device that a program addresses is sold), with all that is known of it."""

    id: str
    vendor: str
    name: str
    aliases: tuple[str, ...] = ()
    vendor_zh: str | None = None
    """The vendor's Chinese name, where it has one."""
    kind: str = "chip"
    """chip or class (a stand-in for many like machines)."""
    arch_class: str
    """gpu, npu, systolic-tpu, sram-lpu, dataflow, transformer-asic, cpu."""
    release: Fact | None = None
    process: Fact | None = None
    die_mm2: Fact | None = None
    transistors: Fact | None = None
    peak_flops_per_s: dict[str, Fact] = msgspec.field(default_factory=dict)
    """Dense peak by dtype (fp64, fp32, tf32, bf16, fp16, fp8, int8, fp4)."""
    peak_from_clock_flops_per_s: dict[str, Fact] = msgspec.field(default_factory=dict)
    compute_units: Fact | None = None
    """Streaming multiprocessors, compute units or cores that tiles of a matmul are spread over."""
    matrix_array: tuple[int, int] | None = None
    """Rows and columns of the multiply array of one unit, for systolic chips."""
    memory: MemorySpec
    onchip_bytes: dict[str, Fact] = msgspec.field(default_factory=dict)
    """l2, sram, infinity_cache."""
    scale_up: ScaleUp | None = None
    scale_out: ScaleOut | None = None
    host_link_bytes_per_s: Fact | None = None
    host_link: str | None = None
    host_link_note: str | None = None
    tdp_w: Fact | None = None
    form_factor: str | None = None
    market: str | None = None
    """data-center, consumer, workstation; None where nobody says."""
    devices_per_card: int | None = None
    """Devices that a program sees on one card; the numbers of this file are per card. None: one."""
    devices_note: str | None = None
    price: tuple[Price, ...] = ()
    export_china: tuple[ExportRule, ...] = ()
    software: Software | None = None
    measured: tuple[Measured, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    relative_claims: tuple[Fact, ...] = ()
    notes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    origin: str = ""
    """The file that this chip was read from."""


class System(msgspec.Struct, frozen=True, kw_only=True):
    """A product made of chips: a server, a rack, a pod."""

    id: str
    vendor: str
    name: str
    aliases: tuple[str, ...] = ()
    vendor_zh: str | None = None
    chip: str
    """Id of the chip."""
    count: int | None
    """None where nobody states it."""
    notes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    origin: str = ""
