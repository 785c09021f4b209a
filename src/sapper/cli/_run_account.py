"""What `sapper mix run` says when a run is over: the rate of each group, where its time went, and what the plan had promised."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sapper import units
from sapper.cli.output import Column, emit, talk

if TYPE_CHECKING:
    from sapper.mix.plan import MixPlan
    from sapper.mix.survive.account import Account


def tell(folder: Path, plan: MixPlan, *, device: str, store: str | None) -> None:
    """Print the account of the members of this host, and append it to ``store`` where one is given."""
    from sapper.mix.survive.account import account_of

    found = account_of(folder, plan)
    if found is None:
        return
    emit([_row(found, index) for index in range(len(found.groups))], _COLUMNS, fmt="table")
    talk("mix.run.account.step", step=units.duration(found.step_s), steps=found.steps, rate=f"{found.tokens_per_s:,.0f}")
    if plan.expected is not None:
        due = plan.expected.step_time
        talk(
            "mix.run.account.expected", mid=units.duration(due.mid), low=units.duration(due.low), high=units.duration(due.high),
            more=f"{100 * (found.step_s / due.mid - 1):+.0f}%",
        )  # fmt: skip
    if store is not None:
        _keep(found, plan, device=device, store=store)


def _keep(found: Account, plan: MixPlan, *, device: str, store: str) -> None:
    from importlib.metadata import version

    from sapper.evidence import Store
    from sapper.mix.survive.account import records_of

    records = list(records_of(found, plan, device=device, stack=f"torch {version('torch')}"))
    with Store.open(store) as opened:
        talk("mix.run.account.stored", added=opened.append(records).added, store=opened.place)


def _row(found: Account, index: int) -> dict[str, Any]:
    one = found.groups[index]
    known_s = sum(one.parts_s.values())
    shares = {part: time_s / found.step_s for part, time_s in one.parts_s.items()}
    return {
        "group": one.group, "members": one.members, "tokens_per_s": one.tokens_per_s, **shares,
        "other": max(0.0, 1.0 - known_s / found.step_s),
    }  # fmt: skip


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


_COLUMNS = [
    Column("group", "mix.run.account.column.group"),
    Column("members", "mix.run.account.column.members", "right"),
    Column("tokens_per_s", "mix.run.account.column.tokens_per_s", "right", lambda rate: f"{rate:,.0f}"),
    *(
        Column(part, f"mix.run.account.column.{part}", "right", _percent)
        for part in ("compute_s", "wait_s", "send_s", "reduce_s", "update_s", "other")
    ),
]
