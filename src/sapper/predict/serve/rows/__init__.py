"""From published inference measurements to exact serving questions."""

from __future__ import annotations

from sapper.predict.serve.rows.case import Mode, PrefillPool, Quantity, ServeCase

__all__ = ["Mode", "PrefillPool", "Quantity", "ServeCase"]
