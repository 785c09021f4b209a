"""What the conclusion says of serving, from the chapter's numbers alone."""

from __future__ import annotations

from sapper import messages, units
from sapper.assess.serving import ServeOption, Serving
from sapper.assess.text import TIMES, number
from sapper.evidence import Interval
from sapper.evidence.fact import letter


def serving_sentence(serving: Serving, lang: str | None = None) -> str:
    """Who serves the load with the fewest chips, against the reference, and who serves it cheapest."""
    answered = serving.answered
    load = load_text(serving, lang)
    if not answered:
        return messages.text("assess.serve.none", lang, load=load)
    best = answered[0]
    estimate = best.answer.estimate if best.answer else None
    assert estimate is not None
    said = messages.text(
        "assess.serve.fewest",
        lang,
        load=load,
        option=best.label,
        chips=chips_text(best),
        letter=letter(estimate.grade),
        known=len(answered),
        of=len(serving.options),
        against=_against(serving, best, lang),
    )
    cheapest = [item for basis in _shared_bases(answered) if (item := _cheapest(answered, basis, lang))]
    if cheapest:
        said += messages.text("assess.serve.cheapest", lang, items=messages.text("assess.label.semicolon", lang).join(cheapest))
    return said


def load_text(serving: Serving, lang: str | None = None) -> str:
    """The load in words: rate or users, lengths, and the SLO."""
    load = serving.load
    kind = "rate" if load.rate_per_s is not None else "users" if load.concurrency is not None else "highest"
    said = messages.text(
        f"assess.serve.load.{kind}",
        lang,
        rate=f"{load.rate_per_s or 0:.4g}",
        users=load.concurrency or 0,
        prompt=f"{load.prompt.tokens:,.0f}",
        answer=f"{load.answer.tokens:,.0f}",
    )
    return said if serving.slo is None else messages.text("assess.serve.load.slo", lang, load=said, slo=serving.slo.text)


def chips_text(option: ServeOption) -> str:
    """Chips with their range: ``16 (12-24)``, a question mark where no number serves at the slow end."""
    assert option.answer is not None
    answer = option.answer
    if answer.chips_low is None:
        return str(answer.estimate.chips)
    high = "?" if answer.chips_high is None else str(answer.chips_high)
    return f"{answer.estimate.chips} ({answer.chips_low}\N{EN DASH}{high})"


def _against(serving: Serving, best: ServeOption, lang: str | None) -> str:
    reference = serving.options[0]
    if best.is_reference or reference.answer is None or best.answer is None:
        return ""
    ratio = best.answer.estimate.chip_tokens_per_s.mid / reference.answer.estimate.chip_tokens_per_s.mid
    return messages.text("assess.serve.against", lang, reference=reference.label, chips=chips_text(reference), ratio=number(ratio) + TIMES)


def _shared_bases(answered: tuple[ServeOption, ...]) -> list[str]:
    """Kinds of price that two chips have, electricity left to the table."""
    bases = [basis for option in answered if option.answer for basis in option.answer.estimate.cost if not basis.endswith(" energy")]
    return [basis for basis in sorted(set(bases)) if bases.count(basis) > 1]


def _cheapest(answered: tuple[ServeOption, ...], basis: str, lang: str | None) -> str:
    from sapper.assess.conclude import basis_text

    known: list[tuple[Interval, ServeOption]] = [
        (option.answer.estimate.cost[basis], option) for option in answered if option.answer and basis in option.answer.estimate.cost
    ]
    cost, option = min(known, key=lambda pair: pair[0].mid)
    return messages.text(
        "assess.serve.cheapest_item",
        lang,
        basis=basis_text(basis, lang),
        option=option.label,
        cost=units.significant(cost.mid),
        low=units.significant(cost.low),
        high=units.significant(cost.high),
        letter=letter(cost.grade),
    )
