"""What the two training peers read of a row alike: degrees, recomputation, micro-batches to try. Runs inside their environments."""

from __future__ import annotations

from collections.abc import Callable

from protocol import NotAnswered, Row, need

GATED = ("llama", "mixtral", "qwen", "mistral")
"""Models with gated feed-forward, by a part of their name."""
MICRO_BATCHES = (1, 2, 4, 8, 16)
"""What is tried where a row does not state the micro-batch; the fastest counts, as in Sapper's own search."""


def degrees(row: Row) -> tuple[int, int, int]:
    """Tensor, pipeline and data parallel degrees."""
    need(row, "parallel.tp", "parallel.pp", "parallel.dp", "global_batch", "model.layers", "model.hidden", "model.heads", "model.seq_len")
    found = row["parallel"]
    if (found.get("ep") or 1) > 1 or (found.get("cp") or 1) > 1:
        raise NotAnswered("the peer has no such parallelism", f"ep {found.get('ep')}, cp {found.get('cp')}")
    return found["tp"], found["pp"], found["dp"]


def recomputation(row: Row) -> str:
    """``full``, ``selective`` or ``none``; selective where the row is silent, Megatron's default since 2022."""
    words = (row.get("recompute") or "selective").lower()
    return next((word for word in ("selective", "full", "none") if word in words), "none")


def sequence_parallel(row: Row) -> bool:
    """Whether activations between the layers are split over the tensor-parallel group."""
    return "sequence" in (row.get("recompute") or "") or "Megatron-Core" in (row.get("framework") or "")


def plain(row: Row) -> bool:
    """Whether the model is a plain transformer: as many keys as queries, and two matrices in the feed-forward."""
    model = row["model"]
    grouped = (model.get("kv_heads") or model["heads"]) != model["heads"]
    return not (grouped or model.get("experts") or any(word in model["name"].lower() for word in GATED))


def fastest(row: Row, step_s: Callable[[int], float]) -> float:
    """The step time at the row's micro-batch; where it states none, the least over those that the peer accepts."""
    local = row["global_batch"] // row["parallel"]["dp"]
    stated = row.get("micro_batch")
    if stated is not None:
        return step_s(int(stated))
    times, refused = [], None
    for size in MICRO_BATCHES:
        if local % size == 0:
            try:
                times.append(step_s(size))
            except Exception as error:
                refused = error
    if times:
        return min(times)
    raise refused or NotAnswered("no micro-batch divides the batch", str(local))
