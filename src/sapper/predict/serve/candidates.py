"""Candidates: the plans of one replica that a model and a chip allow, and those of them that hold the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import msgspec

from sapper.errors import BadPlan, BadValue, MissingFact, SapperError
from sapper.predict.serve.job import ServeJob
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.price import Priced, price_many
from sapper.predict.serve.target import Target
from sapper.workloads.model import Model

BATCHING = ((256, 8192), (1024, 8192), (256, 2048))
"""(requests that decode together, tokens of an iteration) that are tried: vLLM's defaults, more users, shorter pauses for prompts."""
LEAN = (16, 256)
"""The same for chips whose memory (SRAM) would otherwise go to the activations of one iteration."""
_DEGREES = (1, 2, 4, 8, 16, 32, 64)
LARGEST_GAIN = 4
"""A replica may have this many times the chips that hold the model; beyond it, more replicas serve better than larger ones."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """Plans that hold the model, priced; and what stands in the way where there are none."""

    engines: tuple[Priced, ...]
    looked_at: int
    refusal: SapperError | None


def parse_plan(text: str) -> ServePlan:
    """Read ``tp=8,pp=1,max_sequences=512``.

    Raises:
        BadPlan: A field that a plan does not have, or a value that is no positive number.
    """
    given: dict[str, int] = {}
    for item in filter(None, (piece.strip() for piece in text.split(","))):
        key, _, value = (piece.strip() for piece in item.partition("="))
        if key not in ServePlan.__struct_fields__:
            raise BadPlan("SP-SERVE-031", where="--plan", item=item, known=", ".join(ServePlan.__struct_fields__))
        if not value.isdigit() or not 1 <= int(value) <= 2**20:
            raise BadPlan("SP-SERVE-032", where="--plan", field=key, value=value)
        given[key] = int(value)
    return ServePlan(**given)


def degrees(model: Model, *, domain: int, most: int) -> list[ServePlan]:
    """Plans by degrees alone. Tensor parallelism stays in the scale-up domain and divides the query heads; attention ranks and
    expert parallelism are for mixtures of experts."""
    experts = max((block.experts for block in model.workload(model.fixed_seq_len or 1).blocks), default=0)
    found: list[ServePlan] = []
    for tp in _DEGREES:
        if tp > min(domain, most) or (model.heads and model.heads % tp):
            continue
        for ranks in _DEGREES if experts else (1,):
            for ep in {1, tp * ranks} if experts and experts % (tp * ranks) == 0 else {1}:
                if ranks > 1 and ep == 1 and tp > 1:
                    continue
                found += [
                    ServePlan(tp=tp, attention_dp=ranks, ep=ep, pp=pp)
                    for pp in _stages(model.layers)
                    if tp * ranks * pp <= most and (pp == 1 or ranks == 1)
                ]
    return found


def _stages(layers: int) -> list[int]:
    """Powers of two up to the layers, and one layer a stage."""
    return sorted({*(2**power for power in range(20) if 2**power <= layers), layers}) if layers > 1 else [1]


def holding(job: ServeJob, target: Target, *, tokens: float, plans: Iterable[ServePlan] | None = None) -> Held:
    """The plans that hold the model and at least one request of ``tokens``, priced; of pipelines only the shortest that do.

    Args:
        job: What is served.
        target: On what.
        tokens: Of the largest request.
        plans: These alone; None: all that the model and the chip allow.
    """
    stated = None if plans is None else list(plans)
    domain = _domain(target)
    tried = stated if stated is not None else degrees(job.model, domain=domain, most=target.most_chips)
    engines: list[Priced] = []
    refusal: SapperError | None = None
    short: Priced | None = None
    enough: dict[tuple[int, int, int], int] = {}
    """Pipelines already found to hold the model, by their other degrees: stages."""
    looked_at = 0
    for plan in sorted(tried, key=lambda one: one.chips):
        key = (plan.tp, plan.attention_dp, plan.ep)
        if stated is None and enough.get(key, plan.pp) * 2 < plan.pp:
            continue
        if engines and plan.chips > LARGEST_GAIN * engines[0].plan.chips and stated is None:
            break
        looked_at += 1
        if stated is not None and (misread := _dividing(plan, target.count)) is not None:
            refusal = refusal or misread
            continue
        try:
            settings = [plan] if stated is not None else [plan, _batching(plan, *LEAN)]
            priced = price_many(job, target.group_for(plan.chips), settings)
        except (MissingFact, BadValue, BadPlan) as error:
            refusal = refusal or error
            continue
        engine = next((one for one in priced if holds(one, tokens)), priced[-1])
        if not holds(engine, tokens):
            short = engine if short is None or engine.memory.cache_bytes > short.memory.cache_bytes else short
            continue
        enough.setdefault(key, plan.pp)
        engines.append(engine)
    if not engines and short is not None and (refusal is None or stated is not None):
        refusal = _too_small(short, tokens, looked_at)
    return Held(engines=tuple(engines), looked_at=looked_at, refusal=refusal)


def _dividing(plan: ServePlan, have: int | None) -> BadValue | None:
    """Set where a plan of too many chips fits when its attention ranks divide its tp, as they do in SGLang
    (``--enable-dp-attention``, docs.sglang.ai, "Server arguments"), instead of multiplying it, as vLLM's do."""
    if have is None or plan.chips <= have or plan.attention_dp == 1 or plan.tp % plan.attention_dp or plan.tp * plan.pp > have:
        return None
    meant = msgspec.structs.replace(plan, tp=plan.tp // plan.attention_dp)
    return BadValue(
        "SP-SERVE-039", where="--plan", need=plan.chips, have=have, tp=plan.tp, dp=plan.attention_dp, plan=describe(meant)
    )  # fmt: skip


def _domain(target: Target) -> int:
    """Chips of the scale-up domain, a server's cards on a PCIe tree among them; 1 where nobody states it."""
    up = target.group_for(min(target.most_chips, _DEGREES[-1])).scale_up
    return up.domain_size if up is not None and up.domain_size is not None else 1


def holds(engine: Priced, tokens: float) -> bool:
    """Whether the cache has room for a request of ``tokens``."""
    return request_bytes(engine, tokens) <= 0.98 * engine.memory.cache_bytes


def request_bytes(engine: Priced, tokens: float) -> float:
    """Cache of one request on the fullest chip."""
    each = sum(layer.token_bytes * min(tokens, layer.window or tokens) for layer in engine.times.layers)
    return each + engine.memory.sequence_bytes


def _batching(plan: ServePlan, sequences: int, tokens: int) -> ServePlan:
    return msgspec.structs.replace(plan, max_sequences=sequences, max_batched_tokens=tokens)


def with_batching(job: ServeJob, target: Target, held: Sequence[Priced], *, tokens: float) -> list[Priced]:
    """Each plan with each setting of :data:`BATCHING` under which it still holds a request."""
    found = []
    for engine in held:
        plans = dict.fromkeys([engine.plan, *(_batching(engine.plan, *setting) for setting in BATCHING)])
        priced = price_many(job, target.group_for(engine.plan.chips), list(plans))
        found += [one for one in priced if holds(one, tokens)]
    return found


def with_weights(job: ServeJob, weights: str) -> ServeJob:
    """``job`` with weights in another dtype. int4 is stored alone (AWQ, arXiv:2306.00978) and multiplies in the activations' dtype;
    the others multiply in their own, where the chip can."""
    return replace(job, weights_dtype=weights, compute_dtype=job.dtype if weights == "int4" else weights)


def _too_small(engine: Priced, tokens: float, looked_at: int) -> SapperError:
    from sapper import units

    memory = engine.memory
    need = memory.weights_bytes + memory.workspace_bytes + request_bytes(engine, tokens) / 0.98
    return BadPlan(
        "SP-SERVE-033",
        where="plan",
        plans=looked_at,
        plan=describe(engine.plan),
        need=units.gib(need),
        have=units.gib(memory.capacity_bytes),
        missing=units.gib(need - memory.capacity_bytes),
        weights=units.gib(memory.weights_bytes),
    )


def describe(plan: ServePlan) -> str:
    """A plan in the words of ``--plan``, without what is at its default."""
    default = ServePlan()
    named = [name for name in ServePlan.__struct_fields__ if name == "tp" or getattr(plan, name) != getattr(default, name)]
    return ",".join(f"{name}={getattr(plan, name)}" for name in named)
