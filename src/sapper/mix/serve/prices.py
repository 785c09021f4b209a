"""Prices: what a chip of each group costs in an hour, in one currency and basis, or power or the chips themselves where nobody
knows that of all groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sapper.clusters.cluster import Cluster, Group
from sapper.errors import BadValue
from sapper.evidence import Fact
from sapper.predict import money
from sapper.predict.estimate import Used
from sapper.predict.serve.costs import BUSY_DRAW

Objective = Literal["cost", "power", "chips"]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What is minimised, for each chip of each group."""

    objective: Objective
    unit: str
    """``USD/h``, ``W``, ``chips``."""
    basis: str
    """``USD cloud``, ``user``, ``TDP``, ``count``."""
    each: Mapping[str, float]
    """By group; groups whose weight is unknown are not in it."""
    spread: float
    """Factor up and down within which a weight lies."""
    used: tuple[Used, ...]

    def missing(self, groups: Sequence[Group]) -> tuple[str, ...]:
        """Groups whose weight nobody knows."""
        return tuple(group.name for group in groups if group.name not in self.each)


def weights(cluster: Cluster, objective: Objective | Literal["auto"], *, stated: Mapping[str, tuple[float, str]]) -> Weights:
    """The weights of ``objective``; ``auto`` is cost where all groups have a price of one basis, else the number of chips.

    Args:
        cluster: The groups.
        objective: What is to be least.
        stated: The user's prices of a chip and hour by group, with their currency; they replace the catalogue's.

    Raises:
        BadValue: A cost is asked for of which no group has a price, or a power of which no group has a TDP.
    """
    if objective == "chips":
        return _count(cluster)
    if objective == "power":
        return _power(cluster)
    priced = _priced(cluster, stated)
    if priced is not None and (objective == "cost" or not priced.missing(cluster.groups)):
        return priced
    if objective == "cost":
        raise BadValue("SP-MIX-263", where="--objective", groups=", ".join(group.name for group in cluster.groups))
    return _count(cluster)


def _count(cluster: Cluster) -> Weights:
    return Weights(objective="chips", unit="chips", basis="count", each={group.name: 1.0 for group in cluster.groups}, spread=1.0, used=())


def _power(cluster: Cluster) -> Weights:
    facts = {group.name: (group.chip.id, group.chip.tdp_w) for group in cluster.groups}
    known = {name: fact for name, (_, fact) in facts.items() if fact is not None and fact.number is not None}
    if not known:
        raise BadValue("SP-MIX-264", where="--objective", groups=", ".join(facts))
    site = cluster.pue.number if cluster.pue is not None and cluster.pue.number is not None else 1.0
    return Weights(
        objective="power",
        unit="W",
        basis="TDP",
        spread=BUSY_DRAW[2] / BUSY_DRAW[1],
        each={name: (fact.number or 0.0) * BUSY_DRAW[1] * site for name, fact in known.items()},
        used=tuple(Used(key=f"{facts[name][0]} TDP", fact=fact) for name, fact in known.items()),
    )


def _priced(cluster: Cluster, stated: Mapping[str, tuple[float, str]]) -> Weights | None:
    """The user's prices beside the catalogue's of one basis: the one that most groups have, cloud before purchase."""
    if stated:
        currencies = {currency for _, currency in stated.values()}
        if len(currencies) > 1:
            raise BadValue("SP-MIX-265", where="--price", currencies=", ".join(sorted(currencies)))
        currency = currencies.pop()
        facts = {name: Fact(value=amount, unit=f"{currency}/h", source="--price", grade="assumed") for name, (amount, _) in stated.items()}
        return Weights(
            objective="cost",
            unit=f"{currency}/h",
            basis="--price",
            each={name: amount for name, (amount, _) in stated.items()},
            spread=1.0,
            used=tuple(Used(key=f"{name} price", fact=fact) for name, fact in facts.items()),
        )
    rates: dict[str, dict[str, money.Hourly]] = {}
    for group in cluster.groups:
        for rate in money.hourly(group.chip):
            rates.setdefault(rate.basis, {})[group.name] = rate
    if not rates:
        return None
    basis = max(rates, key=lambda name: (len(rates[name]), "cloud" in name, name))
    found = rates[basis]
    currency = next(iter(found.values())).currency
    return Weights(
        objective="cost",
        unit=f"{currency}/h",
        basis=basis,
        each={name: rate.amount for name, rate in found.items()},
        spread=money.PRICE_SPREAD,
        used=tuple(rate.used for rate in found.values()),
    )


def parse_prices(texts: Sequence[str], groups: Sequence[Group], *, where: str) -> dict[str, tuple[float, str]]:
    """Read ``GROUP=2.10USD`` (a chip and hour) for each group.

    Raises:
        BadValue: No such group, or not a price.
    """
    found: dict[str, tuple[float, str]] = {}
    names = {group.name for group in groups}
    for text in texts:
        name, sign, value = (part.strip() for part in text.partition("="))
        value = value.removesuffix("/h").strip()
        digits = value.rstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz ")
        currency = value[len(digits) :].strip().upper()
        try:
            amount = float(digits)
        except ValueError:
            amount = -1.0
        if not sign or name not in names:
            raise BadValue("SP-MIX-266", where=where, name=name, known=", ".join(sorted(names)))
        if not 0 < amount < 1e9 or len(currency) != 3:
            raise BadValue("SP-MIX-267", where=where, text=text)
        found[name] = (amount, currency)
    return found
