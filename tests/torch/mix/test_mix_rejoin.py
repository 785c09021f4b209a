"""Processes that come back to a job: links, doors and agreement alone, with members as threads and no training."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sapper.mix.checkpoint.ledger import Ledger
from sapper.mix.plan import MixPlan, Pipeline, Stage
from sapper.mix.run.job import Job
from sapper.mix.survive.circle import Circle
from sapper.mix.survive.join import Door, Guest, Origin, knock
from sapper.mix.survive.launch import Here, Launcher, Worker
from sapper.mix.survive.member import Member, Report, View
from sapper.mix.survive.names import DOORS, OUTCAST
from sapper.mix.survive.peers import Peers
from sapper.mix.survive.regroup import Outcast, Regroup, Setting
from sapper.mix.survive.trainer import Trainer
from sapper.mix.survive.trainer import _Place as trainer_place
from sapper.mix.wire.link import Limits
from sapper.mix.wire.meet import listen

LIMITS = Limits(beat_s=0.05, silent_s=3.0)
ORIGIN = Origin(group="g", machine="m", plan="p", model="0")
PLAN = MixPlan(
    model="m", model_digest="0", cluster="c", cluster_digest="1", layers=2, seq_len=1, global_batch=1,
    pipelines=(Pipeline(stages=(Stage(group="g", first=0, last=4),), micro_batch=1, micro_batches=1),),
)  # fmt: skip


class Player:
    """One member on a thread: between two steps it lets guests in or is called to regroup, and takes part until it is told to end."""

    def __init__(self, peers: Peers, view: View, regroup: Regroup) -> None:
        self.peers, self.view, self.regroup = peers, view, regroup
        self.door = Door(peers, ORIGIN)
        self.pause, self.end = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        guests: list[Guest] = []
        while not self.end.wait(0.01):
            numbers = [one.number for one in self.view.members]
            if not self.pause.is_set():
                guests += self.door.admit(self.view)
            called = self.peers.alarmed(numbers, self.view.epochs) or self.peers.reported(self.view.turns).keys() & set(numbers)
            if guests or called or self.peers.lost(numbers):
                self.peers.alarm(numbers, self.view.epoch)
                for guest in guests:
                    self.peers.alarm([guest.member.number], guest.epoch)
                self.view = self.regroup.agree(setting(self.peers, self.view, [one.member for one in guests]))
                self.peers.connect(self.view.members, within_s=LIMITS.silent_s)
                guests = []

    def die(self) -> None:
        """As a process does: its connections end."""
        self.end.set()
        self.thread.join()
        self.peers.close()


def setting(peers: Peers, view: View, guests: list[Member], host: int | None = None) -> Setting:
    def report(turn: int, lost: Any) -> Report:
        return Report(
            number=peers.number, turn=turn, epoch=view.epoch, begun=0, lost=tuple(sorted(lost)), held=(), ledger=Ledger()
        )

    def decide(members: Any, reports: dict[int, Report]) -> View:
        epoch = max(one.epoch for one in reports.values()) + 1
        turns = {number: one.turn for number, one in reports.items()}
        return View(epoch=epoch, turns=turns, members=tuple(members), plan=PLAN, step=0)

    return Setting(
        peers=peers, members=[*view.members, *guests], report=report, decide=decide, turns=view.turns, silent_s=LIMITS.silent_s, host=host
    )  # fmt: skip


@contextlib.contextmanager
def job(count: int) -> Iterator[list[Player]]:
    peers = [Peers("job", listen("127.0.0.1"), limits=LIMITS) for _ in range(count)]
    members = []
    for number, one in enumerate(peers):
        one.number = number
        members.append(Member(number=number, host=one.address[0], port=one.address[1], group="g", machine="m"))
    for one in peers:  # a member waits for those of higher number
        threading.Thread(target=one.connect, args=(members,), kwargs={"within_s": 3.0}, daemon=True).start()
    until(lambda: all(len(one.known()) == count - 1 for one in peers))
    view = View(epoch=0, turns={}, members=tuple(members), plan=PLAN, step=0)
    found = [Player(one, view, Regroup()) for one in peers]
    try:
        yield found
    finally:
        for one in found:
            one.end.set()
        for one in found:
            one.thread.join()
            one.peers.close()


def until(what: Callable[[], Any], *, within_s: float = 10.0) -> None:
    due = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < due, "it did not come to pass"
        time.sleep(0.01)


def come(doors: list[Player], found: list[Player]) -> threading.Thread:
    """A guest on a thread, which becomes a member."""

    def work() -> None:
        while True:
            peers, view = knock([one.peers.address for one in doors], origin=ORIGIN, limits=LIMITS, within_s=10.0)
            host = min(one.number for one in view.members)
            regroup = Regroup()
            try:
                inside = regroup.agree(setting(peers, view, [], host=host))
            except Outcast:
                peers.close()
                continue
            peers.connect(inside.members, within_s=LIMITS.silent_s)
            found.append(Player(peers, inside, regroup))
            return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def numbers(one: Player) -> list[int]:
    return sorted(member.number for member in one.view.members)


def test_two_who_come_at_once_are_both_let_in() -> None:
    """The second was told of a membership that the first has ended."""
    with job(2) as members:
        members[0].pause.set()
        guests: list[Player] = []
        for _ in range(2):
            come(members, guests)
        until(lambda: members[0].peers.guests.qsize() == 2)
        members[0].pause.clear()

        until(lambda: len(guests) == 2 and all(numbers(one) == [0, 1, 2, 3] for one in (*members, *guests)))
        for one in guests:
            one.die()


def test_a_guest_whose_host_is_lost_before_it_is_in_comes_again() -> None:
    with job(3) as members:
        members[0].pause.set()
        guests: list[Player] = []
        come(members, guests)
        until(lambda: members[0].peers.guests.qsize() == 1)
        sock, card = members[0].peers.guests.get()
        members[0].door._highest = 2
        with sock:
            members[0].door._answer(sock, card, members[0].view)
        until(lambda: 3 in members[2].peers.known())
        members[0].die()

        until(lambda: len(guests) == 1 and all(numbers(one) == [1, 2, 4] for one in (*members[1:], *guests)))
        guests[0].die()


@pytest.mark.parametrize("lost", [1, 2])
def test_a_member_that_is_lost_while_a_guest_comes_holds_nobody_up(lost: int) -> None:
    with job(3) as members:
        members[0].pause.set()
        guests: list[Player] = []
        come(members, guests)
        until(lambda: members[0].peers.guests.qsize() == 1)
        members[lost].die()
        members[0].pause.clear()

        rest = [one for at, one in enumerate(members) if at != lost]
        until(lambda: len(guests) == 1 and all(lost not in numbers(one) and len(numbers(one)) == 3 for one in (*rest, *guests)))
        guests[0].die()


def test_a_member_without_a_seat_hears_when_the_others_move_layers() -> None:
    with job(2) as members:
        first, spare = (one.peers for one in members)
        view = members[0].view  # of one seat
        trainer = Trainer(Job(plan=PLAN, model=None, data=None, steps=1), spare, origin=ORIGIN)  # type: ignore[arg-type]
        trainer._at = trainer_place(view, Circle(spare, view))
        following = msgspec.structs.replace(view, epoch=1, follows=True)
        first.tell(1, "0/moved", following)

        assert trainer._leave() == following


@pytest.mark.parametrize(
    ("members", "code", "again"),
    [([0, 1], OUTCAST, True), ([0, 1], -9, True), ([0, 1], 1, False), ([0], OUTCAST, False)],
    ids=["cut off", "killed", "failed by itself", "nobody elsewhere"],
)
def test_the_last_worker_of_a_host_is_started_again_where_others_go_on_without_it(
    tmp_path: Path, members: list[int], code: int, again: bool
) -> None:
    lines = [{"kind": "door", "pid": 1, "number": 0}, {"kind": "view", "members": [[one, "h", 1] for one in members]}]
    (tmp_path / "member-00000.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    started: list[dict[str, str]] = []
    (tmp_path / "errors").write_text("", "utf-8")
    ended = Worker(types.SimpleNamespace(returncode=code, poll=lambda: code, pid=1), "g", 1, tmp_path / "errors")  # type: ignore[arg-type]
    launcher = Launcher(tmp_path, PLAN, Here(living=(ended,)), told=lambda line: None)
    launcher._start = lambda group, more, left: started.append(dict(more))  # type: ignore[method-assign]
    launcher._look()
    launcher._lost = [(0.0, one) for _, one in launcher._lost]
    launcher._look()

    assert [one[DOORS] for one in started] == ([",".join("h:1" for _ in members)] if again else [])
