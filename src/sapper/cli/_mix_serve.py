"""``sapper mix serve``: a model served by unlike chips; which replicas on which chips, or which layers on which node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sapper.cli import _load
from sapper.cli._own import own_option
from sapper.cli.chips import chips_dir_option
from sapper.cli.output import emit_json, format_option, talk
from sapper.errors import BadValue

if TYPE_CHECKING:
    from sapper.clusters.cluster import Cluster
    from sapper.mix.serve.traffic import Class
    from sapper.predict.serve.question import ServeQuestion
    from sapper.workloads.model import Model


@click.command("serve", help="mix.serve.help")
@click.argument("model")
@click.option("--on", "cluster", required=True, metavar="CLUSTER", help="mix.serve.option.on")
@_load.load_options()
@click.option("--trace", default=None, metavar="FILE", help="serve.option.trace")
@click.option("--class", "classes", multiple=True, metavar="'rate=.. input=.. output=..'", help="mix.serve.option.class")
@click.option(
    "--objective",
    type=click.Choice(["auto", "cost", "power", "chips"]),
    default="auto",
    show_default=True,
    help="mix.serve.option.objective",
)
@click.option("--price", "prices", multiple=True, metavar="GROUP=2.10USD", help="mix.serve.option.price")
@click.option("--parts/--no-parts", default=True, show_default=True, help="mix.serve.option.parts")
@click.option("--place", is_flag=True, help="mix.serve.option.place")
@click.option(
    "--time", "time_s", type=click.FloatRange(1, 3600), default=25.0, show_default=True, metavar="SECONDS", help="mix.serve.option.time"
)
@click.option("--placement", "given", default=None, metavar="FILE.json", help="mix.serve.option.placement")
@click.option("--out", default=None, metavar="FILE.json", help="mix.serve.option.out")
@click.option("--stack", default=None, metavar="NAME", help="serve.option.stack")
@click.option("--requests", type=click.IntRange(100, 1_000_000), default=2000, show_default=True, help="serve.option.requests")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="serve.option.seed")
@click.option("--assume", multiple=True, metavar="KEY=VALUE", help="predict.option.assume")
@click.option("--explain", is_flag=True, help="predict.option.explain")
@own_option
@chips_dir_option
@format_option
def command(
    model: str, cluster: str, place: bool, time_s: float, out: str | None, objective: Any, prices: tuple[str, ...], parts: bool,
    classes: tuple[str, ...], given: str | None, explain: bool, fmt: str, assume: tuple[str, ...], seed: int, **flags: Any,
) -> int:  # fmt: skip
    """Serve a model on unlike chips; exit code 1 where nothing carries the load."""
    from sapper.clusters import parse_cluster, read_flags
    from sapper.workloads import load

    where = parse_cluster(cluster, assumptions=read_flags(assume))
    loaded = load(model)
    if place:
        return _place(loaded, where, time_s=time_s, given=given, out=out, fmt=fmt, seed=seed, explain=explain, flags=flags)
    if out is not None or given is not None:
        raise BadValue("SP-MIX-270", where="--out" if given is None else "--placement")
    from sapper.cli import _mixed_serve
    from sapper.mix.serve import prices as money
    from sapper.mix.serve.choose import choose

    question, asked = _asked(loaded, classes, seed=seed, flags=flags)
    assert question.slo is not None
    stated = money.parse_prices(prices, where.groups, where="--price")
    found = choose(question, asked, slo=question.slo, cluster=where, weights=money.weights(where, objective, stated=stated), parts=parts)
    if fmt == "json":
        emit_json(_mixed_serve.choice_json(found))
    elif fmt == "csv":
        _mixed_serve.choice_csv(found)
    else:
        _mixed_serve.choice(found, question, where, explain=explain)
    return 0 if all(one.kept is not False for one in found.best.chosen) else 1


def _asked(model: Model, classes: tuple[str, ...], *, seed: int, flags: dict[str, Any]) -> tuple[ServeQuestion, tuple[Class, ...]]:
    """The question, and its requests by class.

    Raises:
        BadValue: Without an SLO or a rate; or classes beside what describes one stream.
    """
    from sapper.mix.serve.traffic import classes_of, parse_classes

    load = {name: flags.pop(name) for name in _load.LOAD_FLAGS}
    if load["slo"] is None:
        raise BadValue("SP-MIX-271", where="--slo")
    if classes:
        if any(load[name] is not None for name in ("rate", "concurrency", "prompt", "answer")) or flags["trace"] is not None:
            raise BadValue("SP-MIX-272", where="--class")
        asked = parse_classes(classes, where="--class")
        first = asked[0].traffic
        load |= {"rate": f"{sum(one.rate_per_s for one in asked)}", "prompt": f"{first.prompt.tokens}", "answer": f"{first.answer.tokens}"}
        return _load.serve_question(model, load, prefix="--", seed=seed, **flags), asked
    if load["concurrency"] is not None or (load["rate"] is None and flags["trace"] is None):
        raise BadValue("SP-MIX-273", where="--rate")
    question = _load.serve_question(model, load, prefix="--", seed=seed, **flags)
    return question, classes_of(question.traffic)


def _place(
    model: Model, where: Cluster, *, time_s: float, given: str | None, out: str | None, fmt: str, seed: int, explain: bool,
    flags: dict[str, Any],
) -> int:  # fmt: skip
    """Layers to nodes: most tokens per second of the nodes that are there."""
    from sapper.cli import _mixed_serve
    from sapper.mix.serve import placement
    from sapper.mix.serve.fleets import fleet_of, requests_of
    from sapper.mix.serve.place import judge, place

    load = {name: flags[name] for name in ("rate", "concurrency", "prompt", "answer")}
    if load["rate"] is not None or load["concurrency"] is not None or flags["slo"] is not None:
        raise BadValue("SP-MIX-274", where="--place")
    traffic = _load.traffic_of(model, **load, trace=flags["trace"], seed=seed)
    job = _load.job_of(
        model, kv=flags["kv"], stack=flags["stack"], weights=_load.weights_of(flags["weights"], where="--weights")[0], where="--kv"
    )
    requests = requests_of(traffic)
    fleet = fleet_of(job, where, requests)
    if given is None:
        found = place(fleet, requests, time_s=time_s, seed=seed)
    else:
        found = judge(fleet, requests, placement=placement.read(given, fleet), time_s=time_s, seed=seed)
    if fmt == "json":
        emit_json(_mixed_serve.placed_json(found, fleet))
    elif fmt == "csv":
        _mixed_serve.placed_csv(found, fleet)
    else:
        _mixed_serve.placed(found, fleet, explain=explain)
    if out is not None:
        best = found.best
        placement.write(
            out,
            best.placement,
            fleet,
            flows=best.flows,
            decode_tokens_per_s=found.outcome.tokens_per_s,
            bound_tokens_per_s=found.bound_tokens_per_s,
        )
        talk("mix.serve.wrote", path=out)
    return 0
