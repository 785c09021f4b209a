"""Slo: how long users may have to wait."""

from __future__ import annotations

import msgspec

from sapper import units
from sapper.errors import BadValue

PERCENTILES = (50, 90, 95, 99)


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """Limits that a share of the requests must keep, each by itself; None: no limit."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    percentile: int = 99

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, in seconds, by name: ttft, tpot, e2e."""
        named = {"ttft": self.ttft_s, "tpot": self.tpot_s, "e2e": self.e2e_s}
        return {name: limit for name, limit in named.items() if limit is not None}

    @property
    def text(self) -> str:
        """As ``--slo`` takes it."""
        parts = [f"{name}={units.duration(limit).replace(' ', '')}" for name, limit in self.limits.items()]
        return ",".join([*parts, f"p{self.percentile}"])


def parse_slo(text: str, *, where: str) -> Slo:
    """Read ``ttft=500ms,tpot=50ms[,e2e=20s][,percentile=p99]``.

    Raises:
        BadValue: An unknown part or one given twice, a time that cannot be meant or has no unit, or no limit at all.
    """
    limits: dict[str, float] = {}
    percentile = 99
    seen: set[str] = set()
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign and key.startswith("p"):
            key, value = "percentile", key
        if key in seen:
            raise BadValue("SP-SERVE-015", where=where, key=key)
        seen.add(key)
        if key == "percentile":
            digits = value.removeprefix("p")
            if not digits.isdigit() or int(digits) not in PERCENTILES:
                raise BadValue("SP-SERVE-005", where=where, text=value, known=", ".join(f"p{number}" for number in PERCENTILES))
            percentile = int(digits)
        elif key in ("ttft", "tpot", "e2e") and value:
            # A bare number would be seconds, and whoever writes `ttft=500` means milliseconds.
            if value[-1].isdigit():
                raise BadValue("SP-SERVE-016", where=f"{where} {key}", text=value)
            limits[f"{key}_s"] = units.parse(value, "s", where=f"{where} {key}", positive=True)
        else:
            raise BadValue("SP-SERVE-004", where=where, text=part)
    if not limits:
        raise BadValue("SP-SERVE-017", where=where, text=text)
    return Slo(percentile=percentile, **limits)
