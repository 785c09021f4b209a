"""The page of a plan: whether to mix, the plan stage by stage, one step as a picture, and where the numbers come from."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from sapper import __version__, messages, units
from sapper.dossier.mix.lanes import Happening
from sapper.dossier.mix.timeline import GROUP_COLOURS, timeline
from sapper.dossier.rendering import environment, resource
from sapper.evidence.fact import letter
from sapper.mix.sheet import Answer, Compared, brief, parts, sheet

STYLES = ("style.css", "proof.css", "port.css", "mix.css")
SECTIONS = ("verdict", "plan", "timeline", "others", "sources", "words")
WORDS = ("stage", "pipeline", "replica", "bound", "pace", "interval")
PARTS = {"fill": "sky", "rest": "blue", "reduce": "green", "update": "pink", "other": "silver"}


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the comparison of step times."""

    name: str
    step_s: float | None
    """None: the model does not fit."""
    share: float
    """Of the longest bar."""
    note: str
    chosen: bool = False


def page(
    answer: Answer, compared: Sequence[Compared], events: Iterable[Happening], lang: str, *, other: str | None = None
) -> str:
    """The page of an answer that has a plan, in ``lang``, as HTML that needs nothing else.

    Args:
        answer: With a best plan.
        compared: Plans of the user's beside it.
        events: One step of the best plan.
        lang: ``en`` or ``zh``.
        other: File name of the other language's page beside this one; None where there is none.
    """
    with messages.using(lang):
        return environment().get_template("mix.html.j2").render(**_view(answer, compared, events, lang), other=other)


def _view(answer: Answer, compared: Sequence[Compared], events: Iterable[Happening], lang: str) -> dict[str, Any]:
    planned = answer.planned
    plan, score = planned.best, planned.score
    assert plan is not None and score is not None and plan.expected is not None
    binds = {(one.pipeline, one.stage): one.reason for one in planned.binds}
    groups = [supply.name for supply in answer.problem.groups]
    step = plan.expected.step_time
    where = parts(score)
    return {
        "lang": lang, "html_lang": "zh-CN" if lang == "zh" else "en", "css": "".join(map(resource, STYLES)), "sapper": __version__,
        "t": functools.partial(_text, lang), "brief": brief, "said": functools.partial(_said, lang), "sections": SECTIONS, "words": WORDS,
        "plan": plan, "planned": planned, "answer": answer, "step": step, "duration": units.duration, "gib": units.gib,
        "tokens_per_s": answer.tokens_per_step / step.mid, "used": sum(plan.chips.values()), "rows": sheet(answer.problem, plan, score),
        "binds": binds, "colours": {name: GROUP_COLOURS[at % len(GROUP_COLOURS)] for at, name in enumerate(groups)},
        "parts": [(name, getattr(where, f"{name}_s"), colour) for name, colour in PARTS.items()],
        "svg": timeline(plan, events, lang, alone=False, groups=groups), "bars": _bars(answer, compared, lang),
        "links": [link for link in answer.cluster.links if link.bandwidth_bytes_per_s.number is not None], "letter": letter,
        "rate": lambda value: units.scaled(value, "B/s"),
    }  # fmt: skip


def _bars(answer: Answer, compared: Sequence[Compared], lang: str) -> list[Bar]:
    """The plan, each set of groups, the plans that lost, and the user's: step times on one scale."""
    planned = answer.planned
    assert planned.best is not None and planned.score is not None
    best_s, chosen = planned.score.step_s, set(planned.best.chips)
    found: list[tuple[str, float | None, str, bool]] = [
        (_text(lang, "bar.plan"), best_s, " + ".join(planned.best.chips), True)
    ]
    for one in planned.subfleets:
        if set(one.groups) != chosen:
            found.append((" + ".join(one.groups), one.step_s, _text(lang, "bar.nowhere") if one.step_s is None else "", False))
    for other in compared:
        lacks = "" if other.lacking_bytes is None else _text(lang, "bar.lacks", stage=other.stage, lacking=units.gib(other.lacking_bytes))
        found.append((other.path, other.step_s, lacks, False))
    longest = max(step_s for _, step_s, _, _ in found if step_s is not None)
    return [
        Bar(name=name, step_s=step_s, share=0.0 if step_s is None else step_s / longest, note=note, chosen=is_best)
        for name, step_s, note, is_best in found
    ]


def _said(lang: str, reason: Any) -> str:
    return messages.text(reason.code, lang, **reason.values)


def _text(lang: str, code: str, **values: object) -> str:
    """A text of this page, else one of the terminal's answer, else one that it shares with the dossier."""
    found = next((name for name in (f"mix.page.{code}", f"mix.plan.{code}") if messages.known(name)), f"dossier.{code}")
    return messages.text(found, lang, **values)
