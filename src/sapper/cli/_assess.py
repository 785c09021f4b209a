"""The answer of ``sapper assess`` on a terminal: at most 24 lines of at most 100 columns."""

from __future__ import annotations

from typing import Any, Literal

import click

from sapper import messages
from sapper.assess import Assessment, Option
from sapper.assess.conclude import basis_text, conclude, job_scale_s
from sapper.assess.proof_checks import proof_line
from sapper.assess.text import DASH, Scale, amount, count, energy_scale, money_scale, number, percent, spread
from sapper.cli._help import printable
from sapper.cli.output import print_rich
from sapper.evidence.fact import letter

WIDTH, LINES = 100, 24
NAMED = 4
"""Chips that a line names before it counts the others."""
_GIB = 2.0**30


def show(assessment: Assessment) -> None:
    """Print the answer first: the job in a line, the options, what could not be answered, and what else matters."""
    a = assessment
    click.echo(_title(a))
    reasons = _reasons(a)
    tail = [*_mixes(a), *_proofs(a), messages.text("assess.line.grades")]
    basis = _basis(a)
    if basis:
        tail.insert(0, messages.text("assess.line.cost_note", basis=basis_text(basis)))
    wrapped = [line for text in reasons[:3] for line in _wrap(text)]
    if len(reasons) > 3:
        wrapped.append(messages.text("assess.line.more", more=len(reasons) - 3))
    room = LINES - 3 - len(wrapped) - len(tail)
    shown = _shown(a, room)
    print_rich(_table([a.options[at] for at in shown], a, basis))
    left = room - len(shown)
    if len(shown) < len(a.ranking):
        click.echo(messages.text("assess.line.more", more=len(a.ranking) - len(shown)))
        left -= 1
    for line in (*wrapped, *_findings(a, left), *tail):
        click.echo(line)


def _shown(a: Assessment, room: int) -> tuple[int, ...]:
    """The fastest options for which there is room, and the reference in any case."""
    if len(a.ranking) <= room:
        return a.ranking
    kept = a.ranking[: max(1, room - 1)]
    return kept if 0 in kept or 0 not in a.ranking else (*kept[:-1], 0)


def _title(a: Assessment) -> str:
    asked, chips = a.asked, {option.chips for option in a.options}
    each = messages.text("assess.line.chips_each", chips=chips.pop()) if len(chips) == 1 else messages.text("assess.line.chips_differ")
    return messages.text(
        "assess.line.title",
        model=asked.model,
        params=count(asked.params),
        amount=amount(asked.tokens, samples=asked.counts_samples),
        seq=f"{asked.seq_len:,}",
        batch=f"{asked.global_batch:,}",
        batch_how=messages.text(f"assess.line.batch_{'given' if asked.batch_given else 'ours'}"),
        precision=asked.precision,
        optimizer=asked.optimizer,
        chips=each,
    )


def _name(option: Option, a: Assessment) -> str:
    """The chip alone, what is in brackets left out, where all have the same number of chips and no name stands twice."""
    names = [other.chip.name.partition(" (")[0] for other in a.options]
    own = option.chip.name.partition(" (")[0]
    return own if len({other.chips for other in a.options}) == 1 and names.count(own) == 1 else option.label


def _table(options: list[Option], a: Assessment, basis: str | None) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading, align in _columns(a, basis):
        table.add_column(Text(heading), justify=align, overflow="fold")
    unknown = messages.text("cli.unknown")
    for option in options:
        style = "bold" if option.is_reference else ""
        table.add_row(*(Text(printable(unknown if text is None else text), style=style) for text in _row(option, a, basis)))
    return table


def _columns(a: Assessment, basis: str | None) -> list[tuple[str, Literal["left", "right"]]]:
    unit = messages.text(f"assess.unit.{job_scale_s(a)[1]}")
    found: list[tuple[str, Literal["left", "right"]]] = [
        (messages.text("assess.column.option"), "left"),
        (messages.text("assess.column.time", unit=unit), "right"),
        (messages.text("assess.column.ratio"), "right"),
        (messages.text("assess.column.memory"), "right"),
        (_energy_scale(a).name(), "right"),
    ]
    if basis:
        currency = messages.text(f"assess.currency.{basis.partition(' ')[0]}")
        found.append((messages.text(f"assess.column.cost_{_cost_scale(a, basis).key}", currency=currency), "right"))
    return [*found, (messages.text("assess.column.comm"), "right"), (messages.text("assess.column.grade"), "left")]


