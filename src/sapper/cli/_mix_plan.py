"""``sapper mix plan``: how to cut one training job over unlike chips, and whether mixing helps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sapper.cli._job import job_of, job_options, say_batch
from sapper.cli._own import own_option
from sapper.cli.chips import chips_dir_option
from sapper.cli.output import format_option, talk

if TYPE_CHECKING:
    from sapper.clusters import Cluster
    from sapper.mix.plan import MixPlan
    from sapper.mix.problem import Problem
    from sapper.mix.sheet import Answer, Compared


@click.command("plan", help="mix.plan.help")
@click.argument("model")
@click.option("--on", "where", required=True, metavar="CLUSTER", help="mix.plan.option.on")
@job_options
@click.option("--assume", multiple=True, metavar="KEY=VALUE", help="predict.option.assume")
@click.option("--profile", "profiles", multiple=True, metavar="GROUP=FILE[:DEVICE]", help="mix.plan.option.profile")
@click.option("--profile-format", default="sapper", show_default=True, metavar="NAME", help="mix.plan.option.profile_format")
@click.option("--profile-model", default="", metavar="NAME", help="mix.plan.option.profile_model")
@click.option("--tp", "degrees", multiple=True, type=click.IntRange(min=1), metavar="N", help="mix.plan.option.tp")
@click.option("--compare", multiple=True, type=click.Path(), metavar="PLAN", help="mix.plan.option.compare")
@click.option("--top", type=click.IntRange(0, 20), default=3, show_default=True, help="mix.plan.option.top")
@click.option("--explain", is_flag=True, help="mix.plan.option.explain")
@click.option(
    "--time-limit", "limit_s", type=click.FloatRange(0.1, 3600), default=30.0, show_default=True, metavar="SECONDS",
    help="mix.plan.option.limit",
)  # fmt: skip
@click.option("--out", type=click.Path(), default=None, metavar="PLAN", help="mix.plan.option.out")
@click.option("--trace", type=click.Path(), default=None, metavar="FILE", help="mix.plan.option.trace")
@click.option("--svg", type=click.Path(), default=None, metavar="FILE", help="mix.plan.option.svg")
@click.option("--page", type=click.Path(), default=None, metavar="FILE.html", help="mix.plan.option.page")
@own_option
@chips_dir_option
@format_option
def command(
    model: str, where: str, assume: tuple[str, ...], profiles: tuple[str, ...], profile_format: str, profile_model: str,
    degrees: tuple[int, ...], compare: tuple[str, ...], top: int, explain: bool, limit_s: float, out: str | None,
    trace: str | None, svg: str | None, page: str | None, fmt: str, **flags: Any,
) -> int:  # fmt: skip
    """Plan; exit code 1 where no plan fits."""
    from sapper import memory
    from sapper.cli import _profiles
    from sapper.cli._plan_show import show
    from sapper.clusters import parse_cluster, read_flags
    from sapper.mix.costs import from_predict
    from sapper.mix.identity import check_chain
    from sapper.mix.search import search
    from sapper.mix.sheet import Answer
    from sapper.mix.sheet import compare as compare_plan

    memory.keep_freed()
    cluster = parse_cluster(where, assumptions=read_flags(assume))
    measured = _profiles.read(profiles, format=profile_format, model=profile_model)
    if measured and flags["seq_len"] is None:
        flags["seq_len"] = next(iter(measured.values())).seq_len
    job, batch_given = job_of(model, **flags)
    if not batch_given:
        say_batch(job)
    check_chain(job.workload)
    problem = _profiles.problem(measured, job, cluster) if measured else from_predict(job, cluster)
    if degrees:
        problem = problem.of_degrees(set(degrees))
    others = [(path, _other(path, problem, cluster)) for path in compare]  # refused before the search takes its time
    answer = Answer(cluster=cluster, problem=problem, planned=search(problem, time_s=limit_s), tokens_per_step=job.tokens_per_step)
    compared = [compare_plan(answer, plan, path=path) for path, plan in others]
    show(answer, compared=compared, top=top, explain=explain, fmt=fmt)
    if answer.planned.best is None:
        return 1
    _write(answer, compared, out=out, trace=trace, svg=svg, page=page)
    return 0


def _other(path: str, problem: Problem, cluster: Cluster) -> MixPlan:
    """The plan of a file, refused where it is for another cluster, model, length or batch, or of shapes without times."""
    from sapper.errors import BadPlan
    from sapper.mix.identity import check_cluster, check_model
    from sapper.mix.objective import score_plan
    from sapper.mix.plan import read_plan

    plan = read_plan(path)
    check_cluster(plan, cluster, where=path)
    check_model(plan, problem.identity.model_digest, name=problem.model, where=path)
    asked, given = (problem.seq_len, problem.global_batch), (plan.seq_len, plan.global_batch)
    if asked != given:
        raise BadPlan("SP-MIX-011", where=path, seq=given[0], batch=given[1], asked_seq=asked[0], asked_batch=asked[1])
    try:
        score_plan(problem, plan)
    except KeyError as error:
        raise BadPlan("SP-MIX-012", where=path, shape=str(error.args[0])) from error
    return plan


def _write(answer: Answer, compared: Sequence[Compared], **paths: str | None) -> None:
    """The files that were asked for; each is named on stderr."""
    from sapper import messages
    from sapper.files import write_atomic
    from sapper.mix.plan import write_plan

    plan = answer.planned.best
    assert plan is not None
    written: list[str] = []
    if paths["out"] is not None:
        write_plan(paths["out"], plan)
        written.append(paths["out"])
    if any(paths[name] is not None for name in ("trace", "svg", "page")):
        from sapper.dossier.mix.timeline import timeline
        from sapper.dossier.mix.trace import trace
        from sapper.dossier.mix.write import write_pages
        from sapper.mix.simulate import simulate

        events = simulate(answer.problem, plan).events
        if paths["trace"] is not None:
            write_atomic(paths["trace"], trace(plan, events))
            written.append(paths["trace"])
        if paths["svg"] is not None:
            write_atomic(paths["svg"], timeline(plan, events, messages.language()))
            written.append(paths["svg"])
        if paths["page"] is not None:
            written += map(str, write_pages(answer, compared, events, path=Path(paths["page"]), lang=messages.language()))
    for path in written:
        talk("mix.plan.wrote", path=path)
