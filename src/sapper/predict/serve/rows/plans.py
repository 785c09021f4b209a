"""The plan of an inference row: how one replica is cut, how many there are, and what of it the row does not say."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from sapper.chips.schema import Chip
from sapper.predict.rows.case import Assumption
from sapper.predict.rows.row import Row, RowFault
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.rows.case import Mode, PrefillPool
from sapper.predict.serve.rows.exports import divided
from sapper.predict.serve.rows.quant import Dtypes
from sapper.predict.serve.rows.rules import ServeRule, parts_of, stated_chips
from sapper.predict.serve.rows.twins import PAIR, Layout, chips_of, product, with_layout, workers_stated
from sapper.workloads.model import Model

BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 0.53, "fp4": 0.56}
"""Bytes of a weight with its scales, for placing a model by capacity alone (fp4: one 8-bit scale for 16 weights)."""
FILLED = 0.75
"""Share of the memory that weights may take where the row does not say on how many chips a replica lies."""
DEGREES = frozenset({"tp", "pp", "attention_dp", "ep"})
WIDE = 8
"""Workers of more chips run their attention data-parallel: all of those that the complete export of InferenceX describes do."""

TOLD_BY = {"twin": "assume.serve.twin", "recipe": "assume.serve.recipe", "neighbour": "assume.serve.neighbour"}
"""Code of the assumption by where workers come from."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How the measurement's chips were used."""

    plan: ServePlan
    replicas: int
    chips: int
    """Devices that hold replicas: in a disaggregated measurement those of the decode workers."""
    parts: int = 1
    """Devices on a card of the catalogue."""
    batch: float | None
    unknown: frozenset[str] = frozenset()
    prefill: PrefillPool | None = None
    tags: frozenset[str] = frozenset()
    assumptions: tuple[Assumption, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ask:
    """What a plan is made from."""

    row: Row
    rule: ServeRule
    mode: Mode
    model: Model
    chip: Chip
    dtypes: Dtypes
    degrees: dict[str, int] = field(default_factory=dict)
    most: int | None = None
    """Requests that may decode together on one attention rank, where the recipe of the run states it."""
    batched_tokens: int | None = None
    """Tokens of one iteration, where the recipe of the engine states it."""


def cut_of(ask: Ask, layout: Layout | None = None) -> Cut:
    """The plan that agrees with everything the row states.

    Args:
        ask: The question.
        layout: Workers that stand for those that the row leaves out.

    Raises:
        RowFault: Degrees that do not multiply to the chips, or chips that neither the row nor the model's size gives.
    """
    degrees = {name: value for name, value in ask.row.parallel.items() if value > 0 and name in ("tp", "pp", "dp", "ep")}
    ask = replace(ask, degrees=degrees)
    if isinstance(ask.row.extra.get("disagg"), dict) or (layout is not None and layout.told_by == "recipe"):
        return _disaggregated(ask, layout)
    if ask.rule.export == "product":
        tp, dp, ep = divided(**{name: degrees.get(name, 1) for name in ("tp", "dp", "ep")})
        ask = replace(ask, degrees=degrees | {"tp": tp, "dp": dp, "ep": ep})
    chips = product(ask.degrees)
    if ask.rule.node is not None and chips > ask.rule.node:
        return _unsplit(ask, chips)
    return _stated(ask) if "tp" in ask.degrees or "dp" in ask.degrees else _open(ask)


def _stated(ask: Ask) -> Cut:
    """One kind of worker whose degrees the row states."""
    degrees = ask.degrees
    tp, pp, dp = (degrees.get(name, 1) for name in ("tp", "pp", "dp"))
    devices = _devices(ask, tp * pp * dp)
    if ask.rule.split == "layers":
        tp, pp = 1, pp * tp
    inside = _routed(ask.model) and (ask.rule.dp == "attention" or degrees.get("ep", 1) > tp)
    if inside and "dp" not in degrees and degrees.get("ep", 1) > tp:
        dp = degrees["ep"] // tp  # experts over all chips and attention over tp of them: the rest is data-parallel
    attention_dp = dp if inside else 1
    plan = _plan(ask, tp=tp, pp=pp, attention_dp=attention_dp, ep=degrees.get("ep", 1))
    replicas = devices // plan.chips
    stated = stated_chips(ask.row)
    assumptions = () if devices == stated else _differs(ask, devices)
    parts = devices // stated if stated and devices > stated and ask.rule.export is None else parts_of(ask.chip)
    return _with_batch(ask, Cut(plan=plan, replicas=replicas, chips=devices, batch=None, assumptions=assumptions, parts=parts))


def _routed(model: Model) -> bool:
    return any("moe" in kind for kind in model.layer_types)


def _devices(ask: Ask, product: int) -> int:
    """Devices that the degrees fill: the row's chips, or the dies on them."""
    stated, parts = stated_chips(ask.row), parts_of(ask.chip)
    if stated is None or ask.rule.export == "product" or product == stated:
        return product
    if product % stated == 0 and parts % (product // stated) == 0:
        return product  # ranks are dies, or groups of them
    if stated % product == 0 and "dp" not in ask.degrees:
        return stated  # whole replicas that the row does not count
    equation = " * ".join(f"{name} {ask.degrees.get(name, 1)}" for name in ("tp", "pp", "dp"))
    raise RowFault("SP-ROW-018", "parallel", equation=equation, product=product, chips=stated)


def _differs(ask: Ask, devices: int) -> tuple[Assumption, ...]:
    stated = stated_chips(ask.row)
    if stated is None:
        return ()
    if devices % stated == 0 and ask.rule.export is None:
        values = {"chips": stated, "parts": devices // stated}
        return (Assumption(field="n_chips", value=str(devices), code="assume.dies", values=values),)
    return (Assumption(field="n_chips", value=str(devices), code="assume.serve.product", values={"stated": stated}),)


def _plan(ask: Ask, *, tp: int, pp: int, attention_dp: int, ep: int) -> ServePlan:
    """A legal plan: experts go over all ranks or stay cut like dense layers."""
    ranks = tp * attention_dp
    whole = ep if _routed(ask.model) and ranks % ep == 0 else 1
    if _routed(ask.model) and ep > ranks:
        whole = ranks
    plan = ServePlan(tp=tp, pp=pp, attention_dp=attention_dp, ep=whole)
    return plan if ask.batched_tokens is None else msgspec.structs.replace(plan, max_batched_tokens=ask.batched_tokens)


def _with_batch(ask: Ask, cut: Cut) -> Cut:
    """``cut`` with the batch over all replicas, and the engine's limit of sequences that follows from it."""
    if ask.rule.batch_is == "chunk":
        return _one_by_one(ask, cut)
    batch = ask.row.number("concurrency")
    if batch is None and ask.row.batch is not None and ask.mode not in ("saturated", "server"):
        per_rank = ask.rule.dp == "attention" and ask.mode == "closed"
        times = cut.chips if ask.rule.batch_per == "chip" else cut.plan.attention_dp if per_rank else 1
        batch = ask.row.batch * times
    most, unknown = _sequences(ask, cut, batch)
    return replace(cut, batch=batch, plan=msgspec.structs.replace(cut.plan, max_sequences=most), unknown=cut.unknown | unknown)


def _one_by_one(ask: Ask, cut: Cut) -> Cut:
    """One sequence, whose prompt is read in passes of the row's batch."""
    tokens = max(1, round(ask.row.batch)) if ask.row.batch is not None else cut.plan.max_batched_tokens
    return replace(cut, batch=1.0, plan=msgspec.structs.replace(cut.plan, max_sequences=1, max_batched_tokens=tokens))


def _sequences(ask: Ask, cut: Cut, batch: float | None) -> tuple[int, frozenset[str]]:
    """Requests that may decode together on a rank; where the engine chose, its usual limit, as unknown."""
    stated = ask.row.extra.get("max_num_seqs")
    ranks = cut.plan.attention_dp
    if ask.most is not None:
        return ask.most, frozenset()
    if isinstance(stated, int) and not isinstance(stated, bool) and stated > 0:
        return max(1, math.ceil(stated / ranks)), frozenset()
    if batch is not None:
        most = max(1, math.ceil(batch / (ranks * cut.replicas)))
        # An engine of continuous batching may let fewer decode at a time, and the others wait.
        return most, frozenset() if ask.mode == "static" else frozenset({"max_sequences"})
    return 1024, frozenset({"max_sequences"})


def _open(ask: Ask) -> Cut:
    """A start for a row that names no degree: the fewest chips that hold the model, or all where the source's rule says so."""
    stated = stated_chips(ask.row)
    needed = _needed(ask)
    if stated is None:
        return _by_capacity(ask, needed)
    if ask.rule.plan == "all" or stated == 1:
        plan, unknown = _plan(ask, tp=stated, pp=1, attention_dp=1, ep=1), frozenset[str]()
    elif ask.rule.dp == "attention" and _routed(ask.model) and ask.rule.batch_per == "chip":
        plan, unknown = _plan(ask, tp=1, pp=1, attention_dp=stated, ep=stated), DEGREES | {"replicas"}
    else:
        tp = next(d for d in range(1, stated + 1) if stated % d == 0 and (d >= needed or d == stated) and _cuts(ask.model, d))
        plan, unknown = _plan(ask, tp=tp, pp=1, attention_dp=1, ep=1), DEGREES | {"replicas"}
    assumed = Assumption(field="plan", value=_shown(plan), code="assume.serve.plan", values={"chips": stated})
    cut = Cut(
        plan=plan, replicas=stated // plan.chips, chips=stated, batch=None, unknown=unknown, assumptions=(assumed,) * (stated > 1),
        parts=parts_of(ask.chip),
    )
    return _with_batch(ask, cut)


def _cuts(model: Model, tp: int) -> bool:
    """Whether ``tp`` divides the query heads, or is all that is left."""
    return model.heads == 0 or model.heads % tp == 0 or tp > model.heads


def _needed(ask: Ask) -> int:
    """Fewest chips whose memory holds the weights.

    Raises:
        RowFault: The catalogue does not know the chip's memory.
    """
    capacity = ask.chip.memory.usable_bytes or ask.chip.memory.capacity_bytes
    if capacity is None or not capacity.number:
        raise RowFault("SP-ROW-001", "n_chips")
    return math.ceil(ask.model.params * BYTES[ask.dtypes.weights] / (FILLED * capacity.number))


def _by_capacity(ask: Ask, needed: int) -> Cut:
    """A hosted service: as many chips as hold the model, in stages of layers (the machines that hide their number pipeline)."""
    stages = min(needed, ask.model.layers) if needed > WIDE else 1
    plan = _plan(ask, tp=math.ceil(needed / stages), pp=stages, attention_dp=1, ep=1)
    values: dict[str, Any] = {"params": f"{ask.model.params / 1e9:.3g}", "dtype": ask.dtypes.weights}
    assumed = Assumption(field="n_chips", value=str(plan.chips), code="assume.serve.capacity", values=values)
    unknown = DEGREES | {"replicas"}
    return _with_batch(ask, Cut(plan=plan, replicas=1, chips=plan.chips, batch=None, unknown=unknown, assumptions=(assumed,)))


def _shown(plan: ServePlan) -> str:
    return f"tp {plan.tp}, pp {plan.pp}, attention dp {plan.attention_dp}, ep {plan.ep}"


# ---- prompts and generation on separate workers -------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Pool:
    plan: ServePlan
    workers: int | None
    unknown: frozenset[str]
    batch: float | None


def _disaggregated(ask: Ask, layout: Layout | None) -> Cut:
    if layout is not None:
        cut = _disaggregated(replace(ask, row=with_layout(ask.row, layout)), None)
        assumed = Assumption(field="parallel" if layout.sure else "replicas", value=layout.shown, code=TOLD_BY[layout.told_by])
        if cut.prefill is not None and not layout.readers_sure:
            cut = replace(cut, prefill=msgspec.structs.replace(cut.prefill, unknown=frozenset({"workers"})))
        if layout.sure or cut.prefill is None:
            return replace(cut, assumptions=(assumed,))
        reading = msgspec.structs.replace(cut.prefill, unknown=DEGREES | {"workers"})
        return replace(cut, unknown=cut.unknown | DEGREES | {"replicas"}, prefill=reading, assumptions=(assumed,))
    sizes = {chips_of(ask.row, which) for which in PAIR}
    whole = next(iter(sizes)) if len(sizes) == 1 else None
    if workers_stated(ask.row) is False and whole is not None and whole & (whole - 1):
        return _unsplit(ask, whole)  # no worker has 20, 36 or 72 chips: the export put the whole job in both places
    prefill, decode = _pool(ask, "prefill"), _pool(ask, "decode")
    workers, unknown = decode.workers, decode.unknown
    assumptions: tuple[Assumption, ...] = ()
    if workers is None:
        workers = _usual_workers(decode.plan)
        unknown |= {"replicas"}
        values = {"chips": decode.plan.chips}
        assumptions = (
            Assumption(field="replicas", value=str(workers), code="assume.serve.workers", values=values),
            Assumption(field="plan", value=_shown(decode.plan), code="assume.serve.ranks", values=values),
        )
    cut = Cut(
        plan=decode.plan, replicas=workers, chips=workers * decode.plan.chips, batch=None, unknown=unknown, assumptions=assumptions,
        prefill=PrefillPool(plan=prefill.plan, workers=prefill.workers, unknown=prefill.unknown),
    )
    if decode.batch is not None and ask.row.number("concurrency") is None:
        batch = decode.batch * decode.plan.attention_dp * workers
        return replace(cut, batch=batch, plan=msgspec.structs.replace(cut.plan, max_sequences=math.ceil(decode.batch)))
    return _with_batch(ask, cut)


def _pool(ask: Ask, which: str) -> _Pool:
    """One kind of worker of a disaggregated row.

    An export without the number of workers leaves out whether their attention is data-parallel as well: only their chips are
    known, ``tp_size * attention_dp_size``.
    """
    table = ask.row.extra["disagg"]
    size = {name: _whole(table.get(f"{which}_{name}")) for name in (
        "num_workers", "batch_size", "tp_size", "pp_size", "attention_dp_size", "moe_ep_size")}
    tp, pp, dp = (size[name] or 1 for name in ("tp_size", "pp_size", "attention_dp_size"))
    workers, batch = size["num_workers"], size["batch_size"]
    if workers is not None:
        plan = _plan(ask, tp=tp, pp=pp, attention_dp=dp, ep=size["moe_ep_size"] or 1)
        return _Pool(plan=plan, workers=workers, unknown=frozenset(), batch=batch)
    chips, unknown = tp * dp, DEGREES - {"pp"}
    if chips < (least := _needed(ask)):
        chips, unknown = 2 ** math.ceil(math.log2(least)), DEGREES
    parallel = _routed(ask.model) and (chips > WIDE or which == "prefill")
    plan = _plan(ask, tp=1 if parallel else chips, pp=1, attention_dp=chips if parallel else 1, ep=chips)
    return _Pool(plan=plan, workers=None, unknown=unknown, batch=None)


def _usual_workers(plan: ServePlan) -> int:
    """Decode workers where an export leaves them out: medians of the complete export of the same benchmark by worker size."""
    return 4 if plan.chips <= WIDE else 1


def _unsplit(ask: Ask, chips: int) -> Cut:
    """More chips than a node of an aggregated server: prefill and decode workers whose split the export leaves out."""
    size = WIDE // 2 if chips % WIDE else WIDE
    decode = chips - size
    worker = WIDE if decode % WIDE == 0 else size if decode % size == 0 else decode
    plan = _plan(ask, tp=worker, pp=1, attention_dp=1, ep=worker)
    ranks = size if _routed(ask.model) else 1
    reading = _plan(ask, tp=size // ranks, pp=1, attention_dp=ranks, ep=ranks)
    pool = PrefillPool(plan=reading, workers=1, unknown=DEGREES | {"workers"})
    assumed = Assumption(field="plan", value=_shown(plan), code="assume.serve.unsplit", values={"chips": chips, "node": ask.rule.node})
    cut = Cut(
        plan=plan, replicas=decode // worker, chips=decode, batch=None, unknown=DEGREES | {"replicas"}, prefill=pool,
        tags=frozenset({"unsplit"}), assumptions=(assumed,),
    )
    return _with_batch(ask, cut)


def _whole(value: Any) -> int | None:
    """A positive whole number, also where the table holds it as text; None where it is absent or zero."""
    text = str(value).strip() if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    return int(text) if text.isdecimal() and int(text) > 0 else None
