"""Ask: from a serving case to bundles, the plan chosen where the row leaves it open."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from sapper.clusters.cluster import Group
from sapper.predict.arrays import Floats
from sapper.predict.collectives import no_fabric
from sapper.predict.device import need
from sapper.predict.engine import fabric_for, the_group
from sapper.predict.serve import load
from sapper.predict.serve.memory import serve_memory
from sapper.predict.serve.parts import parts_of
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.rates import Rates, rates_of
from sapper.predict.serve.rows.case import ServeCase
from sapper.predict.serve.separate import Separate, disaggregated
from sapper.predict.serve.stacks import usual_stack
from sapper.predict.serve.step import ServeMemory
from sapper.predict.serve.subject import ServeSubject, factors_of, serve_book, subject_of
from sapper.predict.serve.terms import Iteration, iteration
from sapper.predict.serve.whole import forward_terms

DEGREES = (1, 2, 4, 8, 16, 32, 64)
MEASURED_UTILISATION = 0.95
"""Share of a chip's memory that whoever publishes a figure gives to the engine: tuned, unlike the default."""
DRAFTS = 2
"""Tokens that a multi-token prediction head drafts in speculative runs whose recipe nobody states."""
HOLDS = 0.7
"""Share of drafts that hold, each given the one before it: 0.85 of the first ones in text (DeepSeek-V3, arXiv:2412.19437,
section 5.4.3), fewer of the next ones and after the random prompts of a benchmark."""
SEQUENCES = (16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0)
"""Batches that a saturated engine is tried at."""


@dataclass(frozen=True)
class Asked:
    """A case priced: what of it does not depend on the fit."""

    subject: ServeSubject
    bundles: Floats
    """3 x K: own, queue, burst."""
    measured_s: float
    rate: float = 0.0
    """Where the question is a rate: what it is divided by the time; 0: the time itself."""

    watts: float = 0.0
    """Where the question is an energy: TDP of all chips, times the time that a token takes of them; 0 elsewhere."""

    def si_of(self, seconds: float, draw: float = 1.0) -> float:
        """The case's quantity from the time, and for energies the share of TDP that is drawn."""
        if self.watts:
            return seconds * self.watts * draw
        return self.rate / seconds if self.rate else seconds


@dataclass(frozen=True)
class _Replica:
    """One replica priced for a case."""

    iteration: Iteration
    memory: ServeMemory
    plan: ServePlan


def ask(case: ServeCase) -> Asked:
    """Price a case.

    Raises:
        SapperError: A number that the question needs is unknown, or the model does not generate.
    """
    group = the_group(case.cluster)
    rates = rates_of(group.chip, case.job)
    parts = parts_of(case.job.model) if case.quantity != "forward" else None
    subject = subject_of(case.job, parts, rates, stack=case.job.stack or usual_stack(group.chip), version=release(case), source=case.family)
    subject = replace(subject, chip=case.chip_id, speculative="speculative" in case.tags, separate=case.prefill is not None)
    if parts is None:
        return Asked(subject=subject, bundles=_alone(_forward(case, rates)), measured_s=case.measured_si)
    factor = factors_of(serve_book().eta_of_prior(subject))[:, 0]
    best: tuple[float, Asked] | None = None
    for plan, replicas in plans(case, experts=int(parts.linears.groups[parts.linears.expert].max(initial=0.0))):
        replica = _replica(case, group, rates, plan=plan)
        if "speculative" in case.tags:
            replica = replace(replica, iteration=_drafting(replica.iteration, case.drafts or DRAFTS))
        asked = _bundles(case, replica, factor, replicas=replicas, subject=subject)
        cost = float(factor @ asked.bundles.sum(axis=0)) * (1e3 if replica.memory.cache_bytes <= 0 else 1.0)
        if best is None or cost < best[0]:
            best = cost, asked
    assert best is not None
    return best[1]


def _drafting(iteration: Iteration, drafts: int) -> Iteration:
    """An iteration that checks ``drafts`` tokens of each sequence: the first that fails ends those that hold."""
    return replace(iteration, drafts=float(drafts), accepted=(1.0 - HOLDS ** (drafts + 1)) / (1.0 - HOLDS))


