"""What the leader of a change decides from the reports of those who are left: plan, seats, step, and who gives what to whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from sapper.mix.checkpoint.ledger import Ledger
from sapper.mix.plan import MixPlan, seats
from sapper.mix.survive.cover import givers, newest, part_of
from sapper.mix.survive.member import Held, Member, Move, Report, View
from sapper.mix.survive.planner import Planner


def decide(
    plan: MixPlan, members: Sequence[Member], reports: Mapping[int, Report], *, reason: str, saved: int | None = None,
    planner: Planner | None = None,
) -> View | None:  # fmt: skip
    """The next membership; None: no plan on these chips.

    Args:
        plan: For all chips of the job, from which each plan for fewer is derived.
        members: Those who are left.
        reports: Of each of them.
        reason: Of the change, for the reader.
        saved: Steps in the newest whole checkpoint; None: there is none.
        planner: Makes the plan; None: the rule does, without knowing of memory.
    """
    supply: dict[str, int] = {}
    for one in members:
        supply[one.group] = supply.get(one.group, 0) + 1
    new, how = (planner or Planner()).plan(plan, supply)
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
        members=tuple(order), plan=new, step=at, source=source, reason=reason, planned=how,
        moves=tuple(_moves(new, order, held, step=at)) if step is not None else (),
        scale=next((one.factors[at] for one in reports.values() if at in one.factors), None),
        ledger=ledger_at(at, [report.ledger for report in reports.values()], plan=new, begun=begun, reason=reason),
    )  # fmt: skip


def moved(view: View, plan: MixPlan, *, step: int, ledger: Ledger, reason: str) -> View:
    """The view that follows ``view`` when the same members take the same seats in ``plan``, whose stages have other layers.

    Every member makes it for itself, after the same step: all state is there, in its places by the plan before.

    Args:
        view: In force.
        plan: Its pipelines and stages have the members that they had.
        step: Steps that are in the weights.
        ledger: Of the same steps.
        reason: For the reader.
    """
    members = view.seated
    held = {one.number: (part_of(view.plan, rank, step=step),) for rank, one in enumerate(members)}
    return View(
        epoch=view.epoch + 1, turns=view.turns, members=view.members, plan=plan, step=step, reason=reason, planned="measured",
        moves=tuple(_moves(plan, members, held, step=step)), ledger=ledger, follows=True,
    )  # fmt: skip


def _seated(plan: MixPlan, members: Sequence[Member], held: Mapping[int, Sequence[Held]], *, step: int) -> list[Member]:
    """Members by rank, each where it has most of the layers already; then the spare ones."""
    taken = seats(plan)
    parts = [part_of(plan, seat.rank, step=step) for seat in taken]
    order: list[Member | None] = [None] * len(taken)
    pairs = [
        (-_own(part, held.get(member.number, ())), member.number, seat.rank, member)
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


def _own(part: Held, held: Sequence[Held]) -> int:
    """Layers of a seat that a member has already."""
    there = [one for one in held if (one.step, one.tp, one.shard) == (part.step, part.tp, part.shard)]
    return sum(any(one.first <= layer < one.last for one in there) for layer in range(part.first, part.last))


def _moves(plan: MixPlan, order: Sequence[Member], held: Mapping[int, Sequence[Held]], *, step: int) -> list[Move]:
    """Who gives which layers to whom; what a member has itself is a move from itself."""
    busy = dict.fromkeys(held, 0)
    found: list[Move] = []
    for seat in seats(plan):
        wanted, target = part_of(plan, seat.rank, step=step), order[seat.rank].number
        open_: dict[tuple[int, Held], Move] = {}
        for layer in range(wanted.first, wanted.last):
            # Its own first, then on with the givers of the layer before, then whoever gives least.
            before = sorted({number for number, _ in open_})
            others = sorted(held.keys() - {target, *before}, key=lambda number: (busy[number], number))
            chosen = givers(layer, wanted, held, prefer=[target, *before, *others])
            assert chosen is not None, "the step was chosen since all of it is there"
            going_on = {key: msgspec.structs.replace(open_[key], last=layer + 1) for key in chosen if key in open_}
            fresh = {
                key: Move(source=key[0], target=target, held=key[1], first=layer, last=layer + 1) for key in chosen if key not in open_
            }
            found += [move for key, move in open_.items() if key not in going_on]
            open_ = going_on | fresh
            for number, _ in fresh:
                busy[number] += number != target
        found += open_.values()
    return found


def ledger_at(step: int, ledgers: Sequence[Ledger], *, plan: MixPlan, begun: int, reason: str) -> Ledger:
    """The ledger of the state after ``step`` steps, with what was begun beyond it as undone."""
    found = max(ledgers, key=lambda one: (one.step, len(one.undone))).copy()
    if found.step < step:  # whoever entered the last step is gone, its state is not
        end = found.runs[-1] if found.runs else None
        found.applied(step - 1, batch=plan.global_batch, plan=end.plan if end else plan.digest, epoch=end.epoch if end else 0)
    found.undo(step, begun=begun, batch=plan.global_batch, reason=reason)
    return found
