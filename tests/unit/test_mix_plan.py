"""Plans over unlike chips: the file, its seats, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from sapper.errors import BadFile, BadPlan
from sapper.mix.order import in_flight, in_flights, order
from sapper.mix.plan import MixPlan, Pipeline, Stage, check, first_samples, read_plan, seats, write_plan


def pipeline(*replicas: int, micro_batches: int = 8) -> Pipeline:
    stages = tuple(Stage(group="a", first=i, last=i + 1, replicas=count) for i, count in enumerate(replicas))
    return Pipeline(stages=stages, micro_batch=1, micro_batches=micro_batches)


def a_plan(**changes: object) -> MixPlan:
    fast = Pipeline(stages=(Stage(group="fast", first=0, last=6, tp=2),), micro_batch=2, micro_batches=3, copies=2)
    slow = Pipeline(
        stages=(Stage(group="slow", first=0, last=2, replicas=2), Stage(group="slow", first=2, last=6)), micro_batch=1, micro_batches=4
    )
    plan = MixPlan(
        model="m", model_digest="0", cluster="c", cluster_digest="1", layers=4, seq_len=8, global_batch=16, pipelines=(fast, slow)
    )
    return msgspec.structs.replace(plan, **changes)


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    write_plan(tmp_path / "plan.json", a_plan())

    assert read_plan(tmp_path / "plan.json", supply={"fast": 4, "slow": 3}) == a_plan()


def test_each_chip_has_one_seat() -> None:
    found = seats(a_plan())

    assert [seat.rank for seat in found] == list(range(7))
    assert [(seat.group, seat.stage, seat.replica, seat.shard) for seat in found[3:]] == [
        ("fast", 0, 0, 1), ("slow", 0, 0, 0), ("slow", 0, 1, 0), ("slow", 1, 0, 0)
    ]
    assert list(first_samples(a_plan())) == [(0, 0, 0), (0, 1, 6), (1, 0, 12)]


@pytest.mark.parametrize(
    ("code", "plan", "supply"),
    [
        ("SP-MIX-001", a_plan(format="sapper-mix-plan/0"), None),
        ("SP-MIX-002", a_plan(pipelines=()), None),
        ("SP-MIX-003", a_plan(pipelines=(msgspec.structs.replace(a_plan().pipelines[0], copies=0),)), None),
        ("SP-MIX-004", a_plan(pipelines=(pipeline(1),)), None),
        ("SP-MIX-005", a_plan(pipelines=(pipeline(1, 1),)), None),
        ("SP-MIX-006", a_plan(global_batch=17), None),
        ("SP-MIX-007", a_plan(), {"fast": 4}),
        ("SP-MIX-008", a_plan(), {"fast": 3, "slow": 3}),
    ],
)
def test_what_cannot_be_meant_is_refused(code: str, plan: MixPlan, supply: dict[str, int] | None) -> None:
    if code == "SP-MIX-004":
        stages = (Stage(group="a", first=1, last=6),)
        plan = a_plan(pipelines=(msgspec.structs.replace(plan.pipelines[0], stages=stages),))
    with pytest.raises(BadPlan) as caught:
        check(plan, supply=supply)

    assert caught.value.code == code


def test_a_file_of_another_kind_is_no_plan_with_unknown_fields(tmp_path: Path) -> None:
    path = tmp_path / "captured.json"
    path.write_text('{"format": "sapper-workload", "version": 1}', "utf-8")
    with pytest.raises(BadPlan, match=r"of the format `sapper-workload`, not a plan .*SP-MIX-001"):
        read_plan(path)


def test_an_unknown_field_is_named(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    write_plan(file, a_plan())
    file.write_text(file.read_text("utf-8").replace('"seq_len"', '"sequence"'), "utf-8")

    with pytest.raises(BadFile, match="sequence"):
        read_plan(file)


def finishes(one: Pipeline, schedule: str) -> bool:
    """Whether the orders of all seats can be followed: each step takes any work whose inputs are there."""
    stages = len(one.stages)
    todo = {(s, r): order(one, s, replica=r, schedule=schedule) for s in range(stages) for r in range(one.stages[s].replicas)}  # type: ignore[arg-type]
    done: set[tuple[int, str, int]] = set()
    moved = True
    while moved:
        moved = False
        for (s, _), work in todo.items():
            if not work:
                continue
            kind, k = work[0]
            other = s - 1 if kind == "forward" else s + 1
            if not 0 <= other < stages or (other, kind, k) in done:
                done.add((s, kind, k))
                work.pop(0)
                moved = True
    return len(done) == 2 * stages * one.micro_batches


@pytest.mark.parametrize("schedule", ["1f1b", "gpipe"])
@pytest.mark.parametrize("replicas", [(1, 1, 1, 1), (2, 1), (1, 2), (3, 1, 2), (1, 4, 2, 3), (2, 3)])
def test_no_order_of_work_blocks_itself(replicas: tuple[int, ...], schedule: str) -> None:
    for count in (1, 2, 5, 8):
        assert finishes(pipeline(*replicas, micro_batches=count), schedule)


def test_in_flight_is_what_the_order_holds() -> None:
    for replicas in [(1, 1, 1, 1), (2, 1), (3, 1, 2), (2, 3)]:
        one = pipeline(*replicas, micro_batches=9)
        for s, count in enumerate(replicas):
            most = 0
            for r in range(count):
                held = 0
                for work in order(one, s, replica=r):
                    held += 1 if work.kind == "forward" else -1
                    most = max(most, held)
            assert most == in_flight(one, s) == in_flights(replicas, one.micro_batches)[s]
        assert in_flights(replicas, one.micro_batches, schedule="gpipe") == [-(-9 // here) for here in replicas]


def test_like_stages_hold_the_textbook_number_in_flight() -> None:
    assert [in_flight(pipeline(1, 1, 1, 1), s) for s in range(4)] == [4, 3, 2, 1]