_REPLICAS: dict[tuple[object, ...], _Replica] = {}
"""By job, chip, domain and plan: tables of measurements ask thousands of questions of one replica."""


def _replica(case: ServeCase, group: Group, rates: Rates, *, plan: ServePlan) -> _Replica:
    if plan.chips > group.chips:  # prefill workers may be larger than all decode workers together
        up = group.scale_up
        up = up and msgspec.structs.replace(up, domain_size=max(up.domain_size or 1, min(plan.chips, group.chips_per_node)))
        group = msgspec.structs.replace(group, nodes=-(-plan.chips // group.chips_per_node), scale_up=up)
    if plan.chips <= group.chips_per_node:
        group = msgspec.structs.replace(group, nodes=1)
    domain = group.scale_up.domain_size if group.scale_up else None
    job = replace(case.job, stack=None, stack_year=None)  # who runs it changes the constants, not the terms
    key = (job, id(group.chip), group.nodes, group.chips_per_node, domain, plan, case.memory_share, case.free_share)
    if key not in _REPLICAS:
        parts = parts_of(case.job.model)
        fabric = fabric_for(group) if plan.chips > 1 else no_fabric()
        memory = serve_memory(case.job, parts, rates, plan=plan)
        memory = _measured_memory(case, replace(memory, capacity_bytes=(case.memory_share or MEASURED_UTILISATION) * rates.capacity_bytes))
        _REPLICAS[key] = _Replica(iteration=iteration(case.job, parts, rates, plan=plan, fabric=fabric), memory=memory, plan=plan)
    return _REPLICAS[key]


def _measured_memory(case: ServeCase, memory: ServeMemory) -> ServeMemory:
    """``memory`` less what the recipe of the measurement keeps free beside the weights."""
    held_back = (1.0 - (case.free_share or 1.0)) * max(memory.cache_bytes, 0.0)
    return replace(memory, capacity_bytes=memory.capacity_bytes - held_back)


def _forward(case: ServeCase, rates: Rates) -> Floats:
    """One pass over the batch; a model that generates answers with the logits of its last token alone."""
    length = None if case.job.model.fixed_seq_len else round(case.input_len)
    workload = case.job.model.workload(length, purpose="prefill", dtype=case.job.dtype)
    return forward_terms(workload, case.job, rates, batch=case.batch or 1.0)


def release(case: ServeCase) -> str:
    """Engine and release, as a level of the effects; empty where no release is named."""
    words = (case.engine or "").split()
    return "-".join(words[1:]) if len(words) > 1 else ""


def plans(case: ServeCase, *, experts: int) -> list[tuple[ServePlan, float]]:
    """Plans that agree with what the row states, each with its number of replicas."""
    chips = case.cluster.chips
    if not case.unknown & {"tp", "pp", "ep", "attention_dp", "replicas"}:
        return [(case.plan, float(case.replicas or 1))]
    found = []
    for tp, dp in itertools.product(DEGREES, DEGREES if "attention_dp" in case.unknown and experts else (case.plan.attention_dp,)):
        tp = tp if "tp" in case.unknown else case.plan.tp
        size = tp * dp * case.plan.pp
        if size > chips or ("replicas" not in case.unknown and case.replicas and size * case.replicas > chips):
            continue
        ep = (tp * dp if experts and dp > 1 else 1) if "ep" in case.unknown else case.plan.ep
        if (tp * dp) % ep or ep > max(experts, 1):
            continue
        replicas = float(chips // size) if "replicas" in case.unknown or not case.replicas else float(case.replicas)
        found.append((msgspec.structs.replace(case.plan, tp=tp, attention_dp=dp, ep=ep), replicas))
    return list(dict.fromkeys(found)) or [(case.plan, float(case.replicas or 1))]


def _bundles(case: ServeCase, replica: _Replica, factor: Floats, *, replicas: float, subject: ServeSubject) -> Asked:
    ranks = replicas * replica.plan.attention_dp
    lengths = {"input_len": case.input_len, "output_len": case.output_len}
    it, memory, plan = replica.iteration, replica.memory, replica.plan
    if case.quantity == "output_rate" or case.mode in ("saturated", "server"):
        return _rate(case, replica, factor, ranks=ranks, subject=subject)
    if case.prefill is not None:
        return _disaggregated(case, replica, factor, ranks=ranks, subject=subject)
    batch = (case.batch or 1.0) / ranks
    if case.quantity == "energy_per_token":
        found = load.closed(
            it, memory, factor, plan=plan, concurrency=batch, input_len=case.input_len, output_len=case.output_len, waves=_waves(case)
        )
        watts = tdp_of(case) / (ranks * case.output_len)
        return Asked(subject=subject, bundles=_alone(found.rate), measured_s=case.measured_si, watts=watts)
    if case.mode == "static":
        if case.quantity == "tpot":
            own = load.context_mean(it, sequences=batch, **lengths)
        elif case.quantity == "ttft":
            own = load.prompt_pass(it, tokens=case.input_len, requests=batch, most_tokens=plan.max_batched_tokens)
        else:
            own = load.static(it, memory, plan, batch=batch, **lengths)
        return Asked(subject=subject, bundles=_alone(own), measured_s=case.measured_si)
    found = load.closed(
        it, memory, factor, plan=plan, concurrency=batch, input_len=case.input_len, output_len=case.output_len, waves=_waves(case),
        admission=case.admission,
    )
    return _of_load(case, found, subject)


def tdp_of(case: ServeCase) -> float:
    """TDP of all chips in W.

    Raises:
        MissingFact: The catalogue has none.
    """
    chip = the_group(case.cluster).chip
    return float(need(chip, "tdp", chip.tdp_w).number or 0.0) * case.cluster.chips


def _waves(case: ServeCase) -> float:
    return max(case.requests / case.batch, 1.0) if case.requests and case.batch else load.BURST_WAVES


def _disaggregated(case: ServeCase, replica: _Replica, factor: Floats, *, ranks: float, subject: ServeSubject) -> Asked:
    pool = case.prefill
    assert pool is not None
    group = the_group(case.cluster)
    reader = _replica(case, group, rates_of(group.chip, case.job), plan=pool.plan)
    known = pool.workers is not None and "workers" not in pool.unknown
    readers = float((pool.workers or 1) * pool.plan.attention_dp) if known else None
    asked = Separate(
        decoder=replica.iteration, reader=reader.iteration, plan=pool.plan, ranks=ranks, readers=readers,
        most=None if "max_sequences" in case.unknown else float(case.plan.max_sequences), input_len=case.input_len,
        output_len=case.output_len,
    )
    found = disaggregated(asked, factor, concurrency=case.batch or 1.0, waves=_waves(case))
    return _of_load(case, found, subject)


def _of_load(case: ServeCase, found: load.Load, subject: ServeSubject) -> Asked:
    bundles = np.stack([found.ttft, found.queue, found.burst])
    if case.quantity == "tpot":
        bundles = _alone(found.tpot)
    elif case.quantity == "e2e":
        bundles[0] += (case.output_len - 1.0) * found.tpot
    return Asked(subject=subject, bundles=bundles, measured_s=case.measured_si)


def _alone(own: Floats) -> Floats:
    """Bundles without queueing."""
    return np.stack([own, np.zeros_like(own), np.zeros_like(own)])


def _rate(case: ServeCase, replica: _Replica, factor: Floats, *, ranks: float, subject: ServeSubject) -> Asked:
    """Tokens per second of all ranks; the batch is the best that the latency limits allow."""
    found: list[load.Load] = []
    for limit in SEQUENCES:
        one = load.saturated(
            replica.iteration, replica.memory, replica.plan, input_len=case.input_len, output_len=case.output_len, limit=limit
        )
        if case.tpot_limit_s is None or float(factor @ one.tpot) <= case.tpot_limit_s or not found:
            found.append(one)
        if one.sequences < limit:
            break
    best = min(found, key=lambda one: float(factor @ one.rate))
    rate = case.output_len * ranks
    return Asked(subject=subject, bundles=_alone(best.rate), measured_s=rate / case.measured_si, rate=rate)
