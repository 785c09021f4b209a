"""``sapper predict serve``: what a service of a model gives on chips that you do not own yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from sapper.cli import _load
from sapper.cli._own import own_option
from sapper.cli.chips import chips_dir_option
from sapper.cli.output import emit_json, format_option, talk
from sapper.errors import BadPlan, BadValue, MissingFact, SapperError

if TYPE_CHECKING:
    from sapper.predict.serve.answer import ServeAnswer
    from sapper.predict.serve.capacity import Capacity
    from sapper.predict.serve.forward import Forward
    from sapper.predict.serve.frontier import Frontier
    from sapper.predict.serve.question import ServeQuestion
    from sapper.predict.serve.target import Target
    from sapper.workloads.model import Model


@dataclass(frozen=True)
class Answered:
    """One option: its answer, or why there is none."""

    name: str
    answer: ServeAnswer | Frontier | Forward | None
    error: SapperError | None = None
    capacity: Capacity | None = None
    """What can be said where the links between chips are not known."""


@click.command("serve", help="serve.help")
@click.argument("model")
@click.option("--on", "clusters", required=True, multiple=True, metavar="CLUSTER|CHIP", help="serve.option.on")
@_load.load_options()
@click.option("--trace", default=None, metavar="FILE", help="serve.option.trace")
@click.option("--arrivals", type=click.Choice(["poisson", "even"]), default="poisson", show_default=True, help="serve.option.arrivals")
@click.option("--plan", default="auto", show_default=True, metavar="auto|tp=8,...", help="serve.option.plan")
@click.option(
    "--disaggregate", type=click.Choice(["auto", "yes", "no"]), default="auto", show_default=True, help="serve.option.disaggregate"
)
@click.option("--speculate", default=None, metavar="draft=4,accept=0.7", help="serve.option.speculate")
@click.option("--frontier", is_flag=True, help="serve.option.frontier")
@click.option("--chart", default=None, metavar="FILE.svg", help="serve.option.chart")
@click.option("--stack", default=None, metavar="NAME", help="serve.option.stack")
@click.option(
    "--balancer", type=click.Choice(["round-robin", "least-loaded"]), default="round-robin", show_default=True, help="serve.option.balancer"
)
@click.option("--requests", type=click.IntRange(100, 1_000_000), default=2000, show_default=True, help="serve.option.requests")
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, show_default=True, help="serve.option.seed")
@click.option("--assume", multiple=True, metavar="KEY=VALUE", help="predict.option.assume")
@click.option("--power-price", default=None, metavar="PRICE", help="predict.option.power_price")
@click.option("--pue", type=float, default=None, help="predict.option.pue")
@click.option("--explain", is_flag=True, help="predict.option.explain")
@own_option
@chips_dir_option
@format_option
def serve(
    model: str,
    clusters: tuple[str, ...],
    frontier: bool,
    chart: str | None,
    assume: tuple[str, ...],
    power_price: str | None,
    pue: float | None,
    explain: bool,
    fmt: str,
    **flags: Any,
) -> int:
    """Predict a service; exit code 1 where a chip has no answer."""
    from sapper.cli import _serve_show
    from sapper.workloads import load

    loaded = load(model)
    if chart is not None and not frontier:
        raise BadValue("SP-SERVE-014", where="--chart")
    if chart is not None:
        from sapper.dossier.charts.canvas import require

        require()
    asked = _question(loaded, frontier=frontier, **flags)
    targets = _targets(",".join(clusters), assume, power_price=power_price, pue=pue)
    answered = [_answer(asked, target, frontier=frontier, alone=len(targets) == 1) for target in targets]
    if fmt == "json":
        emit_json([_serve_show.as_json(one) for one in answered])
    elif fmt == "csv":
        _serve_show.csv(answered)
    else:
        _serve_show.show(asked, answered, explain=explain)
    if chart is not None:
        _draw(chart, answered)
    return 0 if all(one.answer is not None and _serve_show.kept(one.answer) for one in answered) else 1


def _question(model: Model, *, frontier: bool, plan: str, speculate: str | None, **flags: Any) -> ServeQuestion:
    from sapper.predict.serve.candidates import parse_plan

    load = {name: flags.pop(name) for name in _load.LOAD_FLAGS}
    return _load.serve_question(
        model,
        load,
        prefix="--",
        free=frontier,
        plan=None if plan == "auto" else parse_plan(plan),
        speculation=_load.speculation_of(speculate, model),
        **flags,
    )


def _targets(text: str, assume: tuple[str, ...], *, power_price: str | None, pue: float | None) -> list[Target]:
    """The options; a chip without a count is given as many as the question takes."""
    import msgspec

    from sapper.assess import question
    from sapper.clusters import Assumptions, parse_groups, read_flags
    from sapper.predict.serve.target import Target

    assumed = Assumptions.of(read_flags(assume))
    price = None if power_price is None else question.power_price(power_price, where="--power-price")
    site = None if pue is None else question.pue(pue, where="--pue")
    # a spec that follows the number of chips beside it has none of its own
    two, three = (parse_groups(text, chips=count, assumptions=assumed) for count in (2, 3))
    found = []
    for cluster, other in zip(two, three, strict=True):
        placed = msgspec.structs.replace(cluster, power_price=price or cluster.power_price, pue=site or cluster.pue)
        bare = (cluster.chips, other.chips) == (2, 3)
        found.append(Target.open(placed, assumed=assumed) if bare else Target.of(placed))
    for entry in assumed.unused():
        talk("clusters.unused", text=entry.text)
    return found


def _answer(asked: ServeQuestion, target: Target, *, frontier: bool, alone: bool) -> Answered:
    """The answer of one option. A refusal stands beside the other answers; of a single option, one that is not about fitting ends
    the command."""
    from sapper.predict.serve.capacity import capacity_of
    from sapper.predict.serve.frontier import frontier as frontier_of
    from sapper.predict.serve.search import answer_serve, forward_serve

    traffic = asked.traffic
    try:
        if frontier:
            return Answered(target.name, frontier_of(asked, target))
        if not asked.generates and traffic.rate_per_s is None and traffic.concurrency is None and asked.slo is None:
            return Answered(target.name, forward_serve(asked, target))
        return Answered(target.name, answer_serve(asked, target))
    except SapperError as error:
        capacity = None
        if isinstance(error, MissingFact) and target.count is None and asked.generates:
            capacity = capacity_of(asked.job, target.chip, weights=asked.weights)
        if alone and capacity is None and not isinstance(error, BadPlan):
            raise
        return Answered(target.name, None, error, capacity)


def _draw(path: str, answered: list[Answered]) -> None:
    from sapper import files
    from sapper.dossier.charts.frontier import standalone
    from sapper.predict.serve.frontier import Frontier

    found = [one.answer for one in answered if isinstance(one.answer, Frontier)]
    if found:
        files.write_atomic(path, standalone(found))
        talk("assess.line.wrote", files=path)
