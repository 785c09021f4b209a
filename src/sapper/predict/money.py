"""Energy and cost, where the catalogue has evidence for them; unknown otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from sapper.chips.schema import Chip, Price
from sapper.clusters.cluster import Cluster, Group
from sapper.evidence import Fact, Grade, Interval, worst
from sapper.predict.estimate import Used

DRAW = (0.6, 0.8, 1.0)
"""Share of TDP that a training chip draws: low, usual, high. FlagPerf: 910B measured 364 W of 350 W under matmul, A100
and BI-V150 0.7-1.0 (flagperf power rows, 2021-2025); communication and bubbles draw less."""
YEARS = 4.0
"""Straight-line write-off of a purchase, the usual term of servers; the chip alone, no host, network or building."""
BUSY = 0.8
"""Share of its life in which a purchased chip works."""
PRICE_SPREAD = 1.3
"""Street prices of one chip in one year differ by about this factor in the catalogue's own records."""


def power_draw(group: Group) -> tuple[tuple[float, float, float] | None, tuple[Used, ...]]:
    """Watts of all chips of the group (low, usual, high); None where the TDP is unknown."""
    fact = group.chip.tdp_w
    if fact is None or fact.number is None:
        return None, ()
    total = fact.number * group.chips
    share = Fact(value=DRAW[1], unit="1", source="share of TDP while training, from FlagPerf power rows", date="2025-11", grade="derived")
    used = (Used(key=f"{group.chip.id} TDP", fact=fact), Used(key="draw over TDP (0.6-1.0)", fact=share))
    return (DRAW[0] * total, DRAW[1] * total, DRAW[2] * total), used


def energy(time: Interval, watts: tuple[float, float, float], cluster: Cluster) -> Interval:
    """Joules of a time at a draw; errors of both multiply (conservative: they are taken to be independent)."""
    pue = cluster.pue.number if cluster.pue is not None and cluster.pue.number is not None else 1.0
    up = ((time.high / time.mid - 1) ** 2 + (watts[2] / watts[1] - 1) ** 2) ** 0.5
    down = ((1 - time.low / time.mid) ** 2 + (1 - watts[0] / watts[1]) ** 2) ** 0.5
    mid = time.mid * watts[1] * pue
    return Interval(mid=mid, low=mid * max(0.0, 1 - down), high=mid * (1 + up), unit="J", grade=worst(time.grade, "derived"))


def costs(job_time: Interval, group: Group, cluster: Cluster, job_energy: Interval | None) -> tuple[dict[str, Interval], tuple[Used, ...]]:
    """Cost of the job by currency and basis: ``CNY cloud``, ``USD purchase 4y``, ``CNY energy``."""
    found: dict[str, Interval] = {}
    used: list[Used] = []
    hours = group.chips * job_time.mid / 3600.0
    ratio = (job_time.low / job_time.mid, job_time.high / job_time.mid)
    for rate in hourly(group.chip):
        found[rate.basis] = Interval(
            mid=rate.amount * hours,
            low=rate.amount * hours * ratio[0] / PRICE_SPREAD,
            high=rate.amount * hours * ratio[1] * PRICE_SPREAD,
            unit=rate.currency,
            grade=worst(job_time.grade, rate.grade),
        )
        used.append(rate.used)
    if cluster.power_price is not None and cluster.power_price.number is not None and job_energy is not None:
        per_j, unit = cluster.power_price.number, cluster.power_price.unit.split("/")[0]
        found[f"{unit} energy"] = Interval(
            mid=per_j * job_energy.mid,
            low=per_j * job_energy.low,
            high=per_j * job_energy.high,
            unit=unit,
            grade=worst(job_energy.grade, "derived"),
        )
        used.append(Used(key="power price", fact=cluster.power_price))
    return found, tuple(used)


@dataclass(frozen=True, kw_only=True)
class Hourly:
    """What one chip costs in an hour, by one kind of price."""

    basis: str
    """``CNY cloud``, ``USD purchase 4y``."""
    currency: str
    amount: float
    grade: Grade
    used: Used


def hourly(chip: Chip) -> list[Hourly]:
    """The latest price of each currency and basis, per chip and hour; a purchase is written off evenly over YEARS at BUSY."""
    found = []
    for price in _latest(chip.price):
        amount = price.amount.number
        assert amount is not None
        basis = f"{price.currency} {'cloud' if price.per_hour else f'purchase {YEARS:.0f}y'}"
        found.append(
            Hourly(
                basis=basis,
                currency=price.currency,
                amount=amount if price.per_hour else amount / (YEARS * 365.25 * 24 * BUSY),
                grade=worst(price.amount.grade, "derived"),
                used=Used(key=f"{chip.id} price ({basis})", fact=price.amount),
            )
        )
    return found


def _latest(prices: tuple[Price, ...]) -> list[Price]:
    """The latest price of each currency and basis."""
    newest: dict[tuple[str, bool], Price] = {}
    for price in prices:
        key = (price.currency, price.per_hour)
        if price.amount.number is None:
            continue
        if key not in newest or (price.amount.date or "") > (newest[key].amount.date or ""):
            newest[key] = price
    return list(newest.values())
