"""The answers of ``sapper predict serve`` on a terminal: the answer first, fewer than 25 lines for one option."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from sapper import messages, units
from sapper.cli._explain import explain as show_used
from sapper.cli.output import Column, emit
from sapper.evidence.fact import letter
from sapper.predict.serve.answer import ServeAnswer
from sapper.predict.serve.candidates import describe
from sapper.predict.serve.estimate import Latency, Pool, ServeEstimate
from sapper.predict.serve.forward import Forward
from sapper.predict.serve.frontier import Frontier

if TYPE_CHECKING:
    from sapper.cli._serve import Answered
    from sapper.evidence import Interval
    from sapper.predict.serve.capacity import Capacity
    from sapper.predict.serve.question import ServeQuestion

TERMS = 5
"""Terms of an iteration that are named."""


def kept(answer: ServeAnswer | Frontier | Forward) -> bool:
    """Whether the answer keeps what was asked: a stable queue and the SLO, where there is one."""
    return not isinstance(answer, ServeAnswer) or (answer.estimate.sustained and answer.estimate.meets is not False)


def as_json(one: Answered) -> dict[str, Any]:
    """An option as JSON: the answer whole, or the refusal."""
    if one.error is None:
        return {"cluster": one.name, "answer": one.answer, "refusal": None, "capacity": None}
    values = {key: str(value) for key, value in one.error.values.items()}
    refusal = {"code": one.error.code, "values": values, "text": one.error.render("en")}
    return {"cluster": one.name, "answer": None, "refusal": refusal, "capacity": one.capacity}


def show(asked: ServeQuestion, answered: Sequence[Answered], *, explain: bool) -> None:
    """Print the answers."""
    click.echo(_head(asked, answered))
    whole = [one.answer for one in answered if isinstance(one.answer, ServeAnswer)]
    if len(answered) == 1 and whole:
        _one(whole[0], generates=asked.generates)
    elif whole:
        emit([_compared(answer) for answer in whole], _COMPARED, fmt="table")
        click.echo(messages.text("serve.note.compared"))
    for frontier in [one.answer for one in answered if isinstance(one.answer, Frontier)]:
        _frontier(frontier)
    for passes in [one.answer for one in answered if isinstance(one.answer, Forward)]:
        _forward(passes)
    for one in answered:
        if one.error is not None:
            click.echo(f"{one.name}: {messages.text(one.error.code, **one.error.values)}")
            step = messages.next_step(one.error.code, **one.error.values)
            if step:
                click.echo(f"  -> {step}")
            if one.capacity is not None:
                click.echo(f"  {_capacity(one.capacity)}")
    if explain:
        used = [item for one in answered if isinstance(one.answer, ServeAnswer) for item in one.answer.estimate.used]
        used += [item for one in answered if isinstance(one.answer, Forward) for item in one.answer.used]
        if used:
            click.echo()
            show_used(used)


def _capacity(found: Capacity) -> str:
    return messages.text(
        "serve.note.capacity",
        chips=f"{found.chips:,}",
        weights=units.gib(found.weights_bytes),
        dtype=found.weights_dtype,
        each=units.gib(found.chip_bytes),
    )


def _head(asked: ServeQuestion, answered: Sequence[Answered]) -> str:
    traffic, job = asked.traffic, asked.job
    if any(isinstance(one.answer, Forward) for one in answered):
        tokens = f"{traffic.prompt.tokens:,.0f}"
        head = "serve.head.whole" if tokens == "1" else "serve.head.forward"  # a sample without tokens: an image, a click
        return messages.text(head, model=job.model.name, tokens=tokens, weights=asked.weights[0])
    kind: str = "frontier" if any(isinstance(one.answer, Frontier) for one in answered) else traffic.arrivals
    if traffic.rate_per_s is None and traffic.concurrency is None and kind != "frontier":
        kind = "highest"
    if kind == "closed" and traffic.concurrency == 1:
        kind = "alone"
    load = messages.text(
        f"serve.load.{kind}",
        rate=f"{traffic.rate_per_s or 0:.4g}",
        users=traffic.concurrency or 0,
        trace=traffic.trace.path if traffic.trace else "",
    )
    return messages.text(
        "serve.head",
        model=job.model.name,
        weights="/".join(asked.weights),
        cache=job.cache_dtype,
        load=load,
        prompt=_length(traffic.prompt.tokens, traffic.prompt.cv_ratio),
        answer=_length(traffic.answer.tokens, traffic.answer.cv_ratio),
    ) + ("" if asked.slo is None else messages.text("serve.head.slo", slo=asked.slo.text))


def _length(tokens: float, cv: float) -> str:
    return f"{tokens:,.0f}" + (f" (cv {cv:g})" if cv else "")


# one option


_SUMMARY = [
    Column("what", "predict.column.what"),
    Column("likely", "predict.column.likely", "right"),
    Column("range", "predict.column.range", "right"),
    Column("tail", "serve.column.tail", "right"),
    Column("grade", "predict.column.grade"),
]


def _one(answer: ServeAnswer, *, generates: bool) -> None:
    estimate = answer.estimate
    click.echo(_verdict(answer))
    emit(_lines(estimate, generates=generates), _SUMMARY, fmt="table")
    shares = [term for term in estimate.terms if term.share >= 0.01][:TERMS]
    parts = ", ".join(f"{messages.text(f'serve.term.{term.name}')} {100 * term.share:.0f}%" for term in shares)
    bound = messages.text(f"serve.binds.{estimate.binds}")
    _labelled("predict.label.bound", messages.text("serve.bound", binds=bound, parts=parts))
    if generates:
        _labelled("serve.label.memory", _memory(estimate))
    coverage = estimate.coverage
    nothing = ", ".join(coverage.unpriced) or messages.text("predict.nothing")
    _labelled("predict.label.priced", messages.text("predict.priced", priced=coverage.ops_priced, ops=coverage.ops, unpriced=nothing))
    if estimate.narrowing is not None:
        n = estimate.narrowing
        what = messages.text(f"measure.{n.what}")
        now, then = f"{100 * n.width_now:.0f}%", f"{100 * n.width_then:.0f}%"
        _labelled("predict.label.narrow", messages.text("serve.narrow", what=what, now=now, then=then, chip=estimate.chip))
    for warning in estimate.warnings:
        click.echo(f"!  {messages.text(warning.code, **warning.values)}")


def _labelled(code: str, text: str) -> None:
    click.echo(f"{messages.text(code)}  {text}")


def _verdict(answer: ServeAnswer) -> str:
    """The answer in a line: how many chips, cut how, and whether that keeps what was asked."""
    estimate = answer.estimate
    pools = " + ".join(_pool(pool) for pool in estimate.pools)
    chips = f"{estimate.chips}" if answer.chips_low is None else f"{estimate.chips} ({answer.chips_low}-{answer.chips_high or '?'})"
    weights = estimate.weights_dtype
    line = messages.text("serve.verdict", chips=chips, chip=estimate.chip, pools=pools, weights=weights, stack=estimate.stack)
    if answer.highest_rate is not None:
        rate = answer.highest_rate
        line += messages.text("serve.verdict.highest", mid=f"{rate.mid:.3g}", low=f"{rate.low:.3g}", high=f"{rate.high:.3g}")
    return line + messages.text(
        "serve.verdict.searched", plans=answer.plans, simulated=answer.simulated, elapsed=units.duration(answer.elapsed_s)
    )


def _pool(pool: Pool) -> str:
    role = "" if pool.role == "all" else messages.text(f"serve.role.{pool.role}") + " "
    return f"{pool.replicas}x {role}[{describe(pool.plan)}]"


def _lines(estimate: ServeEstimate, *, generates: bool) -> list[dict[str, Any]]:
    """The figures of an estimate; a model that answers in one pass has no tokens, first or later: they count as its answers."""
    lines = []
    each = "" if generates else "pass_"
    for name in ("ttft", "tpot", "itl", "e2e") if generates else ("e2e",):
        latency: Latency | None = getattr(estimate, name)
        if latency is not None:
            lines.append(_line(name, latency.p50, units.duration) | {"tail": _bracketed(latency.p99, units.duration)})
    rate = units.significant
    lines.append(_line(f"{each}tokens", estimate.output_tokens_per_s, rate))
    lines.append(_line(f"{each}chip_tokens", estimate.chip_tokens_per_s, rate))
    if estimate.user_tokens_per_s is not None:
        lines.append(_line("user_tokens", estimate.user_tokens_per_s, rate))
    if estimate.goodput_per_s is not None:
        lines.append(_line("goodput", estimate.goodput_per_s, rate))
    if generates:
        lines.append(_line("batch", estimate.batch, rate))
    lines.append(_line("power", estimate.power, lambda watts: units.scaled(watts, "W")))
    lines.append(_line(f"{each}energy", estimate.energy_per_token, lambda joules: units.scaled(joules, "J")))
    for basis, cost in estimate.cost.items():
        line = _line(f"{each}cost", cost, rate)
        lines.append(line | {"what": f"{line['what']} ({basis})"})
    if not estimate.cost:
        lines.append(_line(f"{each}cost", None, rate))
    return lines


def _line(code: str, value: Interval | None, text: Callable[[float], str]) -> dict[str, Any]:
    what = messages.text(f"serve.line.{code}")
    if value is None:
        return {"what": what, "likely": None, "range": None, "tail": "", "grade": None}
    return {"what": what, "likely": text(value.mid), "range": _range(value, text), "tail": "", "grade": letter(value.grade)}


def _range(value: Interval, text: Callable[[float], str]) -> str:
    return f"{text(value.low)} - {text(value.high)}"


def _bracketed(value: Interval, text: Callable[[float], str]) -> str:
    """``108 (57.8-188) ms`` where all three have one unit, else ``450 ms (118 ms - 1.2 s)``."""
    parts = [text(number).partition(" ") for number in (value.mid, value.low, value.high)]
    if len({unit for _, _, unit in parts}) > 1:
        return f"{text(value.mid)} ({_range(value, text)})"
    (mid, _, unit), (low, _, _), (high, _, _) = parts
    return f"{mid} ({low}-{high}) {unit}".rstrip()


def _memory(estimate: ServeEstimate) -> str:
    memory = estimate.memory
    return messages.text(
        "serve.memory",
        weights=units.gib(memory.weights_bytes),
        cache=units.gib(memory.cache_bytes),
        used=f"{100 * memory.cache_share:.0f}%",
        peak=f"{100 * memory.cache_peak_share:.0f}%",
        capacity=units.gib(memory.capacity_bytes),
    )


# several options


_COMPARED = [
    Column("chip", "serve.column.chip"),
    Column("chips", "serve.column.chips", "right"),
    Column("plan", "serve.column.plan"),
    Column("ttft", "serve.column.ttft", "right"),
    Column("tpot", "serve.column.tpot", "right"),
    Column("tokens", "serve.column.chip_tokens", "right"),
    Column("cost", "serve.column.cost", "right"),
    Column("power", "serve.column.power", "right"),
    Column("binds", "serve.column.binds"),
    Column("grade", "predict.column.grade"),
]


def _compared(answer: ServeAnswer) -> dict[str, Any]:
    estimate = answer.estimate
    low, high = answer.chips_low, answer.chips_high
    percentile = estimate.slo.percentile if estimate.slo else 99
    chips = f"{estimate.chips}" if low is None else f"{estimate.chips} ({low}-{high or '?'})"
    return {
        "chip": estimate.chip,
        "chips": chips,
        "plan": " + ".join(_pool(pool) for pool in estimate.pools),
        "ttft": _bracketed(estimate.ttft.at(percentile), units.duration),
        "tpot": None if estimate.tpot is None else _bracketed(estimate.tpot.at(percentile), units.duration),
        "tokens": _bracketed(estimate.chip_tokens_per_s, units.significant),
        "cost": _one_price(estimate.cost),
        "power": None if estimate.power is None else units.scaled(estimate.power.mid, "W"),
        "binds": messages.text(f"serve.binds.{estimate.binds}"),
        "grade": letter(estimate.grade),
    }


def _one_price(cost: dict[str, Interval]) -> str | None:
    """The cost by the hour where that is known, else the first; JSON and CSV have all."""
    basis = next((basis for basis in cost if basis.endswith("cloud")), next(iter(cost), None))
    return None if basis is None else f"{units.significant(cost[basis].mid)} {basis}"


# frontier and forward passes


_POINTS = [
    Column("user", "serve.column.user_tokens", "right"),
    Column("chip", "serve.column.chip_tokens", "right"),
    Column("ttft", "serve.column.ttft_median", "right"),
    Column("users", "serve.column.users", "right"),
    Column("chips", "serve.column.replica_chips", "right"),
    Column("plan", "serve.column.plan"),
    Column("weights", "serve.column.weights"),
    Column("cost", "serve.column.cost", "right"),
]


def _frontier(found: Frontier) -> None:
    click.echo(
        messages.text("serve.frontier", cluster=found.cluster, plans=found.plans, elapsed=units.duration(found.elapsed_s))
        + f"  [{letter(found.grade)}]"
    )
    rows = [
        {
            "user": _bracketed(point.user_tokens_per_s, units.significant),
            "chip": _bracketed(point.chip_tokens_per_s, units.significant),
            "ttft": units.duration(point.ttft.mid),
            "users": point.users,
            "chips": point.chips,
            "plan": describe(point.plan),
            "weights": point.weights_dtype,
            "cost": _one_price(point.cost),
        }
        for point in found.points
    ]
    emit(rows, _POINTS, fmt="table")


_PASSES = [
    Column("batch", "serve.column.batch", "right"),
    Column("latency", "serve.column.latency", "right"),
    Column("rate", "serve.column.samples", "right"),
    Column("binds", "serve.column.binds"),
]


def _forward(found: Forward) -> None:
    click.echo(
        messages.text("serve.forward", cluster=found.cluster, stack=found.stack, priced=found.coverage.ops_priced, ops=found.coverage.ops)
        + f"  [{letter(found.grade)}]"
    )
    rows = [
        {
            "batch": int(one.batch),
            "latency": _bracketed(one.latency, units.duration),
            "rate": _bracketed(one.samples_per_s, units.significant),
            "binds": messages.text(f"serve.binds.{one.binds}"),
        }
        for one in found.passes
    ]
    emit(rows, _PASSES, fmt="table")


# CSV


def csv(answered: Sequence[Answered]) -> None:
    """One line for each answer; a frontier has one for each point, a forward model one for each batch."""
    rows = [row for one in answered for row in _csv_rows(one)]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    emit(rows, [Column(key, "serve.column.plan") for key in keys], fmt="csv")  # CSV prints the keys


def _csv_rows(one: Answered) -> list[dict[str, Any]]:
    name: dict[str, Any] = {"cluster": one.name}
    if isinstance(one.answer, Frontier):
        return [
            name
            | {"users": point.users, "chips": point.chips, "plan": describe(point.plan), "weights": point.weights_dtype}
            | _three("user_tokens_per_s", point.user_tokens_per_s)
            | _three("chip_tokens_per_s", point.chip_tokens_per_s)
            | _three("ttft_s", point.ttft)
            for point in one.answer.points
        ]
    if isinstance(one.answer, Forward):
        return [
            name | {"batch": step.batch} | _three("latency_s", step.latency) | _three("samples_per_s", step.samples_per_s)
            for step in one.answer.passes
        ]
    if one.answer is None:
        assert one.error is not None
        return [name | {"refusal_code": one.error.code, "refusal": one.error.render("en")}]
    return [name | _csv_answer(one.answer)]


def _csv_answer(answer: ServeAnswer) -> dict[str, Any]:
    estimate = answer.estimate
    row: dict[str, Any] = {
        "chip": estimate.chip,
        "chips": estimate.chips,
        "chips_low": answer.chips_low,
        "chips_high": answer.chips_high,
        "plan": " + ".join(_pool(pool) for pool in estimate.pools),
        "weights": estimate.weights_dtype,
        "meets": estimate.meets,
        "sustained": estimate.sustained,
    }
    for name in ("ttft", "tpot", "itl", "e2e"):
        latency: Latency | None = getattr(estimate, name)
        for percentile in (50, 90, 99):
            row |= _three(f"{name}_p{percentile}_s", latency.at(percentile) if latency else None)
    for name in ("requests_per_s", "output_tokens_per_s", "chip_tokens_per_s", "user_tokens_per_s", "goodput_per_s"):
        row |= _three(name, getattr(estimate, name))
    row |= _three("power_w", estimate.power) | _three("energy_per_token_j", estimate.energy_per_token)
    row |= _three("highest_rate_per_s", answer.highest_rate)
    return row | {"binds": estimate.binds, "grade": estimate.grade, "cost": estimate.cost, "refusal_code": None, "refusal": None}


def _three(name: str, value: Interval | None) -> dict[str, float | None]:
    stem, _, unit = name.rpartition("_") if name.endswith(("_s", "_w", "_j")) and not name.endswith("per_s") else (name, "", "")
    suffix = f"_{unit}" if unit else ""
    names = (f"{stem}{suffix}", f"{stem}_low{suffix}", f"{stem}_high{suffix}")
    return dict(zip(names, (value.mid, value.low, value.high) if value else (None, None, None), strict=True))
