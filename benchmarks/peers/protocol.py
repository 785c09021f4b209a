"""How a peer is asked: rows in on stdin, answers out on stdout, one JSON object a line. Runs inside the peer's own environment.

Standard library only, since it shares the process with a peer that knows nothing of Sapper. An answer holds the row's ``id``,
``cpu_s`` (CPU seconds of this process for this one answer) and either the predicted quantities, each with its unit in its name
(``step_time_s``, ``e2e_latency_s``, ``tpot_s``, ``ttft_s``), or ``reason`` (a class) and ``detail`` (the peer's own words).
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

Row = Mapping[str, Any]
LIMIT_S = 120
"""Seconds after which a row counts as not answered."""
DETAIL_CHARACTERS = 160


class NotAnswered(Exception):
    """The peer has no way to be asked this row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(reason)


def serve(answer: Callable[[Row], dict[str, float]], *, reasons: Mapping[str, str]) -> None:
    """Answer every row of stdin.

    Args:
        answer: Quantities of one row, by name with unit.
        reasons: Reason class by the pattern that a peer's error message matches, first match first.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # peers print; stdout is for answers alone
    signal.signal(signal.SIGALRM, _too_long)
    print(json.dumps({"start_cpu_s": round(time.process_time(), 4)}), file=out, flush=True)
    for line in sys.stdin:
        row = json.loads(line)
        start = time.process_time()
        signal.alarm(LIMIT_S)
        try:
            found: dict[str, Any] = answer(row)
        except NotAnswered as refused:
            found = {"reason": refused.reason, "detail": refused.detail}
        except Exception as error:  # whatever a peer raises is its answer
            found = {"reason": reason_of(error, reasons), "detail": f"{type(error).__name__}: {error}"[:DETAIL_CHARACTERS]}
        finally:
            signal.alarm(0)
        print(json.dumps({"id": row["id"], **found, "cpu_s": round(time.process_time() - start, 6)}), file=out, flush=True)


def reason_of(error: Exception, reasons: Mapping[str, str]) -> str:
    """The reason class of a peer's error; ``other: NAME`` where no pattern knows it."""
    text = f"{type(error).__name__}: {error}"
    known = (reason for pattern, reason in reasons.items() if re.search(pattern, text, re.IGNORECASE))
    return next(known, f"other: {type(error).__name__}")


def need(row: Row, *names: str) -> None:
    """Refuse a row that does not state what the peer needs.

    Raises:
        NotAnswered: A dotted name, such as ``model.layers``, is absent.
    """
    for name in names:
        value: Any = row
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value is None:
            raise NotAnswered("the row does not state what the peer needs", name)


def _too_long(*_: object) -> None:
    raise NotAnswered("too slow", f"more than {LIMIT_S} s")
