"""Fleet: the unlike nodes that serve one model together, as tables: time of a layer by batch, room for the cache by layers held.

Legend: N nodes; L layers of the model. The coordinator, where requests come in and tokens go out, has the index -1, so that it is
the last row and column of a matrix over nodes and coordinator. A *layer-token* is one token's cache in one layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from sapper.predict.arrays import Floats

COORDINATOR = -1
"""Index of where requests come in and tokens go out."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A kind of node."""

    name: str
    decode_s: Floats
    """Seconds of one layer for a batch of n decoding sequences, by n from 0."""
    prompt_s: Floats
    """Seconds of one layer for n prompt tokens, by n from 0."""
    cache_tokens: tuple[float, ...]
    """Layer-tokens that fit beside the weights of k layers, by k - 1; its length is the most layers that a node holds."""
    prompts: tuple[int, ...]
    """Prompts that one batch takes, by k - 1."""
    sequences: tuple[int, ...]
    """Decoding sequences that one batch takes, by k - 1."""
    contexts: tuple[int, ...] = ()
    """Tokens of context that the decoding sequences of one batch may have together, by k - 1; empty: any."""
    entry_s: float = 0.0
    """Seconds that each new token takes on its way into the node, before the first layer."""
    source: str = ""
    """Where the times come from."""
    relative_sd: float = 0.0
    """Standard deviation of the logarithm of the times."""

    @property
    def most_layers(self) -> int:
        """Layers that a node holds at most."""
        return len(self.cache_tokens)


@dataclass(frozen=True, kw_only=True)
class Requests:
    """How long requests are: pairs that are drawn, and what a scheduler expects of one."""

    prompts: tuple[int, ...]
    answers: tuple[int, ...]
    """Of the same request; equal length."""
    expected_answer: float
    """Tokens that are set aside for an answer whose length nobody knows yet."""

    @cached_property
    def mean_prompt(self) -> float:
        """Tokens."""
        return float(np.mean(self.prompts))

    @cached_property
    def met_prompt(self) -> float:
        """Tokens of the prompt that one who comes at any time meets: long ones are under way for longer, E[p^2] / E[p]."""
        prompts = np.array(self.prompts, float)
        return float((prompts**2).sum() / prompts.sum())

    @cached_property
    def mean_answer(self) -> float:
        """Tokens."""
        return float(np.mean(self.answers))

    @cached_property
    def mean_held(self) -> float:
        """Tokens of cache that are set aside for a request in flight: those with long answers are in flight for longer."""
        prompts, answers = np.array(self.prompts, float), np.array(self.answers, float)
        return float((prompts * answers).sum() / answers.sum()) + self.expected_answer


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Nodes, links and the model, as far as a placement needs to know."""

    model: str
    layers: int
    machines: tuple[Machine, ...]
    """Of each node, length N."""
    names: tuple[str, ...]
    """Of each node, length N."""
    latency_s: Floats
    """N + 1 squared, from row to column."""
    bandwidth_bytes_per_s: Floats
    """N + 1 squared; 0 where two cannot reach each other."""
    activation_bytes: float
    """Of one token between two layers."""
    token_bytes: float
    """Of one token on its way to and from the coordinator."""
    nic_bytes_per_s: float = float("inf")
    """Of one node, all its links together, per direction."""
    sources: tuple[str, ...] = field(default=())

    @property
    def nodes(self) -> int:
        """N."""
        return len(self.machines)

    def size_bytes(self, source: int, target: int) -> float:
        """Of one token from ``source`` to ``target``."""
        inner = source != COORDINATOR and target != COORDINATOR
        return self.token_bytes + (self.activation_bytes if inner else 0.0)

    def kinds(self) -> dict[str, list[int]]:
        """Nodes by the name of their machine, in order of first appearance."""
        found: dict[str, list[int]] = {}
        for node, machine in enumerate(self.machines):
            found.setdefault(machine.name, []).append(node)
        return found


def table(points: Sequence[tuple[float, float]], *, most: int | None = None) -> Floats:
    """Times at every whole size up to the last point (or ``most``), linear between the points of (size, seconds).

    The first point must be at 0: an empty batch takes no time.
    """
    sizes, seconds = np.array(points, float).T
    return np.asarray(np.interp(np.arange(int(sizes[-1] if most is None else most) + 1), sizes, seconds), float)
