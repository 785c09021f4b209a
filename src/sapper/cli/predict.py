"""``sapper predict``: what a job takes on a cluster that you do not own yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sapper import messages, units
from sapper.cli._explain import explain as show_used
from sapper.cli._job import job_of, job_options, say_batch
from sapper.cli._own import own_option
from sapper.cli._serve import serve
from sapper.cli.chips import chips_dir_option
from sapper.cli.output import Column, emit, emit_json, format_option

if TYPE_CHECKING:
    from sapper.evidence import Interval
    from sapper.predict import Estimate, SearchResult


@click.group("predict", help="cli.help.predict")
def command() -> None:
    """The group of purposes."""


command.add_command(serve)


@command.command("train", help="predict.help.train")
@click.argument("model")
@click.option("--on", "clusters", required=True, multiple=True, metavar="CLUSTER", help="predict.option.on")
@click.option("--tokens", default=None, metavar="N", help="predict.option.tokens")
@click.option("--steps", default=None, metavar="N", help="predict.option.steps")
@job_options
@click.option("--plan", default="auto", show_default=True, metavar="auto|tp=8,pp=4,...", help="predict.option.plan")
@click.option("--top", type=click.IntRange(1, 100), default=3, show_default=True, help="predict.option.top")
@click.option("--assume", multiple=True, metavar="KEY=VALUE", help="predict.option.assume")
@click.option("--power-price", default=None, metavar="PRICE", help="predict.option.power_price")
@click.option("--pue", type=float, default=None, help="predict.option.pue")
@click.option("--explain", is_flag=True, help="predict.option.explain")
@own_option
@chips_dir_option
@format_option
def train(
    model: str,
    clusters: tuple[str, ...],
    tokens: str | None,
    steps: str | None,
    plan: str,
    top: int,
    assume: tuple[str, ...],
    power_price: str | None,
    pue: float | None,
    explain: bool,
    fmt: str,
    **flags: Any,
) -> int:
    """Predict a training job; exit code 1 where no plan fits."""
    import msgspec

    from sapper.assess import question
    from sapper.clusters import parse_groups, read_flags
    from sapper.errors import BadValue

    if tokens is not None and steps is not None:
        raise BadValue("SP-PRED-028", where="--tokens, --steps")
    job, batch_given = job_of(
        model,
        tokens=None if tokens is None else question.tokens(tokens, where="--tokens"),
        steps=None if steps is None else question.tokens(steps, where="--steps"),
        **flags,
    )
    if not batch_given:
        say_batch(job)
    price = None if power_price is None else question.power_price(power_price, where="--power-price")
    site = None if pue is None else question.pue(pue, where="--pue")
    found: list[tuple[str, Estimate | None, SearchResult | None]] = []
    for cluster in parse_groups(",".join(clusters), assumptions=read_flags(assume)):
        placed = msgspec.structs.replace(cluster, power_price=price or cluster.power_price, pue=site or cluster.pue)
        found.append((cluster.name, *_answer(job, placed, plan, top)))
    if fmt == "json":
        emit_json([{"cluster": name, "estimate": estimate, "search": search} for name, estimate, search in found])
    elif fmt == "csv":
        emit([_row(name, estimate) for name, estimate, _ in found], _COLUMNS, fmt="csv")
    else:
        for index, (name, estimate, search) in enumerate(found):
            if index:
                click.echo()
            _show(name, estimate, search, explain=explain)
    return 0 if all(estimate is not None and estimate.memory.fits for _, estimate, _ in found) else 1


def _answer(job: Any, cluster: Any, plan: str, top: int) -> tuple[Estimate | None, SearchResult | None]:
    from sapper.predict import predict_train, search_train
    from sapper.predict.engine import the_group
    from sapper.predict.legal import parse_plan

    if plan != "auto":
        return predict_train(job, cluster, parse_plan(plan, job, the_group(cluster).chips)), None
    search = search_train(job, cluster, top=top)
    return search.best, search


_COLUMNS = [
    Column(name, f"predict.column.{name}", "right" if name not in ("cluster", "plan", "binds", "grade") else "left")
    for name in (
        "cluster",
        "step_time_s",
        "step_time_low_s",
        "step_time_high_s",
        "tokens_per_s",
        "mfu",
        "job_time_s",
        "memory_bytes",
        "capacity_bytes",
        "job_energy_j",
        "binds",
        "plan",
        "grade",
    )
]


def _row(name: str, estimate: Estimate | None) -> dict[str, Any]:
    if estimate is None:
        return {"cluster": name}
    from sapper.predict.search import describe

    return {
        "cluster": name,
        "step_time_s": estimate.step_time.mid,
        "step_time_low_s": estimate.step_time.low,
        "step_time_high_s": estimate.step_time.high,
        "tokens_per_s": estimate.tokens_per_s.mid,
        "mfu": None if estimate.mfu is None else estimate.mfu.mid,
        "job_time_s": None if estimate.job_time is None else estimate.job_time.mid,
        "memory_bytes": estimate.memory.peak.mid,
        "capacity_bytes": estimate.memory.capacity_bytes,
        "job_energy_j": None if estimate.job_energy is None else estimate.job_energy.mid,
        "binds": estimate.binds,
        "plan": describe(estimate.plan),
        "grade": estimate.grade,
    }


def _show(name: str, estimate: Estimate | None, search: SearchResult | None, *, explain: bool) -> None:
    if estimate is None:
        assert search is not None and search.why_none is not None
        click.echo(f"{name}: {messages.text(search.why_none.code, **search.why_none.values)}")
        step = messages.next_step(search.why_none.code, **search.why_none.values)
        click.echo(f"  -> {step}")
        return
    click.echo(
        messages.text(
            "predict.head_samples" if estimate.counts_samples else "predict.head",
            model=estimate.workload,
            cluster=name,
            precision=estimate.precision,
            seq=estimate.seq_len,
            batch=estimate.global_batch,
        )
    )
    emit(_lines(estimate), _SUMMARY, fmt="table")
    _reasons(estimate, search)
    if explain:
        click.echo()
        show_used(estimate.used)


_SUMMARY = [
    Column("what", "predict.column.what"),
    Column("likely", "predict.column.likely", "right"),
    Column("range", "predict.column.range", "right"),
    Column("grade", "predict.column.grade"),
]


def _lines(estimate: Estimate) -> list[dict[str, Any]]:
    from sapper.evidence.fact import letter

    def line(code: str, value: Interval | None, show: Any, note: str = "") -> dict[str, Any]:
        what = messages.text(f"predict.line.{code}") + note
        if value is None:
            return {"what": what, "likely": None, "range": None, "grade": None}
        return {"what": what, "likely": show(value.mid), "range": f"{show(value.low)} - {show(value.high)}", "grade": letter(value.grade)}

    def rate(value: float) -> str:
        return f"{value:,.0f}"

    def percent(value: float) -> str:
        return f"{100 * value:.1f}%"

    capacity = estimate.memory.capacity_bytes
    of = "" if capacity is None else messages.text("predict.of", capacity=units.gib(capacity))
    lines = [
        line("step", estimate.step_time, units.duration),
        line("samples" if estimate.counts_samples else "tokens", estimate.tokens_per_s, rate),
        line("samples_chip" if estimate.counts_samples else "tokens_chip", estimate.tokens_per_s_per_chip, rate),
        line("mfu", estimate.mfu, percent),
        line("hfu", estimate.hfu, percent),
        line("memory", estimate.memory.peak, units.gib, of),
    ]
    if estimate.steps is not None:
        lines.append(line("job", estimate.job_time, units.duration))
        lines.append(line("energy", estimate.job_energy, lambda j: f"{j / 3.6e9:,.3g} MWh"))
        for basis, cost in estimate.cost.items():
            lines.append(line("cost", cost, lambda x: f"{x:,.0f}", f" ({basis})"))
        if not estimate.cost:
            lines.append(line("cost", None, str))
    else:
        lines.append(line("energy_step", estimate.energy_per_step, lambda j: units.scaled(j, "J")))
    return lines


def _reasons(estimate: Estimate, search: SearchResult | None) -> None:
    from sapper.predict.search import describe

    shares = [term for term in sorted(estimate.terms, key=lambda term: -term.share) if term.share >= 0.01][:6]
    bound = ", ".join(f"{messages.text(f'assess.term.{term.name}')} {100 * term.share:.0f}%" for term in shares)
    count = (
        ""
        if search is None
        else messages.text("predict.searched", plans=search.plans, fitting=search.fitting, elapsed=units.duration(search.elapsed_s))
    )
    click.echo(f"{messages.text('predict.label.plan')}  {describe(estimate.plan)}{count}")
    for runner in () if search is None else search.runners[:3]:
        reason = messages.text(runner.reason_code, **runner.reason_values)
        click.echo(f"  {messages.text('predict.label.runner')}  {describe(runner.plan)}: {reason}")
    click.echo(f"{messages.text('predict.label.bound')}  {bound}")
    coverage = estimate.coverage
    click.echo(
        f"{messages.text('predict.label.priced')}  "
        + messages.text(
            "predict.priced",
            priced=coverage.ops_priced,
            ops=coverage.ops,
            unpriced=", ".join(coverage.unpriced) or messages.text("predict.nothing"),
        )
    )
    if estimate.narrowing is not None:
        n = estimate.narrowing
        click.echo(
            f"{messages.text('predict.label.narrow')}  "
            + messages.text(
                "predict.narrow",
                what=messages.text(f"measure.{n.what}"),
                now=f"{100 * n.width_now:.0f}%",
                then=f"{100 * n.width_then:.0f}%",
                chip=estimate.chip,
                command=n.command,
            )
        )
    for warning in estimate.warnings:
        click.echo(f"!  {messages.text(warning.code, **warning.values)}")
