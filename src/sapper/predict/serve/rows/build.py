"""cases_of: from an inference row to the exact questions that predict must answer, or to the refusal that names what is missing."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from sapper.chips.catalogue import Catalogue
from sapper.chips.schema import Chip
from sapper.clusters.cluster import Cluster
from sapper.clusters.spec import cluster_of
from sapper.errors import BadValue, SapperError
from sapper.predict.rows import chips_of, network
from sapper.predict.rows.build import TRUST
from sapper.predict.rows.case import Assumption, Conversion
from sapper.predict.rows.row import Refused, Row, RowFault
from sapper.predict.rows.rules import SourceRule
from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.plan import Admission
from sapper.predict.serve.rows import lengths, plans, quant
from sapper.predict.serve.rows.case import Quantity, ServeCase
from sapper.predict.serve.rows.metrics import Load, scored
from sapper.predict.serve.rows.models import model_of
from sapper.predict.serve.rows.recipes import chosen, recipes_of
from sapper.predict.serve.rows.rules import (
    ServeRule,
    Speculative,
    admission_of,
    client_of,
    engine_of,
    mode_of,
    serve_rule,
    speculates,
    stack_of,
    year_of,
)
from sapper.predict.serve.rows.twins import Layout, product, workers_stated

DOUBT = {
    "assume.serve.precision": 0.5, "assume.serve.length": 0.7, "assume.serve.plan": 0.5, "assume.serve.capacity": 0.1,
    "assume.serve.speculative": 0.7,
    "assume.serve.neighbour": 0.4, "assume.serve.workers": 0.2, "assume.serve.ranks": 0.5, "assume.serve.unsplit": 0.1,
    "assume.serve.client": 0.3,
}
"""Factor of a row's weight for each assumption: how likely it is to be right (of neighbours' workers three in four are)."""
NO_RULE = SourceRule(family="", match="", why="sources of inference rows state a network in the row or nowhere")
NODE = 8
"""Chips of a node where the devices fill no whole number of the chip's usual nodes."""
BESIDE: tuple[tuple[str, Quantity, float], ...] = (
    ("ttft_ms", "ttft", 1e3), ("ttft_p50_ms", "ttft", 1e3), ("ttft_s", "ttft", 1.0),
    ("tpot_ms", "tpot", 1e3), ("tpot_p50_ms", "tpot", 1e3), ("median_itl_ms", "tpot", 1e3), ("itl_ms", "tpot", 1e3),
    ("tpot_s", "tpot", 1.0),
)
"""Figures beside the metric that are questions of their own: key, quantity, factor from seconds."""


def cases_of(row: Row, catalogue: Catalogue, *, layout: Layout | None = None) -> Sequence[ServeCase] | Refused:
    """The questions that ``row`` puts, with their measured answers: its metric first, then TTFT and TPOT beside it.

    Args:
        row: A row of :func:`~sapper.predict.rows.read_rows`.
        catalogue: Where chips are looked up.
        layout: Workers of other rows that stand for those that ``row`` leaves out
            (:meth:`~sapper.predict.serve.rows.twins.Twins.layout`).

    Returns:
        The cases, or a refusal that names the field that is missing or contradicts another. Never raises for bad input.
    """
    try:
        return _cases(row, catalogue, layout)
    except RowFault as fault:
        return Refused(row_id=row.id, code=fault.code, field=fault.field, values=fault.values)
    except SapperError as error:
        return Refused.because(error, row_id=row.id)


