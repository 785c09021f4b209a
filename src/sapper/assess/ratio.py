"""Arithmetic of intervals: the ratio of two, and what it tells.

An :class:`~sapper.evidence.Interval` states a median and the bounds that hold the truth with probability ``level``.
On a logarithmic scale the errors of the two operands are taken as independent, so that their half-widths add as the
root of the sum of squares, the upper and the lower side apart:

    high = mid * exp( sqrt( ln(a.high/a.mid)**2 + ln(b.mid/b.low)**2 ) )
    low  = mid * exp(-sqrt( ln(a.mid/a.low)**2 + ln(b.high/b.mid)**2 ) )

This is exact for lognormal operands (products and quotients of lognormals are lognormal; Limpert, Stahel, Abbt 2001,
BioScience 51(5), table 2). Where both operands rest on the same uncertain constants the errors partly cancel, and the
interval is wider than it need be, never narrower.
"""

from __future__ import annotations

import math

from sapper.errors import InvariantError
from sapper.evidence import Interval, worst


def ratio(of: Interval, to: Interval) -> Interval:
    """``of / to`` as an interval of unit 1, errors independent."""
    _check(of)
    _check(to)
    if of.level != to.level or of.unit != to.unit:
        raise InvariantError("SP-ASSESS-020", left=f"{of.unit}, {of.level:g}", right=f"{to.unit}, {to.level:g}")
    mid = of.mid / to.mid
    up = math.hypot(math.log(of.high / of.mid), math.log(to.mid / to.low))
    down = math.hypot(math.log(of.mid / of.low), math.log(to.high / to.mid))
    return Interval(mid=mid, low=mid * math.exp(-down), high=mid * math.exp(up), unit="1", grade=worst(of.grade, to.grade), level=of.level)


def same(of: Interval) -> Interval:
    """The ratio of a thing to itself: exactly 1."""
    return Interval(mid=1.0, low=1.0, high=1.0, unit="1", grade=of.grade, level=of.level)


def tells_apart(one: Interval) -> bool:
    """Whether a ratio's interval lies wholly on one side of 1."""
    return one.low > 1.0 or one.high < 1.0


def _check(interval: Interval) -> None:
    if not 0 < interval.low <= interval.mid <= interval.high < math.inf:
        raise InvariantError("SP-ASSESS-021", low=f"{interval.low:g}", mid=f"{interval.mid:g}", high=f"{interval.high:g}")
