"""Where each efficiency of an estimate comes from: its value, and every effect that moved it, with what informs it."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sapper.evidence import Fact, Grade
from sapper.predict.arrays import Floats
from sapper.predict.estimate import Used
from sapper.predict.fit import Fitted
from sapper.predict.prior import Subject


def explained(fitted: Fitted, subject: Subject, eta: Floats) -> tuple[Used, ...]:
    """The constants of ``subject`` and the effects behind them.

    Args:
        fitted: The posterior.
        subject: Who computes.
        eta: Its constants on their link scale, C x 1.
    """
    known = subject.as_own() if fitted.is_own(subject.chip) else subject
    return (*_constants(fitted, subject, eta), *effects_of(fitted, known))


def _constants(fitted: Fitted, subject: Subject, eta: Floats) -> Iterator[Used]:
    grade, source = fitted.grounds(subject.chip, purpose="training", stack=subject.effects()["stack"])
    for name, natural in fitted.book.natural(eta).items():
        unit = "s" if name.endswith("_s") else "1"
        fact = Fact(value=float(natural.reshape(-1)[0]), unit=unit, source=source, date=fitted.newest, grade=grade)
        yield Used(key=f"efficiency {name.removesuffix('_s')}", fact=fact)


def effects_of(fitted: Fitted, subject: Subject) -> Iterator[Used]:
    """Slopes and effects as factors on the constants that they move (on the odds of shares)."""
    place = {name: index for index, name in enumerate(fitted.columns)}
    for name, covariate in subject.covariates().items():
        if name in place and covariate:
            slope = float(fitted.mean[place[name]])
            yield _used(fitted, name, f"slope {name} at {covariate:+.2f}", slope * covariate, fitted.book.slope[name].on)
    for family, level in subject.effects().items():
        name = f"{family}:{level}"
        move = float(fitted.mean[place[name]]) if name in place else fitted.book.effect[family].value
        yield _used(fitted, name, f"effect {family} {level}", move, fitted.book.effect[family].on)


def _used(fitted: Fitted, name: str, label: str, move: float, on: tuple[str, ...]) -> Used:
    rows, records = fitted.informed.get(name, (0, 0))
    grade: Grade = "measured-elsewhere" if rows or records else "assumed"
    informed = f"{rows} rows and {records} records" if rows or records else "no row or record; prior"
    source = f"{informed}; sd {_sd(fitted, name):.2f}; on {', '.join(constant.removesuffix('_s') for constant in on)}"
    date = None if grade == "assumed" else fitted.newest
    return Used(key=label, fact=Fact(value=math.exp(move), unit="x", source=source, date=date, grade=grade))


def _sd(fitted: Fitted, name: str) -> float:
    if name in fitted.columns:
        index = fitted.columns.index(name)
        return math.sqrt(float(fitted.covariance[index, index]))
    return fitted.book.effect[name.partition(":")[0]].sd
