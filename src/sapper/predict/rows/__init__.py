"""Rows: published measurements, and the questions that they put to predict."""

from __future__ import annotations

from sapper.predict.rows.build import case_of
from sapper.predict.rows.case import Assumption, Case, Conversion
from sapper.predict.rows.census import cases_of, census
from sapper.predict.rows.read import Rows, read_rows
from sapper.predict.rows.row import Refused, Row

__all__ = ["Assumption", "Case", "Conversion", "Refused", "Row", "Rows", "case_of", "cases_of", "census", "read_rows"]
