"""``sapper prove model``: a training step on a backend, op by op."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli._proof import faults_told, running
from sapper.cli.output import Column, emit, emit_json, talk

if TYPE_CHECKING:
    from sapper.prove.model.result import Coverage, Finding, Layer, Method, ModelResult

_MOST_ROWS = 20
_MOST_LAYERS = 60


@click.command("model", help="prove.model.help")
@click.argument("target", metavar="FILE.py:BUILDER|CONFIG|NAME")
@click.option("--on", "backend", required=True, metavar="BACKEND", help="prove.model.option.on")
@click.option("--dtype", default=None, metavar="fp32|bf16|fp16|keep", help="prove.model.option.dtype")
@click.option("--seq", type=click.IntRange(1), default=None, metavar="N", help="prove.model.option.seq")
@click.option("--batch", type=click.IntRange(1), default=None, metavar="N", help="prove.model.option.batch")
@click.option("--steps", type=click.IntRange(1), default=None, metavar="N", help="prove.model.option.steps")
@click.option("--seed", type=click.IntRange(0), default=None, metavar="N", help="prove.model.option.seed")
@click.option("--sample", type=click.FloatRange(0, 1, min_open=True), default=None, metavar="SHARE", help="prove.model.option.sample")
@click.option("--fingerprints", is_flag=True, help="prove.model.option.fingerprints")
@click.option("--against", default=None, metavar="FILE.capsule", help="prove.model.option.against")
@click.option("--runs", type=click.IntRange(5), default=5, show_default=True, metavar="N", help="prove.model.option.runs")
@click.option("--once", is_flag=True, help="prove.model.option.once")
@click.option("--tries", type=click.IntRange(0), default=1, show_default=True, metavar="N", help="prove.model.option.tries")
@click.option("--op-limit", type=click.FloatRange(1), default=120, show_default=True, metavar="S", help="prove.model.option.op_limit")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="prove.model.option.threads")
@click.option("--out", default="proof", show_default=True, metavar="DIR", help="prove.model.option.out")
@click.option("--json", "as_json", is_flag=True, help="prove.model.option.json")
def command(
    target: str, backend: str, *, dtype: str | None, seq: int | None, batch: int | None, steps: int | None, seed: int | None,
    sample: float | None, fingerprints: bool, against: str | None, runs: int, once: bool, tries: int, op_limit: float, threads: int,
    out: str, as_json: bool,
) -> int:
    """Prove, write, and say what was found."""
    from sapper.programs.needs import need_for

    need_for(target, where="sapper prove model")
    from sapper.prove.model.run import Plan, Setting, prove_model
    from sapper.prove.verdict import RED, UNPROVEN

    given: dict[str, Any] = {"dtype": dtype, "seq": seq, "batch": batch, "steps": steps, "seed": seed}
    capsule = None
    if against is not None:
        from sapper.prove.model import capsule as capsules

        capsule = capsules.load(against)
        given = {name: capsules.needed(capsule, name, value, where=f"--{name}") for name, value in given.items()}
    setting = Setting(
        target=target, backend=backend, folder=out, threads=threads, op_limit_s=op_limit,
        **{name: value for name, value in given.items() if value is not None},
    )  # fmt: skip
    plan = Plan(
        setting=setting, method=_method(sample, fingerprints, against), share=sample or 1.0, runs=runs, states=not once, most_tried=tries
    )
    with running(), faults_told(backend, out, "model", anew=True):
        result = prove_model(plan, talk, against=capsule, path=against)
    if as_json:
        emit_json(result)
    else:
        show(result)
    talk("prove.model.show.wrote", path=f"{out}/model.json")
    return 1 if result.outcome in RED else 2 if result.outcome in UNPROVEN else 0


def _method(sample: float | None, fingerprints: bool, against: str | None) -> Method:
    """The one that is asked for.

    Raises:
        BadValue: Two are.
    """
    asked = [name for name, given in (("--sample", sample), ("--fingerprints", fingerprints), ("--against", against)) if given]
    if len(asked) > 1:
        from sapper.errors import BadValue

        raise BadValue("SP-PRM-005", where=asked[0], first=asked[0], second=asked[1])
    return "sample" if sample is not None else "fingerprints" if asked else "full"


def show(result: ModelResult) -> None:
    """Verdict, what was not covered, findings, and errors by layer."""
    from sapper.prove import words

    say = _line
    say(
        "prove.model.show.head", target=result.target, backend=result.backend, dtype=result.dtype, params=f"{result.params:,}",
        outcome=words.outcome(result.outcome),
    )
    if result.blame is not None:
        say("prove.model.show.blame", blame=words.blame(result.blame))
    say("prove.model.show.uncovered", what="; ".join(_uncovered(result.coverage)) or messages.text("prove.model.skip.nothing"))
    covered = result.coverage
    say(
        "prove.model.show.covered", judged=covered.judged, ops=covered.ops, views=covered.views,
        where=result.where or messages.text("cli.unknown"),
    )
    if not result.real:
        say("prove.model.show.emulated")
    if result.findings:
        click.echo()
        found = [_finding(one) for one in result.findings[:_MOST_ROWS]]
        emit(found, _FINDINGS, fmt="table", title=messages.text("prove.model.show.findings"))
        for one in result.findings[:_MOST_ROWS]:
            _evidence(one)
    rows = [_layer(one) for one in result.layers if one.ratio is not None or one.accumulated is not None]
    if rows:
        click.echo()
        emit(rows[:_MOST_LAYERS], _LAYERS, fmt="table", title=messages.text("prove.model.show.layers"))
        if len(rows) > _MOST_LAYERS:
            say("prove.model.show.more_layers", count=len(rows) - _MOST_LAYERS)
    if result.errors:
        click.echo()
        worst = sorted(result.errors, key=lambda one: -(one.ratio or 0.0))[:5]
        emit([_error(one) for one in worst], _ERRORS, fmt="table", title=messages.text("prove.model.show.errors"))
    if result.amplifier:
        say("prove.model.show.amplifier", path=result.amplifier)
    _cost(result)


def _line(code: str, /, **values: Any) -> None:
    click.echo(messages.text(code, **values))


def _uncovered(coverage: Coverage) -> list[str]:
    found = [] if coverage.loss is None else [messages.text("prove.model.skip.not_finite", loss=coverage.loss)]
    found += [messages.text(f"prove.model.skip.{why}", count=count) for why, count in coverage.skipped.items() if count]
    if coverage.random:
        found.append(messages.text("prove.model.skip.random", count=coverage.random))
    if coverage.drawn:
        found.append(messages.text("prove.model.skip.drawn", count=coverage.drawn))
    if coverage.unmatched:
        found.append(messages.text("prove.model.skip.unmatched", count=coverage.unmatched))
    if coverage.dropout_off:
        found.append(messages.text("prove.model.skip.dropout", count=coverage.dropout_off))
    return found


def _finding(one: Finding) -> dict[str, Any]:
    from sapper.prove import words

    why = messages.text(one.reason, **one.values) if one.reason else (one.said or "").splitlines()[0:1]
    return {
        "op": one.op or None, "path": one.path or "-", "phase": messages.text(f"prove.model.phase.{one.phase}"),
        "outcome": words.outcome(one.outcome), "blame": words.blame(one.blame), "ratio": one.ratio, "count": one.count,
        "shapes": one.shapes, "repro": one.repro, "why": why if isinstance(why, str) else "".join(why),
    }  # fmt: skip


def _evidence(one: Finding) -> None:
    """The counter-runs that decided the blame."""
    if one.ruling is not None:
        click.echo(f"\n{one.op}: {messages.text(one.ruling)}")
        for piece in one.evidence:
            click.echo(f"  * {piece.sentence()}")


def _layer(one: Layer) -> dict[str, Any]:
    return {
        "path": one.path or "-", "phase": messages.text(f"prove.model.phase.{one.phase}"), "ops": one.ops, "worst": one.worst or "-",
        "local": one.ratio, "accumulated": one.accumulated.ratio if one.accumulated else None, "amplification": one.amplification_ratio,
    }  # fmt: skip


def _error(one: Any) -> dict[str, Any]:
    return {"label": one.label, "error": one.error_l2, "allowed": one.allowed_l2, "ratio": one.ratio}


def _cost(result: ModelResult) -> None:
    cost = result.cost
    if cost.step_cpu_s and cost.checked_cpu_s and cost.reference_cpu_s is not None and cost.wall_s is not None:
        _line(
            "prove.model.show.cost", step=f"{cost.step_cpu_s:.2g}", checked=f"{cost.checked_cpu_s:.2g}",
            times=f"{cost.checked_cpu_s / cost.step_cpu_s:.2g}", reference=f"{cost.reference_cpu_s:.2g}", wall=f"{cost.wall_s:.0f}",
        )


def _short(value: float) -> str:
    return f"{value:.3g}"


_FINDINGS = [
    Column("op", "prove.model.column.op"), Column("path", "prove.model.column.path"), Column("phase", "prove.model.column.phase"),
    Column("outcome", "prove.model.column.outcome"), Column("blame", "prove.model.column.blame"),
    Column("ratio", "prove.model.column.ratio", "right", _short), Column("count", "prove.model.column.count", "right"),
    Column("shapes", "prove.model.column.shapes"), Column("why", "prove.model.column.why"), Column("repro", "prove.model.column.repro"),
]  # fmt: skip
_LAYERS = [
    Column("path", "prove.model.column.path"), Column("phase", "prove.model.column.phase"),
    Column("ops", "prove.model.column.ops", "right"), Column("worst", "prove.model.column.worst"),
    Column("local", "prove.model.column.local", "right", _short),
    Column("accumulated", "prove.model.column.accumulated", "right", _short),
    Column("amplification", "prove.model.column.amplification", "right", _short),
]  # fmt: skip
_ERRORS = [
    Column("label", "prove.model.column.label"), Column("error", "prove.model.column.error", "right", _short),
    Column("allowed", "prove.model.column.allowed", "right", _short), Column("ratio", "prove.model.column.ratio", "right", _short),
]  # fmt: skip
