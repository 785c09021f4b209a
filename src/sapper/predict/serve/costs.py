"""Power, energy and cost of serving, where the catalogue has evidence for them; unknown otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from sapper.clusters.cluster import Group
from sapper.evidence import Fact, Interval, worst
from sapper.evidence.fact import Grade
from sapper.predict import money
from sapper.predict.estimate import Used

BUSY_DRAW = (0.50, 0.70, 0.92)
"""Share of TDP that a chip draws while an engine iterates: 10th percentile, median and 90th of 838 runs of H100 and B200 under
vLLM at batches of 1 to 2,048 (ML.ENERGY leaderboard v3, commit 0cd52dab, 2025-12)."""
IDLE_DRAW = (0.08, 0.12, 0.20)
"""The same of a chip that waits with its memory filled; idle readings of H100 and A100 are 60-90 W of 400-700 W."""


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What a deployment draws and costs while it serves, with the evidence."""

    power: Interval | None
    """All chips, in W, times the site's PUE where one is given."""
    energy_per_token: Interval | None
    """J per output token."""
    cost: dict[str, Interval]
    """Money per million output tokens by currency and basis, all of the chips' time laid on the output."""
    cost_input: dict[str, Interval]
    """The part of it that prompts take by their share of the time, per million input tokens."""
    cost_output: dict[str, Interval]
    """What is left of it, per million output tokens."""
    used: tuple[Used, ...]


def power(group: Group, chips: int, *, busy_share: float, pue: Fact | None) -> tuple[Interval | None, tuple[Used, ...]]:
    """Draw of ``chips`` chips that compute for ``busy_share`` of the time; None where the TDP is unknown."""
    fact = group.chip.tdp_w
    if fact is None or fact.number is None:
        return None, ()
    site = pue.number if pue is not None and pue.number is not None else 1.0
    full_w = fact.number * chips * site
    low, mid, high = (full_w * (busy_share * busy + (1 - busy_share) * idle) for busy, idle in zip(BUSY_DRAW, IDLE_DRAW, strict=True))
    share = Fact(
        value=BUSY_DRAW[1],
        unit="1",
        source="ML.ENERGY leaderboard v3, 838 runs of H100 and B200",
        date="2025-12",
        grade="measured-elsewhere",
    )
    used = (Used(key=f"{group.chip.id} TDP", fact=fact), Used(key="serving draw over TDP (0.50-0.92)", fact=share))
    return Interval(mid=mid, low=low, high=high, unit="W", grade=worst(fact.grade, "derived")), used


def bill(
    group: Group,
    chips: int,
    *,
    tokens_per_s: Interval,
    input_tokens_per_s: float,
    busy_share: float,
    prompt_share: float,
    power_price: Fact | None,
    pue: Fact | None,
) -> Bill:
    """The bill of ``chips`` chips that make ``tokens_per_s`` output tokens.

    Args:
        group: Their chip and site.
        chips: All of them.
        tokens_per_s: Output tokens of all.
        input_tokens_per_s: Prompt tokens of all.
        busy_share: Of the time, in which they compute.
        prompt_share: Of that time, for prompts.
        power_price: Money per joule at the site.
        pue: Power usage effectiveness of the site.
    """
    draw, used = power(group, chips, busy_share=busy_share, pue=pue)
    each = None if draw is None else per(draw, tokens_per_s, unit="J/token")
    found: dict[str, Interval] = {}
    prices = []
    for rate in money.hourly(group.chip):
        per_s = chips * rate.amount / 3600.0
        spread = money.PRICE_SPREAD
        hourly = Interval(mid=per_s, low=per_s / spread, high=per_s * spread, unit=rate.currency, grade=rate.grade)
        found[rate.basis] = scaled(per(hourly, tokens_per_s, unit=rate.currency), 1e6)
        prices.append(rate.used)
    if power_price is not None and power_price.number is not None and each is not None:
        currency = power_price.unit.split("/")[0]
        found[f"{currency} energy"] = scaled(each, 1e6 * power_price.number, unit=currency)
        prices.append(Used(key="power price", fact=power_price))
    ratio = tokens_per_s.mid / input_tokens_per_s if input_tokens_per_s > 0 else 0.0
    return Bill(
        power=draw,
        energy_per_token=each,
        cost=found,
        cost_input={basis: scaled(cost, prompt_share * ratio) for basis, cost in found.items()} if ratio else {},
        cost_output={basis: scaled(cost, 1.0 - prompt_share) for basis, cost in found.items()},
        used=(*used, *prices),
    )


def per(amount: Interval, rate: Interval, *, unit: str) -> Interval:
    """An amount per second over a rate: the errors of both are taken to be independent."""
    mid = amount.mid / rate.mid
    up = ((amount.high / amount.mid - 1) ** 2 + (rate.mid / rate.low - 1) ** 2) ** 0.5 if rate.low > 0 else float("inf")
    down = ((1 - amount.low / amount.mid) ** 2 + (1 - rate.mid / rate.high) ** 2) ** 0.5
    grade: Grade = worst(amount.grade, rate.grade, "derived")
    return Interval(mid=mid, low=mid * max(0.0, 1 - down), high=mid * (1 + up), unit=unit, grade=grade)


def scaled(value: Interval, factor: float, *, unit: str | None = None) -> Interval:
    """``value`` times a known number."""
    return Interval(mid=value.mid * factor, low=value.low * factor, high=value.high * factor, unit=unit or value.unit, grade=value.grade)
