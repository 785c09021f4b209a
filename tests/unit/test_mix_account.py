"""The account of a run, from the journals of its members."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from sapper.evidence.rules import check
from sapper.mix.plan import MixPlan, Pipeline, Stage
from sapper.mix.survive.account import account_of, records_of


def a_plan() -> MixPlan:
    def one(group: str, count: int) -> Pipeline:
        return Pipeline(stages=(Stage(group=group, first=0, last=4),), micro_batch=1, micro_batches=count)

    return MixPlan(
        model="m", model_digest="0", cluster="c", cluster_digest="1", layers=2, seq_len=8, global_batch=4, precision="fp32",
        pipelines=(one("fast", 3), one("slow", 1)),
    )  # fmt: skip


def journal(
    folder: Path, number: int, group: str, times: list[tuple[int, float]], *, first: int = 0, planned: Mapping[int, str] | None = None,
    torn: bool = False,
) -> None:  # fmt: skip
    """Steps from ``first`` on as (epoch, s); ``planned``: how the plan of a later epoch was made."""
    lines: list[dict[str, object]] = [{"kind": "door", "number": number, "group": group}]
    for step, (epoch, step_s) in enumerate(times, first):
        if planned and epoch in planned and lines[-1].get("epoch") != epoch:
            lines.append({"kind": "change", "epoch": epoch, "planned": planned[epoch]})
        parts = {"compute_s": 0.5 * step_s, "wait_s": 0.1 * step_s, "send_s": 0.0, "reduce_s": 0.2 * step_s, "update_s": 0.1 * step_s}
        lines.append({"kind": "step", "epoch": epoch, "step": step, "tokens": 32.0, "step_s": step_s, **parts})
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / f"member-{number:05d}.jsonl").write_text(text[:-9] if torn else text, "utf-8")


def test_rates_and_shares_leave_out_the_first_step_and_what_follows_a_change(tmp_path: Path) -> None:
    journal(tmp_path, 0, "fast", [(0, 9.0), (0, 1.0), (0, 2.0), (0, 2.0), (1, 50.0)])
    journal(tmp_path, 1, "slow", [(0, 9.0), (0, 2.0), (0, 2.0), (0, 2.0), (1, 50.0)])
    found = account_of(tmp_path, a_plan())

    assert found is not None
    assert (found.steps, found.step_s, found.tokens_per_s) == (3, 2.0, 16.0)
    assert [(one.group, one.members, one.tokens_per_s) for one in found.groups] == [("fast", 1, 12.0), ("slow", 1, 4.0)]
    assert found.groups[1].parts_s["compute_s"] == pytest.approx(1.0)


def test_what_follows_a_loss_counts_again_once_the_plan_of_the_start_is_in_force(tmp_path: Path) -> None:
    """The first step is all that was made before the loss; a member that comes later follows another plan at first, or the first one."""
    journal(tmp_path, 0, "fast", [(0, 9.0)])
    journal(tmp_path, 1, "slow", [(0, 9.0), (1, 50.0), (1, 50.0), (2, 2.0), (2, 2.0)], planned={1: "unchecked", 2: "whole"})
    journal(tmp_path, 2, "fast", [(2, 1.0), (2, 1.0)], first=3, planned={2: "whole"})
    found = account_of(tmp_path, a_plan())

    assert found is not None
    assert (found.steps, found.step_s, found.tokens_per_s) == (2, 2.0, 16.0)
    assert {(one.group, one.members, one.parts_s["compute_s"]) for one in found.groups} == {("fast", 1, 0.5), ("slow", 1, 1.0)}


def test_a_line_cut_short_by_a_kill_ends_its_journal(tmp_path: Path) -> None:
    journal(tmp_path, 0, "fast", [(0, 9.0), (0, 1.0), (0, 3.0)], torn=True)
    found = account_of(tmp_path, a_plan())

    assert found is not None and (found.steps, found.step_s) == (1, 1.0)
    assert account_of(tmp_path / "nowhere", a_plan()) is None


def test_a_run_is_evidence(tmp_path: Path) -> None:
    journal(tmp_path, 0, "fast", [(0, 9.0), (0, 1.0), (0, 2.0), (0, 2.0)])
    found = account_of(tmp_path, a_plan())
    assert found is not None
    records = list(records_of(found, a_plan(), device="cpu", stack="torch 2"))

    for record in records:
        check(record)
    assert [(record.metric, record.value) for record in records] == [("time", 2.0), ("throughput", 16.0)]
    assert all(record.low <= record.value <= record.high for record in records)  # type: ignore[operator]
