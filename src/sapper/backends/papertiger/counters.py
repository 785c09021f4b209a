"""What the chip has executed: its own evidence, which a silent fallback does not enter."""

from __future__ import annotations

import threading
from collections import Counter


class Counters:
    """Launches by op, over all threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.launched: Counter[str] = Counter()
        """By ``aten::name``, without overload: PyTorch turns most functional and in-place forms into the one with ``out``."""
        self.asked: Counter[str] = Counter()
        """What PyTorch handed to the plug-in to be computed, likewise."""
        self.copied_in = 0
        """Copies from the host."""
        self.copied_out = 0

    def launch(self, name: str) -> int:
        """Count a launch; returns which one of its op it is, from 1."""
        with self.lock:
            self.launched[name] += 1
            return self.launched[name]

    def ask(self, name: str) -> None:
        """Count an op that the plug-in was handed."""
        with self.lock:
            self.asked[name] += 1

    def elsewhere(self, before: Counter[str] | None = None) -> Counter[str]:
        """Ops that the plug-in was handed and the chip did not launch, since ``before``, an earlier answer."""
        with self.lock:
            return self.asked - self.launched - (before or Counter())

    def transfer(self, *, into: bool) -> None:
        """Count a copy from the host, or to it."""
        with self.lock:
            if into:
                self.copied_in += 1
            else:
                self.copied_out += 1

    def reset(self) -> None:
        """Begin anew."""
        with self.lock:
            self.launched.clear()
            self.asked.clear()
            self.copied_in = self.copied_out = 0

    def total(self) -> int:
        """All launches."""
        with self.lock:
            return sum(self.launched.values())
