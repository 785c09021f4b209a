"""The answers of ``sapper mix serve`` on a terminal, as JSON and as CSV."""

from __future__ import annotations

from typing import Any

import click

from sapper import messages, units
from sapper.cli._explain import explain as show_used
from sapper.cli.output import Column, emit
from sapper.clusters.cluster import Cluster
from sapper.mix.serve.choose import Alone, Choice, Chosen, ServeMix
from sapper.mix.serve.fleet import Fleet
from sapper.mix.serve.place import Placed
from sapper.mix.serve.prices import Weights
from sapper.mix.serve.traffic import WHOLE
from sapper.predict.serve.question import ServeQuestion

_CHOSEN = [
    Column("group", "mix.serve.column.group"),
    Column("role", "mix.serve.column.role"),
    Column("plan", "mix.serve.column.plan"),
    Column("replicas", "mix.serve.column.replicas", "right"),
    Column("chips", "mix.serve.column.chips", "right"),
    Column("classes", "mix.serve.column.classes"),
    Column("load", "mix.serve.column.load", "right", lambda value: f"{value:.0%}"),
    Column("kept", "mix.serve.column.kept"),
]
_ALONE = [
    Column("group", "mix.serve.column.group"),
    Column("value", "mix.serve.column.value", "right", lambda value: f"{value:,.4g}"),
    Column("chips", "mix.serve.column.needs", "right"),
    Column("have", "mix.serve.column.have", "right"),
    Column("note", "mix.serve.column.note"),
]
_NODES = [
    Column("node", "mix.serve.column.node"),
    Column("machine", "mix.serve.column.machine"),
    Column("first", "mix.serve.column.first", "right"),
    Column("last", "mix.serve.column.last", "right"),
    Column("share", "mix.serve.column.share", "right", lambda value: f"{value:.0%}"),
    Column("busy", "mix.serve.column.busy", "right", lambda value: f"{value:.0%}"),
    Column("batch", "mix.serve.column.batch", "right", lambda value: f"{value:.1f}"),
]


_NO_GAP = 5e-5
"""Below this share a proven gap is printed as none."""


# replicas


def choice(found: ServeMix, question: ServeQuestion, cluster: Cluster, *, explain: bool) -> None:
    """Print which replicas carry the load."""
    weights, best = found.weights, found.best
    rate = sum(one.rate_per_s for one in found.classes)
    assert question.slo is not None
    click.echo(
        messages.text("mix.serve.head", model=question.job.model.name, cluster=cluster.name, rate=f"{rate:.4g}", slo=question.slo.text)
    )
    for one in found.classes:
        if len(found.classes) > 1:
            traffic = one.traffic
            click.echo(
                messages.text(
                    "mix.serve.class",
                    name=one.name,
                    rate=f"{one.rate_per_s:.4g}",
                    prompt=f"{traffic.prompt.tokens:,.0f}",
                    answer=f"{traffic.answer.tokens:,.0f}",
                )
            )
    emit([_chosen(one) for one in best.chosen], _CHOSEN, fmt="table")
    span = found.interval
    click.echo(
        messages.text(
            "mix.serve.least.chips" if weights.objective == "chips" else "mix.serve.least",
            value=_amount(best.value, weights),
            low=f"{span.low:,.4g}",
            high=f"{span.high:,.4g}",
            chips=best.chips,
            basis=weights.basis,
        )
    )
    proven = "mix.serve.best" if best.gap < _NO_GAP else "mix.serve.gap"
    click.echo(messages.text(proven, gap=f"{best.gap:.2%}", solver=best.solver))
    click.echo()
    emit([_alone(one) for one in found.alone], _ALONE, fmt="table")
    click.echo(_verdict(found))
    if found.whole is not None and found.whole.value > best.value * 1.0005:
        saved = 1.0 - best.value / found.whole.value
        click.echo(messages.text("mix.serve.parted", saved=f"{saved:.1%}", value=_amount(found.whole.value, weights)))
    if found.without:
        click.echo(
            messages.text(
                "mix.serve.unpriced", groups=", ".join(found.without), objective=messages.text(f"mix.serve.objective.{weights.objective}")
            )
        )
    if weights.objective == "chips":
        click.echo(messages.text("mix.serve.counted"))
    if explain:
        click.echo()
        show_used([*weights.used, *(item for one in best.chosen for item in one.option.engine.used)])


