"""Streams and events of the chip: it works off one launch after another, so each stream is done when it is asked."""

from __future__ import annotations

import time
from typing import Any

import torch
from sapper.backends.papertiger.memory import LEDGER


class Stream(torch.Stream):
    """``torch.NAME.Stream()``."""

    def __new__(cls, device: Any = None, priority: int = 0, **_: Any) -> Stream:
        """A stream of ``device``; priorities mean nothing here."""
        made: Stream = super().__new__(cls, device=torch.device(LEDGER.device if device is None else device), priority=priority)
        return made

    def wait_event(self, event: Any) -> None:
        """Everything before this call has ended already."""

    def wait_stream(self, stream: Any) -> None:
        """Everything before this call has ended already."""

    def record_event(self, event: Any = None) -> Any:
        """Mark the present."""
        event = Event() if event is None else event
        event.record(self)
        return event


class StandIn(type(torch.Generator)):  # type: ignore[misc]
    """Class of classes that take the place of one of PyTorch's: what PyTorch makes itself counts as theirs."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.__mro__[1])


class Event(torch.Event, metaclass=StandIn):
    """``torch.NAME.Event()``, and ``torch.Event()``: the host's clock when it was recorded."""

    recorded_s: float | None = None

    def __new__(cls, device: Any = None, *_: Any, **named: Any) -> Event:
        """An event of ``device``; a first argument that is no device is ``enable_timing``, as ``torch.cuda.Event`` has it."""
        wanted = LEDGER.device if device is None or isinstance(device, bool) else device
        named = {key: value for key, value in named.items() if key in ("enable_timing", "blocking", "interprocess")}
        made: Event = super().__new__(cls, device=torch.device(wanted), **named)
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def record(self, stream: Any = None) -> None:
        """Mark the present."""
        self.recorded_s = time.perf_counter()

    def wait(self, stream: Any = None) -> None:
        """Everything before this call has ended already."""

    def query(self) -> bool:
        """Whether what was recorded is done: always."""
        return True

    def synchronize(self) -> None:
        """Nothing is outstanding."""

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds between two recorded events, as PyTorch counts them."""
        if self.recorded_s is None or end_event.recorded_s is None:
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        return (end_event.recorded_s - self.recorded_s) * 1e3


class Streamed:
    """``with torch.NAME.stream(one):``; there is one stream, whatever its name."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __enter__(self) -> Any:
        return self.stream

    def __exit__(self, *_: object) -> None:
        pass
