"""What is compared: for every family its Transformers classes and a source of small random but valid configurations.

A drawn configuration is small in each dimension, odd where the architecture permits it, and switches every field that
changes shapes: grouped heads, head dims that are not hidden/heads, ties, biases, layer patterns, expert counts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Draw = Callable[[random.Random], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """One family as the real library has it."""

    model_type: str
    """As in config.json, which is the key of Sapper's registry."""
    config_class: str
    architectures: tuple[str, ...]
    """Classes whose parameters and FLOPs are compared; the first is used for real sizes."""
    draw: Draw
    kind: str = "text"
    """text, seq2seq or vision: which inputs the model takes."""
    small_seq_len: int = 64
    real_seq_len: int = 512
    """Shorter where the library loops over tokens or chunks in Python; nothing in a comparison depends on its size."""
    scan_is_matmul: bool = False
    """The library runs the scan as the very products that the formula counts, so that scans are compared as well."""
    defaults: dict[str, Any] = field(default_factory=dict)
    """What a config class needs besides its defaults to describe a model at all."""
    dense_experts: bool = False
    """The library runs every expert on every token, weighting most by zero; our count of routed rows is scaled up to compare."""


def heads(r: random.Random, *, free_head_dim: bool = True, step: int = 8) -> dict[str, Any]:
    """Hidden size, heads, grouped heads and head dim; with ``free_head_dim`` hidden size need not be heads * head_dim."""
    kv_heads = r.choice([1, 2, 3])
    count = kv_heads * r.choice([1, 2, 4])
    head_dim = step * r.choice([1, 2, 3])
    hidden = step * r.randrange(5, 16) if free_head_dim else count * head_dim
    found = {"hidden_size": hidden, "num_attention_heads": count, "num_key_value_heads": kv_heads}
    return found | ({"head_dim": head_dim} if free_head_dim else {})


def body(r: random.Random) -> dict[str, Any]:
    """Layers, vocabulary and feed-forward width."""
    return {
        "num_hidden_layers": r.choice([1, 2, 3, 5]),
        "vocab_size": r.randrange(90, 300),
        "intermediate_size": r.randrange(30, 200),
        "max_position_embeddings": 256,
    }


def ties(r: random.Random) -> dict[str, Any]:
    """Tied or untied output head."""
    return {"tie_word_embeddings": r.random() < 0.5}


def flag(r: random.Random) -> bool:
    """Heads or tails."""
    return r.random() < 0.5


def experts(r: random.Random, count: str, width: str | None = None) -> dict[str, Any]:
    """Routed experts: ``count`` is the field with their number, ``width`` the one with their width."""
    found = {count: r.choice([4, 5, 8]), "num_experts_per_tok": r.choice([1, 2, 3])}
    return found | ({width: r.randrange(16, 90)} if width else {})


def llama_like(r: random.Random, *, free_head_dim: bool = True) -> dict[str, Any]:
    """The dims that most decoders share."""
    return body(r) | heads(r, free_head_dim=free_head_dim) | ties(r)


def pattern(r: random.Random, layers: int, *kinds: str) -> list[str]:
    """A layer pattern that holds each of ``kinds`` as far as there are layers."""
    found = [*kinds, *(r.choice(kinds) for _ in range(layers))][:layers]
    r.shuffle(found)
    return found


def all_cases() -> list[Case]:
    """Every family that is compared, by name."""
    import cases_decoder
    import cases_other

    return [*cases_decoder.CASES, *cases_other.CASES]