def _amount(value: float, weights: Weights) -> str:
    """What is least, with its unit in the reader's language."""
    if weights.objective == "chips":
        return messages.text("mix.serve.amount.chips", value=f"{value:,.4g}")
    return f"{value:,.4g} {weights.unit}"


def _verdict(found: ServeMix) -> str:
    """What mixing gains over the best single group that has the chips."""
    best, weights = found.best, found.weights
    used = {one.option.group for one in best.chosen}
    able = [one for one in found.alone if one.enough and one.value is not None]
    if not able:
        return messages.text("mix.serve.verdict.only")
    least = min(able, key=lambda one: one.value or 0.0)
    assert least.value is not None
    saved = 1.0 - best.value / least.value if least.value else 0.0
    if len(used) == 1 or saved < 5e-4:
        return messages.text("mix.serve.verdict.alone", group=least.group, value=_amount(least.value, weights))
    return messages.text("mix.serve.verdict.mixed", saved=f"{saved:.1%}", group=least.group, value=_amount(least.value, weights))


def _chosen(one: Chosen) -> dict[str, Any]:
    said = {None: "mix.serve.kept.unknown", True: "mix.serve.kept.yes", False: "mix.serve.kept.no"}[one.kept]
    role = messages.text(f"mix.serve.role.{one.option.role}", partner=one.partner)
    return {
        "group": one.option.group, "role": role, "plan": one.option.plan, "replicas": one.replicas, "chips": one.chips,
        "classes": ", ".join(f"{rate:.3g}/s" if name == WHOLE else f"{name} {rate:.3g}/s" for name, rate in one.shares),
        "load": one.load, "kept": messages.text(said),
    }  # fmt: skip


def _alone(one: Alone) -> dict[str, Any]:
    if one.value is None:
        note = messages.text(one.reason.code, **one.reason.values) if one.reason is not None else messages.text("mix.serve.note.cannot")
    else:
        note = "" if one.enough else messages.text("mix.serve.note.short")
    return {"group": one.group, "value": one.value, "chips": one.chips, "have": one.have, "note": note}


def choice_json(found: ServeMix) -> dict[str, Any]:
    """The answer whole."""
    weights = found.weights
    return {
        "objective": weights.objective, "unit": weights.unit, "basis": weights.basis, "value": found.interval, "gap": found.best.gap,
        "bound": found.best.bound, "solver": found.best.solver, "chips": found.best.chips, "chosen": _rows(found.best),
        "classes": [
            {
                "name": one.name, "rate_per_s": one.rate_per_s, "input_tokens": one.traffic.prompt.tokens,
                "output_tokens": one.traffic.answer.tokens,
            }
            for one in found.classes
        ],
        "alone": [
            {
                "group": one.group, "value": one.value, "chips": one.chips, "have": one.have, "enough": one.enough,
                "refusal": None if one.reason is None else one.reason.render("en"),
            }
            for one in found.alone
        ],
        "not_parted": None if found.whole is None else {"value": found.whole.value, "chosen": _rows(found.whole)},
        "without": list(found.without),
        "options": [
            {
                "group": option.group, "role": option.role, "plan": option.plan, "chips": option.chips,
                "rates_per_s": {
                    one.name: {"mid": rate, "low": low, "high": high}
                    for one, rate, low, high in zip(found.classes, option.rates_per_s, option.slow_per_s, option.fast_per_s, strict=True)
                },
            }
            for offer in found.offers
            for option in offer.options
        ],
        "used": [*weights.used, *{item.key: item for one in found.best.chosen for item in one.option.engine.used}.values()],
    }  # fmt: skip


def _rows(one: Choice) -> list[dict[str, Any]]:
    return [
        {
            "group": each.option.group, "role": each.option.role, "partner": each.partner or None, "plan": each.option.plan,
            "replicas": each.replicas, "chips": each.chips, "rates_per_s": dict(each.shares), "load": each.load, "keeps_slo": each.kept,
        }
        for each in one.chosen
    ]  # fmt: skip


def choice_csv(found: ServeMix) -> None:
    """One row for each set of like replicas."""
    rows = [row | {"rates_per_s": " ".join(f"{name}={rate:.6g}" for name, rate in row["rates_per_s"].items())} for row in _rows(found.best)]
    keys = ("group", "role", "partner", "plan", "replicas", "chips", "rates_per_s", "load", "keeps_slo")
    emit(rows, [Column(key, "mix.serve.column.group") for key in keys], fmt="csv")


