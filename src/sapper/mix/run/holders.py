"""Which seats hold which weights, and so whose gradients are summed together.

A weight's gradient is the sum over all seats that use it: copies and replicas see different samples, the two ends of a tied
embedding different uses. One rule serves data parallelism, unequal degrees and ties alike.
"""

from __future__ import annotations

from collections.abc import Mapping

from sapper.mix.plan import MixPlan, Seat, seats


def holders(plan: MixPlan, used: Mapping[str, frozenset[int]]) -> dict[str, tuple[int, ...]]:
    """Weight -> ranks that hold it, by the layers that use it."""
    found = {}
    taken = seats(plan)
    for name, layers in used.items():
        found[name] = tuple(seat.rank for seat in taken if any(layer in layers_of(plan, seat) for layer in layers))
    return found


def layers_of(plan: MixPlan, seat: Seat) -> range:
    """Layers of a seat's stage."""
    return plan.pipelines[seat.pipeline].stages[seat.stage].layers


def buckets(
    names: Mapping[str, int], held: Mapping[str, tuple[int, ...]], *, bytes_at_most: int
) -> list[tuple[tuple[int, ...], tuple[str, ...]]]:  # fmt: skip
    """Weights to be summed in one message: those of the same holders, in the given order, up to a size.

    Two seats that share several buckets have them in the same order, whatever else they hold.

    Args:
        names: Weight -> bytes, in the same order on every holder.
        held: Of :func:`holders`.
        bytes_at_most: Of a bucket that has more than one weight.
    """
    filling: dict[tuple[int, ...], tuple[list[str], int]] = {}
    done: list[tuple[tuple[int, ...], tuple[str, ...]]] = []
    for name, size in names.items():
        members = held[name]
        bucket, filled = filling.get(members, ([], 0))
        if bucket and filled + size > bytes_at_most:
            done.append((members, tuple(bucket)))
            bucket, filled = [], 0
        filling[members] = ([*bucket, name], filled + size)
    done += [(members, tuple(bucket)) for members, (bucket, _) in filling.items()]
    return done
