"""The evidence index and the list of facts under each option."""

from __future__ import annotations

from sapper import messages
from sapper.assess.assessment import Assessment, Source
from sapper.dossier.cells import Cell, Table, date_text, head, key_words, of_fact, word, words
from sapper.evidence.fact import letter


def index(a: Assessment, lang: str) -> Table:
    """Every fact, numbered; row ``n`` bears the id ``e<n>``."""
    names = ("number", "subject", "key", "value", "grade", "source", "date", "note")
    subjects = {option.chip.id: option.chip.name for option in a.options}
    rows = tuple(_row(source, subjects, lang) for source in a.evidence)
    return Table(name="evidence", header=tuple(word(f"column.{name}", lang) for name in names), rows=rows)


def _row(source: Source, subjects: dict[str, str], lang: str) -> tuple[Cell, ...]:
    fact = source.fact
    value = of_fact(fact, lang)
    notes = [fact.note or ""]
    if fact.primary_cited and not fact.primary_read:
        notes.append(word("word.cites", lang, page=fact.primary_cited))
    if fact.source_read is False:
        notes.append(word("word.not_read", lang))
    grade = letter(fact.grade)
    text = (
        words(messages.Foreign("dossier.quote", str(fact.value)).render(lang)) if fact.number is None and fact.value is not None else value
    )
    return (
        head(str(source.number), id=f"e{source.number}"),
        words(subjects.get(source.subject, source.subject) or word("word.site", lang)),
        words(*key_words(source.key.removeprefix(f"{source.subject} "), lang)),
        Cell(text=text.text, kind=text.kind),
        Cell(text=grade, sub=word(f"grade.{grade}", lang), kind="grade"),
        _source(fact.source, lang),
        words(date_text(fact.date, lang)),
        words("\n".join(note for note in notes if note), quoted=lang != "en"),
    )


def _source(source: str, lang: str) -> Cell:
    """Where a fact is from; a page's name stays as it is, our own words are put into the reader's language."""
    said = messages.Foreign("dossier.constant", source).render(lang)
    return words(said, quoted=lang != "en" and said == source)
