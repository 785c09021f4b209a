"""Evidence: one measured or quoted value with its source, date, grade and conditions; and the store that keeps such records.

``Fact`` is a value of the chip catalogue, ``Record`` a measurement that can be stored, exchanged and corrected::

    with Store.open() as store:                     # SAPPER_STORE, else the user's own file
        store.append([record])
        store.records(chip="ascend-910b2", kind="matmul")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sapper.evidence.fact import GRADES, Fact, Grade, Interval, worst
from sapper.evidence.record import Record

if TYPE_CHECKING:
    from sapper.evidence.store import Store

__all__ = ["GRADES", "Fact", "Grade", "Interval", "Record", "Store", "worst"]


def __getattr__(name: str) -> Any:
    if name == "Store":  # on demand: SQLAlchemy takes longer to import than most commands to answer
        from sapper.evidence.store import Store

        return Store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
