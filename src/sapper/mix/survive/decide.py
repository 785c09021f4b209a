"""What the leader of a change decides from the reports of those who are left: plan, seats, step, and who gives what to whom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec.structs import replace

from sapper.mix.checkpoint.ledger import Ledger
from sapper.mix.plan import MixPlan, Stage, seats
from sapper.mix.survive.member import Held, Member, Move, Report, View
from sapper.mix.survive.replan import shrink


def decide(
    plan: MixPlan, members: Sequence[Member], reports: Mapping[int, Report], *, reason: str, saved: int | None = None,
    fits: Callable[[MixPlan], bool] | None = None,
) -> View | None:  # fmt: skip
    """The next membership; None: no plan on these chips.

    Args:
        plan: For all chips of the job, from which each plan for fewer is derived.
        members: Those who are left.
        reports: Of each of them.
        reason: Of the change, for the reader.
        saved: Steps in the newest whole checkpoint; None: there is none.
        fits: See :func:`~sapper.mix.survive.replan.shrink`.
    """
    supply: dict[str, int] = {}
    for one in members:
        supply[one.group] = supply.get(one.group, 0) + 1
    new = shrink(plan, supply, fits=fits)
    if new is None:
        return None
    held = {number: report.held for number, report in reports.items()}
    step = newest(held, plan=new)
    source = "members" if step is not None else "checkpoint" if saved is not None else "start"
    at = step if step is not None else saved or 0
    order = _seated(new, members, held, step=at)
    begun = max(report.begun for report in reports.values())
    return View(
        epoch=max(report.epoch for report in reports.values()) + 1,
        turns={number: report.turn for number, report in reports.items()},
        members=tuple(order), plan=new, step=at, source=source, reason=reason,
        moves=tuple(_moves(new, order, held, step=at)) if step is not None else (),
        scale=next((one.factors[at] for one in reports.values() if at in one.factors), None),
        ledger=ledger_at(at, [report.ledger for report in reports.values()], plan=new, begun=begun, reason=reason),
    )  # fmt: skip


def newest(held: Mapping[int, Sequence[Held]], *, plan: MixPlan) -> int | None:
    """The latest step whose state of all that ``plan`` needs is in somebody's memory; None: there is none."""
    every = [one for found in held.values() for one in found]
    parts = {(plan.pipelines[seat.pipeline].stages[seat.stage], seat.shard) for seat in seats(plan)}
    for step in sorted({one.step for one in every}, reverse=True):
        wanted = (
            Held(step=step, first=layer, last=layer + 1, tp=stage.tp, shard=shard) for stage, shard in parts for layer in stage.layers
        )
        if all(_one_piece(every, one) for one in wanted):
            return step
    return None


def _seated(plan: MixPlan, members: Sequence[Member], held: Mapping[int, Sequence[Held]], *, step: int) -> list[Member]:
    """Members by rank, each where it has most of the layers already; then the spare ones."""
    taken = seats(plan)
    parts = [plan.pipelines[seat.pipeline].stages[seat.stage] for seat in taken]
    order: list[Member | None] = [None] * len(taken)
    pairs = [
        (-_own(part, seat.shard, held.get(member.number, ()), step=step), member.number, seat.rank, member)
        for seat, part in zip(taken, parts, strict=True)
        for member in members
        if member.group == seat.group
    ]
    placed: set[int] = set()
    for _, number, rank, member in sorted(pairs, key=lambda pair: pair[:3]):
        if number not in placed and order[rank] is None:
            order[rank] = member
            placed.add(number)
    assert all(one is not None for one in order), "a plan for no more chips than there are"
    return [one for one in order if one is not None] + [one for one in members if one.number not in placed]


def _own(stage: Stage, shard: int, held: Sequence[Held], *, step: int) -> int:
    """Layers of a seat that a member has already."""
    there = [one for one in held if (one.step, one.tp, one.shard) == (step, stage.tp, shard)]
    return sum(any(one.first <= layer < one.last for one in there) for layer in stage.layers)


def _moves(plan: MixPlan, order: Sequence[Member], held: Mapping[int, Sequence[Held]], *, step: int) -> list[Move]:
    """Who gives which layers to whom; what a member has itself is a move from itself."""
    busy: dict[int, int] = {}
    found: list[Move] = []
    for seat in seats(plan):
        stage, target = plan.pipelines[seat.pipeline].stages[seat.stage], order[seat.rank].number
        wanted = Held(step=step, first=stage.first, last=stage.last, tp=stage.tp, shard=seat.shard)
        runs: list[Move] = []
        for layer in stage.layers:
            one = replace(wanted, first=layer, last=layer + 1)
            sources = [number for number, have in held.items() if any(_holds(there, one) for there in have)]
            # Its own first, then on with the giver of the layer before, then whoever gives least.
            last = runs[-1].source if runs else -1
            source = min(sources, key=lambda number: (number != target, number != last, busy.get(number, 0), number))
            if runs and source == last and _one_piece(held[source], replace(runs[-1].held, last=layer + 1)):
                runs[-1] = replace(runs[-1], held=replace(runs[-1].held, last=layer + 1))
            else:
                runs.append(Move(source=source, target=target, held=one))
            busy[source] = busy.get(source, 0) + (source != target)
        found += runs
    return found


def _holds(have: Held, wanted: Held) -> bool:
    same = (have.step, have.tp, have.shard) == (wanted.step, wanted.tp, wanted.shard)
    return same and have.first <= wanted.first and wanted.last <= have.last


def _one_piece(held: Sequence[Held], wanted: Held) -> bool:
    return any(_holds(one, wanted) for one in held)


def ledger_at(step: int, ledgers: Sequence[Ledger], *, plan: MixPlan, begun: int, reason: str) -> Ledger:
    """The ledger of the state after ``step`` steps, with what was begun beyond it as undone."""
    found = max(ledgers, key=lambda one: (one.step, len(one.undone))).copy()
    if found.step < step:  # whoever entered the last step is gone, its state is not
        end = found.runs[-1] if found.runs else None
        found.applied(step - 1, batch=plan.global_batch, plan=end.plan if end else plan.digest, epoch=end.epoch if end else 0)
    found.undo(step, begun=begun, batch=plan.global_batch, reason=reason)
    return found
