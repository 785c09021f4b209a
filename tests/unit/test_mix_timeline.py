"""The picture of a step: lanes, SVG, Chrome trace."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

import pytest

from sapper.dossier.mix.lanes import MOST_LANES, lanes
from sapper.dossier.mix.timeline import timeline
from sapper.dossier.mix.trace import trace
from sapper.mix.plan import MixPlan, Pipeline, Stage, seats

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Event:
    seat_rank: int
    kind: str
    micro_batch: int
    start_s: float
    end_s: float


def a_plan(*, replicas: int = 1, copies: int = 1, micro_batches: int = 3) -> MixPlan:
    stages = (Stage(group="fast", first=0, last=9, tp=2, replicas=replicas), Stage(group="s<low", first=9, last=14))
    return MixPlan(
        model="m & n", model_digest="0", cluster="c", cluster_digest="1", layers=12, seq_len=8, global_batch=2 * micro_batches * copies,
        pipelines=(Pipeline(stages=stages, micro_batch=2, micro_batches=micro_batches, copies=copies),),
    )  # fmt: skip


def a_step(plan: MixPlan, *, pass_s: float = 0.1) -> list[Event]:
    """All seats compute forward and backward of each micro-batch, one after the other, and update."""
    events = []
    for seat in seats(plan):
        at = 0.0
        for k in range(plan.pipelines[0].micro_batches):
            events += [Event(seat.rank, "forward", k, at, at + pass_s), Event(seat.rank, "backward", k, at + pass_s, at + 3 * pass_s)]
            at += 3 * pass_s
        events.append(Event(seat.rank, "update", -1, at, at + pass_s))
    return events


def test_shards_and_copies_share_a_lane() -> None:
    plan = a_plan(copies=3)
    found, hidden = lanes(plan, a_step(plan))

    assert [(lane.group, lane.rank, lane.copies, len(lane.events)) for lane in found] == [("fast", 0, 3, 7), ("s<low", 2, 3, 7)]
    assert hidden == 0
    assert found[0].busy_s == pytest.approx(0.9)


def test_of_many_replicas_the_first_are_drawn_and_the_rest_counted() -> None:
    plan = a_plan(replicas=500)
    found, hidden = lanes(plan, a_step(plan))

    assert len(found) + hidden == 501
    assert 2 <= len(found) <= MOST_LANES and found[-1].group == "s<low"
    assert str(hidden) in timeline(plan, a_step(plan), "en")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_timeline_names_its_lanes_and_numbers_its_passes(lang: str) -> None:
    plan = a_plan()
    root = ET.fromstring(timeline(plan, a_step(plan), lang))
    texts = [element.text or "" for element in root.iter(f"{SVG}text")]

    assert sum("0-8" in text for text in texts) == 1 and any("s<low" in text for text in texts)
    assert texts.count("2") == 4  # forward and backward of the last micro-batch, in two lanes
    assert {"90%"} == {text for text in texts if text.endswith("%")}
    assert (("前向" if lang == "zh" else "forward") in texts) and "m & n" in texts[-1] + texts[0]


def test_boxes_are_as_long_as_their_events() -> None:
    plan = a_plan(micro_batches=1)
    root = ET.fromstring(timeline(plan, a_step(plan), "en"))
    widths = [float(box) for path in root.iter(f"{SVG}path") for box in re.findall(r"h(\d+\.\d)v", path.attrib["d"])]

    assert len(widths) == 6
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.01)
    assert sum(widths[:3]) == pytest.approx(1080 - 258 - 52, abs=2.5)


def test_a_long_step_is_drawn_as_shares_and_its_ends_one_by_one() -> None:
    plan = a_plan(micro_batches=400)
    svg = timeline(plan, a_step(plan), "en")

    assert "the first passes" in svg and "the last passes" in svg
    assert ">0<" in svg and ">399<" in svg and ">200<" not in svg
    assert len(svg) < 60_000


def test_a_trace_has_a_thread_for_each_seat_and_microseconds() -> None:
    plan = a_plan(copies=2)
    found = json.loads(trace(plan, a_step(plan)))["traceEvents"]
    threads = [event for event in found if event["name"] == "thread_name"]
    boxes = [event for event in found if event["ph"] == "X"]

    assert len(threads) == 6 and len({event["pid"] for event in threads}) == 2
    assert len(boxes) == 6 * 7
    assert (boxes[1]["name"], boxes[1]["ts"], boxes[1]["dur"]) == ("backward 0", 100000.0, 200000.0)
    assert {event["tid"] for event in boxes} == set(range(6))
