"""``sapper assess``: one training question put to many chips, with a dossier to show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sapper.cli._job import job_of, job_options
from sapper.cli._load import LOAD_FLAGS, load_options, serve_question
from sapper.cli._own import own_option
from sapper.cli.chips import chips_dir_option
from sapper.cli.output import Column, emit, emit_json, format_option, talk
from sapper.errors import AmbiguousName, BadValue

if TYPE_CHECKING:
    from sapper.assess import Option, ServeAsked
    from sapper.clusters import Assumptions, Cluster
    from sapper.evidence import Interval


@click.command("assess", help="assess.help")
@click.argument("model")
@click.option("--train-tokens", "tokens", required=True, metavar="N", help="assess.option.tokens")
@click.option("--reference", required=True, metavar="CLUSTER", help="assess.option.reference")
@click.option("--on", "clusters", required=True, multiple=True, metavar="CLUSTER", help="assess.option.on")
@job_options
@click.option("--plan", default="auto", show_default=True, metavar="auto|tp=8,pp=4,...", help="predict.option.plan")
@click.option("--assume", multiple=True, metavar="KEY=VALUE", help="predict.option.assume")
@click.option("--power-price", default=None, metavar="PRICE", help="predict.option.power_price")
@click.option("--pue", type=float, default=None, help="predict.option.pue")
@click.option("--serve", "with_serving", is_flag=True, help="assess.option.serve")
@load_options("serve-")
@click.option("--proof", "folders", multiple=True, metavar="CHIP=DIR", help="assess.option.proof")
@click.option("--out", default="out", show_default=True, metavar="FOLDER", help="assess.option.out")
@click.option("--pages", default="en,zh", show_default=True, metavar="en,zh|none", help="assess.option.pages")
@format_option
@own_option
@chips_dir_option
def command(
    model: str,
    tokens: str,
    reference: str,
    clusters: tuple[str, ...],
    plan: str,
    assume: tuple[str, ...],
    power_price: str | None,
    pue: float | None,
    folders: tuple[str, ...],
    out: str,
    pages: str,
    fmt: str,
    with_serving: bool,
    **flags: Any,
) -> int:
    """Put one question to many options; exit code 1 where none could be answered."""
    from pathlib import Path

    from sapper.assess import Question, assess_train, question
    from sapper.cli._assess import show
    from sapper.cli._proofs import proofs_of
    from sapper.clusters import Assumptions, read_flags
    from sapper.dossier import write_dossier

    languages = _languages(pages)
    if languages:
        from sapper.dossier.charts.canvas import require

        require()
    load = {name: flags.pop(name) for name in LOAD_FLAGS}
    job, batch_given = job_of(model, tokens=question.tokens(tokens, where="--train-tokens"), **flags)
    assumed = Assumptions.of(read_flags(assume))
    compared, *options = _clusters(reference, ",".join(clusters), assumed)
    asked = Question(
        job=job,
        reference=compared,
        options=tuple(options),
        plan=None if plan == "auto" else plan,
        power_price=None if power_price is None else question.power_price(power_price, where="--power-price"),
        pue=None if pue is None else question.pue(pue, where="--pue"),
        batch_given=batch_given,
    )
    proofs = proofs_of(folders, chips=asked.chip_ids)
    serve = _serve(model, load, assumed=assumed) if with_serving or _given(load) else None
    found = assess_train(asked, serve=serve, proofs=proofs)
    written = write_dossier(found, Path(out), languages=languages)
    if fmt == "json":
        emit_json(found)
    elif fmt == "csv":
        emit([_row(option) for option in found.options], _COLUMNS, fmt="csv")
    else:
        show(found)
    for entry in assumed.unused():
        talk("clusters.unused", text=entry.text)
    talk("assess.line.wrote", files=", ".join(str(path) for path in written))
    return 0 if found.ranking or any(one.step_time is not None for one in found.mixed) else 1


def _given(load: dict[str, Any]) -> bool:
    """Whether any flag of the load was given, so that the chapter is meant without ``--serve``."""
    return any(load[name] is not None for name in LOAD_FLAGS if name != "weights")


def _serve(model: str, load: dict[str, Any], *, assumed: Assumptions) -> ServeAsked:
    from sapper.assess import ServeAsked
    from sapper.workloads import load as load_model

    return ServeAsked(question=serve_question(load_model(model), load, prefix="--serve-"), assumed=assumed)


def _languages(pages: str) -> tuple[str, ...]:
    if pages.strip().lower() == "none":
        return ()
    found = tuple(dict.fromkeys(part.strip().lower() for part in pages.split(",") if part.strip()))
    for name in found or (pages,):
        if name not in ("en", "zh"):
            raise BadValue("SP-ASSESS-007", where="--pages", text=name)
    return found


def _clusters(reference: str, options: str, assumed: Assumptions) -> tuple[Cluster, ...]:
    """The reference and the options; a chip without a count has as many as the reference, or else as the first option."""
    from sapper.clusters import parse_groups

    alone = [parse_groups(reference, chips=count) for count in (2, 3)]
    if len(alone[0]) != 1:
        raise AmbiguousName("SP-ASSESS-006", where="--reference", text=reference, count=len(alone[0]))
    bare = [found[0].chips for found in alone] == [2, 3]
    count = parse_groups(options)[0].chips if bare else None
    return parse_groups(f"{reference},{options}", chips=count, assumptions=assumed)


def _row(option: Option) -> dict[str, Any]:
    estimate = option.estimate
    capacity = estimate.memory.capacity_bytes if estimate else None
    return {
        "option": option.label,
        "chip": option.chip.id,
        "chips": option.chips,
        "reference": option.is_reference,
        **_three("job_time", estimate.job_time if estimate else None, "_s"),
        **_three("time_ratio", option.ratios.time, ""),
        **_three("memory", estimate.memory.peak if estimate else None, "_bytes"),
        "capacity_bytes": capacity,
        **_three("energy", estimate.job_energy if estimate else None, "_j"),
        **_three("energy_ratio", option.ratios.energy, ""),
        "comm_share": option.comm_share,
        "grade": estimate.grade if estimate else None,
        "cost": estimate.cost if estimate else None,
        "refusal_code": option.refusal.code if option.refusal else None,
        "refusal_field": option.refusal.values.get("field") if option.refusal else None,
        "refusal": option.why.get("en"),
        "proven": next(check.outcome for check in option.checks if check.code == "proven"),
    }


def _three(name: str, value: Interval | None, unit: str) -> dict[str, float | None]:
    names = (f"{name}{unit}", f"{name}_low{unit}", f"{name}_high{unit}")
    return dict(zip(names, (value.mid, value.low, value.high) if value else (None, None, None), strict=True))


_COLUMNS = [
    Column(key, "assess.column.option")  # CSV prints the keys
    for key in (
        "option",
        "chip",
        "chips",
        "reference",
        "job_time_s",
        "job_time_low_s",
        "job_time_high_s",
        "time_ratio",
        "time_ratio_low",
        "time_ratio_high",
        "memory_bytes",
        "memory_low_bytes",
        "memory_high_bytes",
        "capacity_bytes",
        "energy_j",
        "energy_low_j",
        "energy_high_j",
        "energy_ratio",
        "energy_ratio_low",
        "energy_ratio_high",
        "comm_share",
        "grade",
        "cost",
        "refusal_code",
        "refusal_field",
        "refusal",
        "proven",
    )
]