# layers


def placed(found: Placed, fleet: Fleet, *, explain: bool) -> None:
    """Print which layers stand on which node."""
    outcome, guess = found.outcome, found.best.guess
    click.echo(
        messages.text(
            "mix.serve.place.head",
            model=fleet.model,
            layers=fleet.layers,
            nodes=fleet.nodes,
            kinds=", ".join(f"{len(nodes)} {name}" for name, nodes in fleet.kinds().items()),
        )
    )
    emit(_nodes(found, fleet), _NODES, fmt="table")
    limit = found.bound_tokens_per_s
    click.echo(
        messages.text(
            "mix.serve.place.total",
            tokens=f"{outcome.tokens_per_s:,.1f}",
            low=f"{found.interval.low:,.1f}",
            high=f"{found.interval.high:,.1f}",
            requests=f"{outcome.requests:.0f}",
            guess=f"{guess.tokens_per_s:,.1f}",
        )
        + (messages.text("mix.serve.place.bound", bound=f"{limit:,.0f}", share=f"{outcome.tokens_per_s / limit:.0%}") if limit else "")
    )
    click.echo(
        messages.text(
            "mix.serve.place.binds",
            layer=guess.scarcest,
            depth=f"{guess.depth:.1f}",
            quiet=units.duration(guess.quiet_s),
            round=units.duration(guess.round_s),
            prompt=units.duration(guess.prompt_s),
        )
    )
    if found.alone and len(found.alone) > 1:
        parts = [
            messages.text("mix.serve.place.part", group=name, tokens=f"{tokens:,.1f}") if tokens else
            messages.text("mix.serve.place.small", group=name) for name, tokens in found.alone
        ]  # fmt: skip
        click.echo(messages.text("mix.serve.place.alone", parts=", ".join(parts)))
    if found.left_out:
        click.echo(messages.text("mix.serve.place.left", nodes=", ".join(fleet.names[node] for node in found.left_out)))
    click.echo(
        messages.text(
            "mix.serve.place.search", looked=f"{found.looked_at:,}", simulated=found.simulated, elapsed=units.duration(found.elapsed_s)
        )
    )
    for source in fleet.sources if explain else ():
        click.echo(f"  {source}")


def _nodes(found: Placed, fleet: Fleet) -> list[dict[str, Any]]:
    part = dict.fromkeys(range(fleet.nodes), 0.0)
    for (_, target), flow in found.best.flows.items():
        if target >= 0:
            part[target] += flow
    rows = [
        {
            "node": fleet.names[node], "machine": fleet.machines[node].name, "first": span[0], "last": span[1] - 1, "share": part[node],
            "busy": found.outcome.busy[node], "batch": found.outcome.batch[node],
        }
        for node, span in enumerate(found.best.placement.spans)
        if span is not None
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row["first"], row["last"], row["node"]))


def placed_json(found: Placed, fleet: Fleet) -> dict[str, Any]:
    """The answer whole."""

    def name(node: int) -> str:
        return "coordinator" if node < 0 else fleet.names[node]

    return {
        "model": fleet.model, "layers": fleet.layers, "decode_tokens_per_s": found.interval,
        "requests_in_flight": found.outcome.requests, "bound_tokens_per_s": found.bound_tokens_per_s, "estimate": {
            "tokens_per_s": found.best.guess.tokens_per_s, "round_s": found.best.guess.round_s, "quiet_s": found.best.guess.quiet_s,
            "prompt_s": found.best.guess.prompt_s, "depth": found.best.guess.depth, "scarcest_layer": found.best.guess.scarcest,
        },
        "nodes": _nodes(found, fleet), "left_out": [fleet.names[node] for node in found.left_out],
        "links": [
            {"from": name(source), "to": name(target), "share": flow} for (source, target), flow in found.best.flows.items() if flow > 0
        ],
        "alone": dict(found.alone), "looked_at": found.looked_at, "simulated": found.simulated, "elapsed_s": found.elapsed_s,
        "runners": [outcome.tokens_per_s for _, outcome in found.runners], "sources": list(fleet.sources),
    }  # fmt: skip


def placed_csv(found: Placed, fleet: Fleet) -> None:
    """One row for each node."""
    emit(_nodes(found, fleet), _NODES, fmt="csv")
