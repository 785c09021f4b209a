"""Burst against sustained: the same product for half a minute, second by second."""

from __future__ import annotations

import time
from typing import Any, Callable

from sapper.probe.parts.dtypes import product
from sapper.probe.parts.session import Session
from sapper.probe.parts.timing import outcome, sample

CLOCK_WINDOW_S = 30.0
CLOCK_LEAST_S = 3.0
CLOCK_PAUSE_S = 2.0
"""Rest before, so that the first second is a burst."""

CLOCK_SIZES = (256, 512, 1024, 2048, 4096, 8192)
CLOCK_DTYPES = ("bf16", "fp16", "fp32")
CLOCK_CALL_S = 0.05
"""Longest call that still lets a second be told from the next."""


def measure_clocks(session: Session) -> None:
    """Three records: the rate of the first second, of the last, and their ratio."""
    window = min(CLOCK_WINDOW_S, session.budget.left_s() - CLOCK_PAUSE_S)
    if window < CLOCK_LEAST_S:
        session.skip("clock: time")
        return
    base = {"kind": "clock", "unit": "flop/s", "metric": "rate"}
    for dtype in session.fastest_first(CLOCK_DTYPES):
        try:
            size, call = _largest_product(session, dtype)
            rates = _by_second(session, call, window=window, work=2.0 * size**3)
        except Exception as error:
            session.record(**base, dtype=dtype, conditions={"what": "sustained"}, **outcome(error))
            continue
        conditions = {"m": size, "n": size, "k": size, "window_s": round(window, 1), "by_second_flops_per_s": rates}
        session.record(**base, dtype=dtype, conditions={**conditions, "what": "burst"}, value=rates[0])
        session.record(**base, dtype=dtype, conditions={**conditions, "what": "sustained"}, value=rates[-1])
        session.record(
            kind="clock", metric="share", unit="1", dtype=dtype, conditions={**conditions, "what": "sustained over burst"},
            value=rates[-1] / rates[0],
        )
        return


def _largest_product(session: Session, dtype: str) -> tuple[int, Callable[[], Any]]:
    """Size and call of the largest product that takes less than :data:`CLOCK_CALL_S`; the smallest in any case."""
    best = None
    for size in CLOCK_SIZES:
        call = product(session.device, dtype, shape=(size, size, size))
        sample(session.device, call, 1)
        seconds = sample(session.device, call, 1)
        if best is None or seconds < CLOCK_CALL_S:
            best = size, call
        if 8 * seconds > CLOCK_CALL_S:  # the next has eight times the work
            break
    assert best is not None
    return best


def _by_second(session: Session, call: Any, *, window: float, work: float) -> list[float]:
    """Rate in each whole second of ``window``, waiting after batches of about a tenth of a second."""
    device = session.device
    start = time.perf_counter()
    call()
    device.synchronize()
    batch = max(1, int(0.1 / max(time.perf_counter() - start, 1e-6)))
    time.sleep(CLOCK_PAUSE_S)
    rates: list[float] = []
    begin = second = time.perf_counter()
    done = 0
    while second - begin < window - 0.5:
        for _ in range(batch):
            call()
            device.step()
        device.synchronize()
        done += batch
        now = time.perf_counter()
        if now - second >= 1.0:
            rates.append(done * work / (now - second))
            second, done = now, 0
    return rates
