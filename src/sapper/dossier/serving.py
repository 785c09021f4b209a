"""The serving chapter's tables: what each chip takes for the load, and what that costs."""

from __future__ import annotations

import msgspec

from sapper import messages, units
from sapper.assess.conclude import basis_text
from sapper.assess.conclude_serve import chips_text, load_text
from sapper.assess.serving import ServeOption, Serving
from sapper.dossier.cells import Cell, Table, head, interval, unknown, word
from sapper.evidence import Interval
from sapper.evidence.fact import letter
from sapper.predict.serve.candidates import describe
from sapper.predict.serve.estimate import Pool


def figures(serving: Serving, lang: str) -> Table:
    """Each chip: how many, how cut, what users wait, what a chip gives; a refused one says what is missing."""
    percentile = serving.slo.percentile if serving.slo else 99
    columns = ("option", "serve_chips", "serve_plan", "serve_ttft", "serve_tpot", "serve_chip", "serve_user", "serve_energy", "serve_power")
    header = tuple(word(f"column.{name}", lang, percentile=f"p{percentile}") for name in columns)
    rows: list[tuple[Cell, ...]] = []
    classes = []
    for option in ordered(serving):
        first = head(option.label, option.chip)
        if option.answer is None:
            rows.append((first, Cell(text=_refusal(option, lang), kind="refusal", span=len(header) - 1)))
            classes.append("refused")
            continue
        rows.append((first, *_cells(option, lang, percentile, f"#basis-{basis_of(serving, option)}")))
        classes.append("reference" if option.is_reference else "")
    return Table(name="serving", header=header, rows=tuple(rows), classes=tuple(classes))


def ordered(serving: Serving) -> tuple[ServeOption, ...]:
    """Answered chips, fewest first, then the refused ones."""
    return (*serving.answered, *(option for option in serving.options if option.answer is None))


def basis_of(serving: Serving, option: ServeOption) -> str:
    """The anchor of the facts under an option's figures."""
    return f"serve-{serving.options.index(option)}"


def _cells(option: ServeOption, lang: str, percentile: int, href: str) -> list[Cell]:
    assert option.answer is not None
    estimate = option.answer.estimate
    plan = "\n".join(_pool(pool, lang) for pool in estimate.pools)
    return [
        Cell(text=chips_text(option), grade=letter(estimate.grade), href=href),
        Cell(text=plan, sub=f"{estimate.weights_dtype}, {estimate.stack}", kind="text"),
        _time(estimate.ttft.at(percentile), href),
        unknown(lang) if estimate.tpot is None else _time(estimate.tpot.at(percentile), href),
        interval(estimate.chip_tokens_per_s, lang, href=href),
        interval(estimate.user_tokens_per_s, lang, href=href),
        interval(estimate.energy_per_token, lang, href=href),
        interval(estimate.power, lang, factor=1e-3, href=href),
    ]


def _pool(pool: Pool, lang: str) -> str:
    role = "" if pool.role == "all" else messages.text(f"serve.role.{pool.role}", lang) + " "
    return f"{pool.replicas} \N{MULTIPLICATION SIGN} {role}`{describe(pool.plan)}`"


def _time(value: Interval, href: str) -> Cell:
    low, high = units.duration(value.low), units.duration(value.high)
    return Cell(text=units.duration(value.mid), sub=f"{low}\N{EN DASH}{high}", grade=letter(value.grade), href=href)


def _refusal(option: ServeOption, lang: str) -> str:
    step = option.remedy.get(lang)
    return option.why.get(lang, "") + (f"\n{step}" if step else "")


def costs(serving: Serving, lang: str) -> Table | None:
    """Cost per million tokens by currency and basis; None where no price is known."""
    answered = serving.answered
    bases = sorted({basis for option in answered if option.answer for basis in option.answer.estimate.cost})
    if not bases:
        return None
    header = [word("column.option", lang)]
    header += [basis_text(basis, lang) for basis in bases]
    rows = []
    for option in answered:
        assert option.answer is not None
        estimate = option.answer.estimate
        cells = []
        for basis in bases:
            cell = interval(estimate.cost.get(basis), lang, href=f"#basis-{basis_of(serving, option)}")
            prompts, answers = estimate.cost_input.get(basis), estimate.cost_output.get(basis)
            parts = "" if prompts is None or answers is None else _parts(prompts, answers, lang)
            cells.append(msgspec.structs.replace(cell, extra=parts))
        rows.append((head(option.label), *cells))
    classes = tuple("reference" if option.is_reference else "" for option in answered)
    return Table(name="serve-costs", header=tuple(header), rows=tuple(rows), classes=classes)


def _parts(prompts: Interval, answers: Interval, lang: str) -> str:
    return word("serve.cost_parts", lang, prompts=units.significant(prompts.mid), answers=units.significant(answers.mid))


def note(serving: Serving, lang: str) -> str:
    """What the chapter's figures are of."""
    return word(
        "note.serving",
        lang,
        load=load_text(serving, lang),
        weights=", ".join(serving.weights),
        cache=serving.cache_dtype,
        requests=f"{serving.load.requests:,}",
    )
