"""From published inference measurements to exact serving questions."""

from __future__ import annotations

from sapper.predict.serve.rows.build import cases_of
from sapper.predict.serve.rows.case import Mode, PrefillPool, Quantity, ServeCase
from sapper.predict.serve.rows.census import all_cases, census

__all__ = ["Mode", "PrefillPool", "Quantity", "ServeCase", "all_cases", "cases_of", "census"]
