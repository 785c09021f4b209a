"""Arithmetic of the United States' export-control thresholds for advanced computing chips (ECCN 3A090 and 4A090).

Total processing performance (TPP) is the dense operation rate in TOPS times the bit length of the operation, the greatest
over the dtypes; performance density is TPP over the die area in mm2 (3A090, notes 1 to 4, 88 FR 73458). Formats of at most
16 bits count; FP32 and FP64 only where no narrower peak is known, since on the chips here they give no more. TF32 is left
out: the rule gives it no bit length (19 bits take part, 32 are stored). This is arithmetic on catalogue values, not advice
on law.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sapper.chips.derived import number
from sapper.chips.schema import DTYPE_BITS, Chip

Outcome = Literal["above", "below", "covered", "exempt", "unknown"]
"""``covered``: already above the paragraph before it. ``exempt``: neither designed nor marketed for data centres, and a
TPP below 4800 (3A090, note 2)."""

_NARROW = ("bf16", "fp16", "fp8", "int8", "fp4", "int4")
_WIDE = ("fp32", "fp64")


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One threshold."""

    id: str
    paragraph: str
    date: str
    """Published, ISO."""
    effective: str
    source: str
    condition: str
    """Message code of the condition in numbers."""


RULES: tuple[Rule, ...] = (
    Rule(
        id="2022-10 3A090", paragraph="3A090", date="2022-10-13", effective="2022-10-07", source="87 FR 62186 (BIS interim final rule)",
        condition="chips.rule.2022-10",
    ),
    Rule(
        id="2023-10 3A090.a", paragraph="3A090.a", date="2023-10-25", effective="2023-11-17", source="88 FR 73458 (BIS interim final rule)",
        condition="chips.rule.2023-10-a",
    ),
    Rule(
        id="2023-10 3A090.b", paragraph="3A090.b", date="2023-10-25", effective="2023-11-17", source="88 FR 73458 (BIS interim final rule)",
        condition="chips.rule.2023-10-b",
    ),
)
"""4A090 covers computers and boards that contain chips of 3A090, on the same numbers."""


class RuleResult(msgspec.Struct, frozen=True, kw_only=True):
    """A chip against one rule."""

    rule: Rule
    outcome: Outcome
    missing: tuple[str, ...] = ()
    """Fields that would decide an unknown outcome."""


class ExportArithmetic(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of a chip that the rules look at, and each rule's outcome."""

    tpp: float | None
    """TOPS x bits; None where no peak is known."""
    tpp_dtype: str | None
    """The dtype that gives it."""
    density: float | None
    """TPP per mm2 of die; None where either is unknown."""
    die_mm2: float | None
    io_bytes_per_s: float | None
    """Links of the chip, both directions together; None where unknown."""
    results: tuple[RuleResult, ...]


def export_arithmetic(chip: Chip) -> ExportArithmetic:
    """TPP, density, I/O rate and the outcome of each rule for ``chip``."""
    tpp, dtype = total_processing_performance(chip)
    die = _die_mm2(chip)
    density = tpp / die if tpp is not None and die else None
    io = _io_bytes_per_s(chip)
    checks = [_rule_2022(tpp, io), _rule_2023_a(tpp, density), _rule_2023_b(tpp, density)]
    if chip.market == "consumer" and tpp is not None and tpp < 4800:
        checks[1:] = [("exempt", ())] * 2
    results = tuple(RuleResult(rule=rule, outcome=outcome, missing=missing) for rule, (outcome, missing) in zip(RULES, checks, strict=True))
    return ExportArithmetic(tpp=tpp, tpp_dtype=dtype, density=density, die_mm2=die, io_bytes_per_s=io, results=results)


def total_processing_performance(chip: Chip) -> tuple[float | None, str | None]:
    """TPP and the dtype that gives it; None, None where no peak is known."""
    for dtypes in (_NARROW, _WIDE):
        found = [(peak / 1e12 * DTYPE_BITS[dtype], dtype) for dtype in dtypes if (peak := number(chip.peak_flops_per_s.get(dtype)))]
        if found:
            return max(found, key=lambda item: item[0])
    return None, None


def _die_mm2(chip: Chip) -> float | None:
    """Area of all dies; None where the file gives one die of several, or only the main one."""
    fact = chip.die_mm2
    if fact is None or fact.number is None:
        return None
    partial = (fact.note or "").lower()
    if "main die" in partial:
        return None
    return fact.number * (chip.devices_per_card or 1) if "per die" in partial else fact.number


def _io_bytes_per_s(chip: Chip) -> float | None:
    """Scale-up and host links together, both directions; memory does not count (3A090 of 87 FR 62186, note 1)."""
    host = number(chip.host_link_bytes_per_s)
    up = number(chip.scale_up.bandwidth_bytes_per_s) if chip.scale_up else None
    if up is None and host is None:
        return None
    if chip.scale_up and chip.scale_up.topology == "pcie-tree":
        return 2 * max(up or 0.0, host or 0.0)
    return 2 * ((up or 0.0) + (host or 0.0)) if up is not None else None


def _rule_2022(tpp: float | None, io: float | None) -> tuple[Outcome, tuple[str, ...]]:
    if (tpp is not None and tpp < 4800) or (io is not None and io < 600e9):
        return "below", ()
    if tpp is None or io is None:
        return "unknown", tuple(name for name, value in (("peak", tpp), ("scale_up.bandwidth", io)) if value is None)
    return "above", ()


def _rule_2023_a(tpp: float | None, density: float | None) -> tuple[Outcome, tuple[str, ...]]:
    if tpp is None:
        return "unknown", ("peak",)
    if tpp >= 4800:
        return "above", ()
    if tpp < 1600:
        return "below", ()
    if density is None:
        return "unknown", ("die",)
    return ("above" if density >= 5.92 else "below"), ()


def _rule_2023_b(tpp: float | None, density: float | None) -> tuple[Outcome, tuple[str, ...]]:
    first, missing = _rule_2023_a(tpp, density)
    if first != "below" or tpp is None or density is None:
        return ("covered" if first == "above" else first), missing
    low = 1.6 if 2400 <= tpp < 4800 else 3.2
    return ("above" if tpp >= 1600 and low <= density < 5.92 else "below"), ()
