"""A rule as a page: what ``sapper port explain`` prints, and what docs/port-rules.md is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sapper import messages
from sapper.port.finding import Finding, Place
from sapper.port.rule import Example, Rule
from sapper.port.target import targets
from sapper.port.verdict import Cell
from sapper.port.verdicts import verdict

_LONGEST = 120
"""Characters of a symbol that a title shows; minified and generated code has names of any length."""
_NOWHERE = Place(path="", line=1, column=0, end_line=1, end_column=0)


def cells(rule: Rule) -> dict[str, Cell]:
    """What becomes of the rule's coupling on each target, by the target's name, where the rule alone decides."""
    finding = Finding(code=rule.code, place=_NOWHERE, symbol=symbol(rule), excerpt="")
    return {name: verdict(finding, target) for name, target in targets().items()}


def read(cell: Cell) -> dict[str, str | None]:
    """The pages that a cell rests on, with the dates on which they were read."""
    return {url: date for url, date in ((cell.source, cell.date), (cell.silence_source, cell.silence_date)) if url}


def grouped(by_target: Mapping[str, Cell]) -> list[tuple[list[str], Cell]]:
    """Targets of which the same is known together, in their order."""
    groups: dict[Cell, list[str]] = {}
    for name, cell in by_target.items():
        groups.setdefault(cell, []).append(name)
    return [(names, cell) for cell, names in groups.items()]


def symbol(rule: Rule) -> str:
    """What stands for ``{symbol}`` where there is no finding: the first thing that the rule looks for."""
    match = rule.match
    methods = (f".{name}()" for name in match.methods)
    first = next(iter((*match.names, *methods, *match.packages, *match.imports, *match.keywords)), None)
    return first.removesuffix(".*") if first else rule.name


def title(rule: Rule, lang: str | None = None, *, of: str | None = None) -> str:
    """The rule's title for the symbol ``of``, by default for the rule's own."""
    found = of if of is not None else symbol(rule)
    return rule.words(lang).title.replace("{symbol}", found if len(found) <= _LONGEST else f"{found[: _LONGEST - 3]}...")


def markdown(rule: Rule, lang: str, *, level: int = 2) -> str:
    """The rule's page in ``lang``: headings as ruff has them, the matrix of targets, the references."""
    words = rule.words(lang)
    sections = [
        f"{'#' * level} {rule.code} {rule.name}",
        title(rule, lang),
        facts(rule, lang),
        *_section("what", words.what, lang, level),
        *_section("why", words.why, lang, level),
        *(part for example in rule.examples for part in _example(example, lang, level)),
        *_section("safety", words.safety, lang, level),
        *_section("limits", words.limits, lang, level),
        *_section("targets", matrix(cells(rule), lang), lang, level),
        *_section("references", "\n".join(f"- <{one.url}> ({one.date})" for one in rule.references), lang, level),
    ]
    return "\n\n".join(sections) + "\n"


def facts(rule: Rule, lang: str) -> str:
    """Class, loud or silent, and grade of the rewrite, in one line."""
    shown = messages.text(f"port.class.{rule.klass}", lang)
    loud = messages.text("port.rule.silent" if rule.silent else "port.rule.loud", lang)
    return messages.text("port.rule.facts", lang, klass=shown, loud=loud, fix=messages.text(f"port.fix_grade.{rule.fix}", lang))


def matrix(by_target: dict[str, Cell], lang: str) -> str:
    """A Markdown table of targets; those of which the same is known share a row."""
    heads = [messages.text(f"port.column.{name}", lang) for name in ("target", "status", "silence", "equivalent", "source")]
    rows = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for names, cell in grouped(by_target):
        rows.append(f"| {' | '.join(map(_escaped, (', '.join(f'`{name}`' for name in names), *_cell(cell, lang))))} |")
    return "\n".join(rows)


def _cell(cell: Cell, lang: str) -> Iterable[str]:
    note = cell.note_zh if lang == "zh" else cell.note_en
    yield messages.text(f"port.status.{cell.status}", lang)
    if cell.silence:
        yield messages.text(f"port.silence.{cell.silence}", lang)
    else:
        yield "-" if cell.status == "works" else messages.text("cli.unknown", lang)
    yield "; ".join(filter(None, (cell.equivalent, note))) or "-"
    yield ", ".join(f"<{url}> ({date})" for url, date in read(cell).items()) or "-"


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _section(name: str, text: str | None, lang: str, level: int) -> Iterable[str]:
    if text and text.strip():
        yield f"{'#' * (level + 1)} {messages.text(f'port.heading.{name}', lang)}"
        yield text.strip()


def _example(example: Example, lang: str, level: int) -> Iterable[str]:
    fence = "python" if example.path.endswith(".py") else "text"
    yield from _section("example", f"```{fence}\n{example.before.strip()}\n```", lang, level)
    if example.after is not None:
        yield from _section("instead", f"```{fence}\n{example.after.strip()}\n```", lang, level)
