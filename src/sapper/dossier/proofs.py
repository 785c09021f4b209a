"""The section on what was proved of the chips: verdicts side by side, then each proof, what it did not cover first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from sapper import messages
from sapper.assess.assessment import Assessment
from sapper.assess.proof import Proven
from sapper.assess.proof_checks import outcome_of, standing_text, verdict_text
from sapper.assess.text import number, percent
from sapper.dossier.cells import Cell, Table, head, unknown, word, words
from sapper.prove.verdict import GREEN, SEVERITY, Outcome
from sapper.prove.words import blame, outcome


def section(a: Assessment, lang: str) -> dict[str, Any]:
    """The overview and what is said of each proof."""
    return {"overview": overview(a, lang), "each": [_each(a, proof, lang) for proof in a.proofs]}


def overview(a: Assessment, lang: str) -> Table:
    """A row for each chip that was asked for; one without a proof is unknown."""
    names = ("chip", "proof_answer", "proof_verdict", "proof_standing", "proof_items", "proof_gaps", "proof_date")
    rows = [_row(a, proof, lang) for proof in a.proofs]
    bare = Cell(text=word("proofs.none", lang), kind="text", span=len(names) - 2)
    rows += [(head(_name(a, chip)), _answer(None, lang), bare) for chip in a.not_proven]
    return Table(name="proofs", header=tuple(word(f"column.{name}", lang) for name in names), rows=tuple(rows))


def _row(a: Assessment, proof: Proven, lang: str) -> tuple[Cell, ...]:
    return (
        head(_name(a, proof.chip)), _answer(proof, lang), words(verdict_text(proof, lang)), words(standing_text(proof, lang)),
        Cell(text=" / ".join(str(proof.items[name]) for name in ("pass", "fail", "unknown"))),
        Cell(text=str(len(proof.not_covered))), words(proof.date, ", ".join(proof.backends)) if proof.date else unknown(lang),
    )  # fmt: skip


def _answer(proof: Proven | None, lang: str) -> Cell:
    answer = outcome_of(proof)
    return Cell(text=word(f"word.{answer}", lang), kind=answer)


def _name(a: Assessment, chip: str) -> str:
    """The chip's name where it is of an option, else its id."""
    return next((option.chip.name for option in a.options if option.chip.id == chip), chip)


def _each(a: Assessment, proof: Proven, lang: str) -> dict[str, Any]:
    more = proof.findings - len(proof.guilty)
    return {
        "id": f"proof-{proof.chip}",
        "title": _name(a, proof.chip),
        "lead": word("proofs.lead", lang, verdict=verdict_text(proof, lang), standing=standing_text(proof, lang)),
        "gaps": [gap.get(lang, "") for gap in proof.not_covered] or [messages.text("proof.gap.nothing", lang)],
        "covered": [part.get(lang, "") for part in proof.covered],
        "guilty": _guilty(proof, lang) if proof.guilty else None,
        "more": word("proofs.more", lang, count=more) if more else "",
        "figures": Table(
            name="proof-figures", header=(word("column.proof_figure", lang), word("column.proof_value", lang)),
            rows=tuple((head(word(f"proofs.{name}", lang)), words(text)) for name, text in _figures(proof, lang)),
        ),
    }  # fmt: skip


def _guilty(proof: Proven, lang: str) -> Table:
    names = ("op", "part", "outcome", "blame", "ratio", "cases", "why")
    rows = tuple(
        (
            head(f"`{one.op}`", one.where), words(messages.text(f"proof.part.{one.part}", lang)), words(outcome(one.outcome, lang)),
            words(blame(one.blame, lang)) if one.blame else unknown(lang),
            unknown(lang) if one.ratio is None else Cell(text=number(one.ratio)), Cell(text=str(one.count)), words(one.why.get(lang, "")),
        )
        for one in proof.guilty
    )  # fmt: skip
    return Table(name="proof-guilty", header=tuple(messages.text(f"proof.column.{name}", lang) for name in names), rows=rows)


def _figures(proof: Proven, lang: str) -> Iterator[tuple[str, str]]:
    """Name and text of each line; a part that was not run is unknown."""
    comma, missing = messages.text("assess.label.comma", lang), word("word.unknown", lang)
    yield "outcomes", _counts(proof.outcomes, lang) or word("word.none", lang)
    train, survival, speed = proof.train, proof.survival, proof.speed
    if train is None:
        yield "train", missing
    else:
        code = "proofs.train_inside" if train.left_first is None else "proofs.train_left"
        yield "train", word(code, lang, inside=train.steps_inside, asked=train.steps_asked, thing=train.left_first or "")
    if survival is None:
        yield "survival", missing
    else:
        right = sum(count for name, count in survival.outcomes.items() if name in GREEN)
        bad = {name: count for name, count in survival.outcomes.items() if name not in GREEN}
        text = word("proofs.survival_text", lang, right=right, tried=survival.tried, known=survival.known)
        yield "survival", comma.join(filter(None, (text, _counts(bad, lang))))
    if speed is None:
        yield "speed", missing
    else:
        shares = {"green": speed.green_share, "roof": speed.roof_share, "launch": speed.launch_share}
        said = {name: missing if share is None else percent(share) for name, share in shares.items()}
        yield "speed", word("proofs.speed_text", lang, ops=speed.ops, **said)
    yield "of", comma.join((*proof.targets, *proof.dtypes)) or missing
    yield "on", comma.join(proof.backends) or missing
    yield "versions", comma.join([f"{name} {version}" for name, version in proof.versions.items()]) or missing
    yield "by", comma.join((*(f"Sapper {one}" for one in proof.sapper), *((proof.date,) if proof.date else ()))) or missing


def _counts(outcomes: dict[Outcome, int], lang: str) -> str:
    """``wrong 2, crash 1``, worst first."""
    counted = Counter(outcomes)
    return messages.text("assess.label.comma", lang).join(f"{outcome(name, lang)} {counted[name]}" for name in SEVERITY if counted[name])
