"""The account of a run: what each group did and where its time went, from the journals of its members, and as evidence."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import msgspec

from sapper.evidence import Record
from sapper.mix.plan import MixPlan

PARTS = ("compute_s", "wait_s", "send_s", "reduce_s", "update_s")
"""Of a step, as StepLog has them; what is left is the data, the bookkeeping and the checkpoints."""
WARM = 1
"""First steps that are not counted where there are more: they build caches and connections."""
SOURCE = "sapper mix run"


_Turn = tuple[int, int]
"""(membership, step): a step that is computed again in another membership is another one."""


class GroupAccount(msgspec.Struct, frozen=True, kw_only=True):
    """One group of the plan."""

    group: str
    members: int
    """At a time, of those that wrote their journals here."""
    tokens_per_s: float
    """Of the job, times the share of all passes of a sequence through a layer that the plan gives to the group."""
    parts_s: dict[str, float]
    """Part of :data:`PARTS` -> seconds of the median step of a member."""


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """A run, its first step left out."""

    steps: int
    step_s: float
    """Median over steps of the slowest member."""
    low_s: float
    high_s: float
    """First and third quartile."""
    tokens_per_s: float
    groups: tuple[GroupAccount, ...]


def account_of(folder: Path, plan: MixPlan) -> Account | None:
    """The account of the members that wrote their journals into ``folder``; None where no step was made by ``plan``.

    Steps between a change of members and the return to ``plan`` are left out: the plan that they followed is another.
    """
    told = [_journal(file) for file in sorted(folder.glob("member-*.jsonl"))]
    members = [(group, steps) for group, steps in told if group is not None and steps]
    if not members:
        return None
    made: dict[_Turn, list[dict[str, Any]]] = {}
    for _, steps in members:
        for turn, one in steps.items():
            made.setdefault(turn, []).append(one)
    counted = sorted(made)
    counted = counted[WARM:] or counted
    times_s = [max(one["step_s"] for one in made[turn]) for turn in counted]
    tokens = statistics.mean(made[turn][0]["tokens"] for turn in counted)
    step_s = statistics.median(times_s)
    low_s, _, high_s = statistics.quantiles(times_s, n=4) if len(times_s) > 1 else (step_s, step_s, step_s)
    shares = _shares(plan)
    groups = (
        _group(group, [steps for name, steps in members if name == group], counted, shares.get(group, 0.0) * tokens / step_s)
        for group in dict.fromkeys(name for name, _ in members)
    )
    return Account(
        steps=len(counted), step_s=step_s, low_s=low_s, high_s=high_s, tokens_per_s=tokens / step_s,
        groups=tuple(one for one in groups if one.members),
    )  # fmt: skip


def _journal(file: Path) -> tuple[str | None, dict[_Turn, dict[str, Any]]]:
    """(group, steps by the plan of the start) of one member; a line cut short by a kill ends it."""
    group: str | None = None
    steps: dict[_Turn, dict[str, Any]] = {}
    whole = {0}
    for line in file.read_bytes().splitlines():
        try:
            told = msgspec.json.decode(line)
        except msgspec.DecodeError:
            break
        if told["kind"] == "door":
            group = told["group"]
        elif told["kind"] == "change" and told["planned"] == "whole":
            whole.add(told["epoch"])
        elif told["kind"] == "step" and told["epoch"] in whole:
            steps[told["epoch"], told["step"]] = told
    return group, steps


def _group(group: str, members: list[dict[_Turn, dict[str, Any]]], counted: list[_Turn], tokens_per_s: float) -> GroupAccount:
    made = {turn: [steps[turn] for steps in members if turn in steps] for turn in counted}
    found = [one for steps in made.values() for one in steps]
    parts_s = {part: statistics.median(one[part] for one in found) for part in PARTS} if found else {}
    return GroupAccount(group=group, members=max(map(len, made.values())), tokens_per_s=tokens_per_s, parts_s=parts_s)


def _shares(plan: MixPlan) -> dict[str, float]:
    """Group -> its share of sequences times layers."""
    work: dict[str, float] = {}
    for pipeline in plan.pipelines:
        for stage in pipeline.stages:
            work[stage.group] = work.get(stage.group, 0.0) + pipeline.sequences * len(stage.layers)
    total = sum(work.values())
    return {group: one / total for group, one in work.items()}


def records_of(account: Account, plan: MixPlan, *, device: str, stack: str) -> Iterator[Record]:
    """The run as evidence: the time of a step, and the throughput of the job."""
    conditions = {
        "model": plan.model, "model_digest": plan.model_digest, "plan_digest": plan.digest, "seq_len": plan.seq_len,
        "global_batch": plan.global_batch, "steps": account.steps, "chips": plan.chips,
        "parts_s": {one.group: one.parts_s for one in account.groups},
    }  # fmt: skip
    at_most, at_least = (account.tokens_per_s * account.step_s / time_s for time_s in (account.low_s, account.high_s))
    values: tuple[tuple[str, float, float, float, str], ...] = (
        ("time", account.step_s, account.low_s, account.high_s, "s"),
        ("throughput", account.tokens_per_s, at_least, at_most, "tokens/s"),
    )
    for metric, value, low, high, unit in values:
        yield Record(
            kind="training-step", metric=metric, value=value, low=low, high=high, unit=unit, device=device, stack=stack,
            dtype=plan.precision, conditions=conditions, source=SOURCE, date=date.today().isoformat(), grade="measured-here",
        )  # fmt: skip