def _cases(row: Row, catalogue: Catalogue, layout: Layout | None) -> tuple[ServeCase, ...]:
    if row.kind != "inference":
        raise RowFault("SP-ROW-041", "phase", value=row.phase or row.metric)
    rule = serve_rule(row)
    mode, stack = mode_of(row, rule), stack_of(row, rule)
    card, varied = chips_of.chip_of(row, catalogue)
    model = model_of(row.model)
    engine = engine_of(row, stack=stack)
    dtypes = quant.dtypes_of(row, rule, card, cache=engine.cache)
    prompt, answer, supplied = lengths.lengths_of(row, rule)
    year = year_of(row, rule)
    told = _told(row, rule, year=year, layout=layout)
    ask = plans.Ask(
        row=row, rule=rule, mode=mode, model=model, chip=card, dtypes=dtypes, most=told.most, batched_tokens=engine.batched_tokens,
    )
    cut = plans.cut_of(ask, told.layout)
    chip = _device(card, cut.parts)
    cluster, networked = network.with_stated_network(_cluster(chip, cut), row, NO_RULE)
    assumptions = (*varied, *dtypes.assumptions, *supplied, *cut.assumptions, *told.assumptions, *networked)
    job = ServeJob(
        model=model, weights_dtype=dtypes.weights, compute_dtype=dtypes.compute, cache_dtype=dtypes.cache, dtype=dtypes.activations,
        stack=stack, stack_year=year,
    )
    found = scored(row, Load(
        mode=mode, batch=_counted_batch(row, cut, prompt), input_len=prompt, output_len=answer, chips=float(cut.chips)))
    limits = lengths.limits_of(row) if mode == "server" else None
    cut, requests, misread = _offered(row, cut, stack=stack, year=year)
    assumptions = (*assumptions, *misread)
    if mode == "server" and limits is None:
        raise RowFault("SP-ROW-001", "extra.ttft_limit_s")
    beside = {quantity: value / factor for key, quantity, factor in BESIDE if (value := row.number(key)) is not None}
    case = ServeCase(
        row_id=row.id, source=row.source, family=rule.family, vendor=card.vendor, chip_id=card.id.partition("+")[0],
        confidence=row.confidence, weight=_weight(row, assumptions), metric=row.metric, unit=row.unit, measured=row.value,
        conversion=found.conversion, quantity=found.quantity, statistic=rule.statistic if found.quantity in ("ttft", "tpot") else "mean",
        job=job, precision=row.precision or dtypes.weights, cluster=cluster, plan=cut.plan, replicas=cut.replicas, unknown=cut.unknown,
        admission=Admission() if cut.prefill is not None else admission_of(
            row, stack=stack, ranks=cut.plan.attention_dp, batch=cut.batch, tp=cut.plan.tp, year=year),
        memory_share=engine.memory_share, free_share=engine.free_share, prefill=cut.prefill, mode=mode,
        batch=cut.batch if cut.batch is not None else _counted_batch(row, cut, prompt),
        input_len=prompt, output_len=answer, requests=requests,
        ttft_limit_s=limits.ttft_limit_s if limits else None, tpot_limit_s=limits.tpot_limit_s if limits else None,
        ttft_s=beside.get("ttft"), tpot_s=beside.get("tpot"), output_tokens_per_s=_first(row, "output_tps", "output_tokens_per_s"),
        power_w=_first(row, "avg_power_w", "system_power_w"), engine=row.framework,
        tags=_tags(row, (*rule.tags, *(["speculative"] if told.speculative else [])), chip, card, dtypes=dtypes) | cut.tags,
        drafts=told.drafts, assumptions=assumptions,
    )
    return (case, *_beside(case, rule))


def _offered(row: Row, cut: plans.Cut, *, stack: str | None, year: float | None) -> tuple[plans.Cut, int | None, tuple[Assumption, ...]]:
    """The load as the client offered it: the plan with the engine's limit and the requests under way, those of the whole run, and
    what was assumed of them."""
    rule = client_of(row, stack=stack, year=year)
    if rule is None:
        return cut, _count(row, "num_prompts"), ()
    requests = rule.most * rule.waves
    plan = msgspec.structs.replace(cut.plan, max_sequences=max(1, math.ceil(rule.most / (cut.plan.attention_dp * (cut.replicas or 1)))))
    told = Assumption(field="concurrency", value=str(rule.most), code="assume.serve.client", values={"why": rule.why})
    return replace(cut, plan=plan, batch=float(min(rule.concurrency, requests))), requests, (told,)


@dataclass(frozen=True, kw_only=True)
class _Told:
    """What others say of a run whose row leaves it out."""

    layout: Layout | None
    speculative: bool
    drafts: int | None = None
    most: int | None = None
    assumptions: tuple[Assumption, ...] = ()


