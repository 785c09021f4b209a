"""The bars of serving: time per output token and to the first token, and the suite that runs on chips of several vendors."""

from __future__ import annotations

from collections.abc import Sequence

from sapper.predict.bars.bar import Bar, Figure
from sapper.predict.rows.scores import Scored, by, summary

POINTS = "InferenceX"
"""Source of the serving points, NVIDIA's own sample of them included."""
SUITE = "argonne"
"""Beginning of the source whose rows cover chips of several vendors in one harness."""


def points(lines: Sequence[Scored]) -> Bar:
    """The bar ``serving_points``, each chip predicted without its own rows."""
    own = [line for line in lines if line.family == POINTS]
    tpot, ttft = (summary([line for line in own if line.metric == metric]) for metric in ("tpot", "ttft"))
    answered = summary(own)
    return Bar(
        key="serving_points", rows=answered.n, answered=answered.answered,
        figures=(
            Figure(name="answered", value=answered.answered_share, least=1.0),
            Figure(name="tpot", value=tpot.mean_abs, most=0.12),
            Figure(name="tpot_median", value=tpot.median_abs),
            Figure(name="tpot_all", value=tpot.mean_abs_all),
            Figure(name="ttft", value=ttft.mean_abs, most=0.25),
            Figure(name="ttft_median", value=ttft.median_abs),
            Figure(name="ttft_all", value=ttft.mean_abs_all),
        ),
        groups=_by_chip([line for line in own if line.metric == "tpot"]),
    )


def suite(lines: Sequence[Scored]) -> Bar:
    """The bar ``serving_vendors``: latency of whole requests across vendors, each chip left out."""
    own = [line for line in lines if line.family.lower().startswith(SUITE)]
    found = summary(own)
    return Bar(
        key="serving_vendors", rows=found.n, answered=found.answered,
        figures=(
            Figure(name="mean", value=found.mean_abs, most=0.15),
            Figure(name="median", value=found.median_abs),
            Figure(name="mean_all", value=found.mean_abs_all),
            Figure(name="impossible", value=float(found.impossible), unit="count"),
        ),
        groups=_by_chip(own),
    )


def _by_chip(lines: Sequence[Scored]) -> tuple[dict[str, object], ...]:
    groups = {name: group for name, group in by(lines, lambda line: line.chip).items() if group.mean_abs is not None}
    return tuple(
        {"group": name, "rows": group.n, "mean": group.mean_abs, "median": group.median_abs, "bias": group.bias}
        for name, group in sorted(groups.items(), key=lambda item: -(item[1].mean_abs or 0.0))
    )
