"""Options of unlike chips: the best mixed plan of the same job, and whether mixing helps at all."""

from __future__ import annotations

import msgspec

from sapper import messages
from sapper.assess.question import Question
from sapper.assess.ratio import ratio
from sapper.clusters.cluster import Cluster
from sapper.errors import SapperError
from sapper.evidence import Interval
from sapper.predict.estimate import Estimate

LIMIT_S = 20.0
"""After so long no further set of groups is searched."""


class Mixed(msgspec.Struct, frozen=True, kw_only=True):
    """One mixed cluster: its answer, or why there is none."""

    label: str
    chips: int
    used: int = 0
    """Chips that the plan uses."""
    step_time: Interval | None = None
    """None: no plan fits, or the question cannot be answered."""
    job_time: Interval | None = None
    time_ratio: Interval | None = None
    """Over the reference; None where either has no answer."""
    gain_share: float | None = None
    """Speed over the best group alone, minus 1; 0 where it is better not to mix; None where no group holds the model."""
    gap_share: float | None = None
    """Step over the proven bound, minus 1."""
    alone_s: dict[str, float | None] = msgspec.field(default_factory=dict)
    """Group -> step of its best plan; None where it does not hold the model."""
    plan: str = ""
    said: dict[str, str] = msgspec.field(default_factory=dict)
    """Whether to mix, or why there is no answer, by language."""


def mixed(question: Question, cluster: Cluster, reference: Estimate | None) -> Mixed:
    """The best plan of the question's job on ``cluster``, whose groups are unlike."""
    from sapper.mix.costs import from_predict
    from sapper.mix.identity import check_chain
    from sapper.mix.search import search
    from sapper.mix.sheet import brief

    label = " + ".join(f"{group.chips}x {group.chip.name}" for group in cluster.groups)
    try:
        check_chain(question.job.workload)
        planned = search(from_predict(question.job, cluster), time_s=LIMIT_S)
    except SapperError as error:
        return Mixed(label=label, chips=cluster.chips, said={lang: error.render(lang) for lang in messages.LANGUAGES})
    plan = planned.best
    if plan is None or plan.expected is None:
        why = {lang: " ".join(messages.text(one.code, lang, **one.values) for one in planned.why_none) for lang in messages.LANGUAGES}
        return Mixed(label=label, chips=cluster.chips, said=why)
    step, steps, verdict = plan.expected.step_time, question.job.total_steps, planned.verdict
    job_time = None if steps is None else msgspec.structs.replace(step, mid=step.mid * steps, low=step.low * steps, high=step.high * steps)
    base = None if reference is None else reference.job_time
    return Mixed(
        label=label, chips=cluster.chips, used=sum(plan.chips.values()), step_time=step, job_time=job_time,
        time_ratio=None if job_time is None or base is None else ratio(job_time, base),
        gain_share=planned.gain, gap_share=planned.gap, alone_s=planned.alone_s, plan=brief(plan),
        said={} if verdict is None else {lang: messages.text(verdict.code, lang, **verdict.values) for lang in messages.LANGUAGES},
    )  # fmt: skip