def _told(row: Row, rule: ServeRule, *, year: float | None, layout: Layout | None) -> _Told:
    """Workers and drafts: of the same measurement in a fuller export, else by the recipe of the benchmark, else guessed.

    Where recipes with and without drafts agree with everything that the row states, the rules of the source decide.
    """
    stated = workers_stated(row)
    missing = stated is False and not (layout is not None and layout.sure)
    guess = speculates(row, year=year, workers_missing=missing)
    found = recipes_of(row) if missing or (stated is None and rule.node is not None and product(row.parallel) > rule.node) else ()
    if not found:
        return _Told(layout=layout, speculative=guess is not None, assumptions=_guessed(guess))
    recipe = chosen(found, speculative=guess is not None)
    readers = {one.prefill.workers for one in found if one.prefill is not None and one.speculative == recipe.speculative}
    layout = Layout(table=recipe.table, told_by="recipe", shown=recipe.shown, readers_sure=len(readers) == 1)
    sure = all(one.speculative == recipe.speculative for one in found)
    return _Told(
        layout=layout, speculative=recipe.speculative, drafts=recipe.drafts if recipe.speculative else None, most=recipe.most,
        assumptions=() if sure else _guessed(guess),
    )


def _guessed(guess: Speculative | None) -> tuple[Assumption, ...]:
    if guess is None:
        return ()
    return (Assumption(field="speculative", value="mtp", code="assume.serve.speculative", values={"why": guess.why}),)


def _beside(case: ServeCase, rule: ServeRule) -> tuple[ServeCase, ...]:
    """The questions that the figures beside the metric put."""
    made = []
    for quantity, value in (("ttft", case.ttft_s), ("tpot", case.tpot_s)):
        if value is None or case.quantity == quantity or "hosted" in case.tags:
            continue
        alone = quantity == "ttft" and rule.ttft_of == "one"
        made.append(
            msgspec.structs.replace(
                case, metric=quantity, unit="s", measured=value, conversion=Conversion(kind="direct", factor=1.0), quantity=quantity,
                statistic=rule.statistic, batch=float(case.replicas or 1) if alone else case.batch,
            )
        )
    return tuple(made)


def _counted_batch(row: Row, cut: plans.Cut, prompt: float) -> float | None:
    """Sequences over all replicas; of a pass over prompts whose number the row leaves out, those that its tokens a chip hold."""
    if cut.batch is not None:
        return cut.batch
    found = re.search(r"(\d+)\s*k? tokens per gpu|max_prefill_tokens (\d+)", f"{row.extra.get('cfg') or ''} {row.note}", re.IGNORECASE)
    if found is None or not re.search("prefill", row.metric):
        return None
    tokens = float(found[1]) * 1024 if found[1] else float(found[2])
    ranks = cut.chips if found[1] else cut.plan.attention_dp * cut.replicas
    return max(1.0, tokens / prompt) * ranks


def _device(card: Chip, parts: int) -> Chip:
    """What a rank runs on: one of ``parts`` devices of a card."""
    return chips_of.die_of(msgspec.structs.replace(card, devices_per_card=parts)) if parts > 1 else card


def _cluster(chip: Chip, cut: plans.Cut) -> Cluster:
    """The devices on nodes of the chip's usual size; on smaller ones where they fill no whole number of these."""
    try:
        return cluster_of(chip, cut.chips)
    except BadValue:
        size = max((n for n in range(1, NODE + 1) if cut.chips % n == 0), key=lambda n: (n % cut.plan.chips == 0, n))
        return cluster_of(chip, cut.chips, per_node=size)


def _weight(row: Row, assumptions: Sequence[Assumption]) -> float:
    weight = TRUST[row.confidence]
    for code in {assumption.code for assumption in assumptions} & set(DOUBT):
        weight *= DOUBT[code]
    return weight


def _tags(row: Row, given: Sequence[str], chip: Chip, card: Chip, *, dtypes: quant.Dtypes) -> frozenset[str]:
    tags = set(given)
    words = f"{row.framework or ''} {row.phase or ''} {row.source}".lower()
    for tag, pattern in (
        ("compile", r"torch\.compile|hpu graphs"), ("multimodal", r"image-chat|video-chat"), ("speculative", r"\bmtp\b|eagle|speculative"),
    ):
        if re.search(pattern, words):
            tags.add(tag)
    if dtypes.wide_attention:
        tags.add("wide-attention")
    if row.number("system_power_w") is not None:
        tags.add("system-power")
    if chip.id != card.id:
        tags.add("dies")
    if "+" in card.id:
        tags.add("variant")
    return frozenset(tags)


def _first(row: Row, *keys: str) -> float | None:
    return next((value for key in keys if (value := row.number(key)) is not None), None)


def _count(row: Row, key: str) -> int | None:
    value = row.number(key)
    return int(value) if value is not None and value == int(value) else None