def _row(option: Option, a: Assessment, basis: str | None) -> list[str | None]:
    estimate = option.estimate
    assert estimate is not None
    peak_gib, capacity = estimate.memory.peak.mid / _GIB, estimate.memory.capacity_bytes
    energy, cost, ratio = estimate.job_energy, estimate.cost.get(basis) if basis else None, option.ratios.time
    texts = [
        _name(option, a) + " *" * option.is_reference,
        None if estimate.job_time is None else _bracketed(*spread(estimate.job_time, job_scale_s(a)[0])),
        None
        if ratio is None
        else "1"
        if option.is_reference
        else _bracketed(*(f"{value:.2f}" for value in (ratio.mid, ratio.low, ratio.high))),
        f"{peak_gib:.0f}/{capacity / _GIB:.0f}" if capacity else f"{peak_gib:.0f}/?",
        None if energy is None else number(energy.mid * _energy_scale(a).factor),
    ]
    if basis:
        texts.append(None if cost is None else number(cost.mid * _cost_scale(a, basis).factor))
    return [*texts, None if option.comm_share is None else percent(option.comm_share), letter(estimate.grade)]


def _bracketed(mid: str, low: str, high: str) -> str:
    return f"{mid} [{low}{DASH}{high}]"


def _energy_scale(a: Assessment) -> Scale:
    return energy_scale([o.estimate.job_energy.mid for o in a.options if o.estimate and o.estimate.job_energy])


def _cost_scale(a: Assessment, basis: str) -> Scale:
    return money_scale([o.estimate.cost[basis].mid for o in a.options if o.estimate and basis in o.estimate.cost])


def _basis(a: Assessment) -> str | None:
    """The basis of price that most options have; None where fewer than two share one."""
    bases = [basis for o in a.options if o.estimate for basis in o.estimate.cost]
    best = max(sorted(set(bases)), key=bases.count, default=None)
    return best if best is not None and bases.count(best) > 1 else None


def _reasons(a: Assessment) -> list[str]:
    """Why options have no answer; chips that lack the same field share a line."""
    lacking: dict[tuple[str, str], list[Option]] = {}
    others: list[str] = []
    for at in a.unanswered:
        option = a.options[at]
        field = option.refusal.values.get("field") if option.refusal and option.refusal_kind == "missing" else None
        if option.refusal and field:
            lacking.setdefault((option.refusal.code, field), []).append(option)
        else:
            others.append(option.why.get(messages.language(), ""))
    shared = []
    for (code, _), options in lacking.items():
        assert options[0].refusal is not None
        values = options[0].refusal.values | {"chip": _some([option.chip.id for option in options])}
        shared.append(messages.text(code, **values))
    return [messages.text("assess.line.no_answer", why=why) for why in shared + others]


def _mixes(a: Assessment) -> list[str]:
    """A line for each option of unlike chips, and what is said of it."""
    factor, unit = job_scale_s(a)
    lines = []
    for one in a.mixed:
        said = one.said.get(messages.language(), "")
        if one.job_time is None:
            lines += _wrap(messages.text("assess.line.mixed_none", label=one.label, why=said))
            continue
        time = f"{_bracketed(*spread(one.job_time, factor))} {messages.text(f'assess.unit.{unit}')}"
        over = messages.text("cli.unknown") if one.time_ratio is None else f"{one.time_ratio.mid:.2f}"
        lines += _wrap(messages.text("assess.line.mixed", label=one.label, time=time, ratio=over, said=said))
    return lines


def _proofs(a: Assessment) -> list[str]:
    """A line for each chip with a proof, and one for those without; none where no proof was given at all."""
    if not a.proofs:
        return []
    lines = [line for proof in a.proofs for line in _wrap(proof_line(proof))]
    bare = _some(list(a.not_proven))
    return [*lines, *(_wrap(messages.text("assess.line.not_proven", chips=bare)) if bare else [])]


def _some(ids: list[str]) -> str:
    """The first few of many, and how many more."""
    if len(ids) <= NAMED:
        return ", ".join(ids)
    return messages.text("assess.line.and_more", some=", ".join(ids[: NAMED - 1]), more=len(ids) - NAMED + 1)


def _findings(a: Assessment, room: int) -> list[str]:
    """As many findings as there is room for; energy is left out, since the table has it."""
    lines: list[str] = []
    for finding in conclude(a).findings:
        more = _wrap(finding.text)
        if finding.code != "energy" and len(lines) + len(more) <= room:
            lines += more
    return lines


def _wrap(text: str) -> list[str]:
    from rich.console import Console
    from rich.text import Text

    return [line.plain.rstrip() for line in Text(printable(text)).wrap(Console(width=WIDTH), WIDTH)]
