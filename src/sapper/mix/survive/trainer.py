"""A member of a job: trains, and when the membership changes goes on in the next one with the state that the members still have."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sapper import messages
from sapper.errors import BadFile
from sapper.mix.balance import Tried
from sapper.mix.checkpoint import manifest
from sapper.mix.checkpoint.ledger import Ledger
from sapper.mix.checkpoint.shard import Pool, State
from sapper.mix.checkpoint.write import Place, Writer
from sapper.mix.plan import MixPlan
from sapper.mix.run.anatomy import Anatomy
from sapper.mix.run.job import Job
from sapper.mix.run.log import StepLog
from sapper.mix.run.runner import Runner
from sapper.mix.run.stage import dissect
from sapper.mix.survive import state as states
from sapper.mix.survive.circle import Circle
from sapper.mix.survive.comm import ViewComm
from sapper.mix.survive.cover import part_of
from sapper.mix.survive.decide import decide, moved
from sapper.mix.survive.join import Door, Guest, Origin
from sapper.mix.survive.keep import Keeper, receive, send
from sapper.mix.survive.member import Held, Member, Move, Report, View
from sapper.mix.survive.peers import Peers
from sapper.mix.survive.planner import Planner
from sapper.mix.survive.regroup import Outcast, Regroup, Setting
from sapper.mix.survive.saved import about_of, load_checkpoint, own_share
from sapper.mix.survive.state import Standing
from sapper.mix.wire.faults import PeerLost, WireError

PHASES = ("between", "forward", "backward", "reduce", "update", "checkpoint")
"""Of a step; beside them a watch hears of ``regroup`` and ``restore``, when the membership changes."""
_IDLE_S = 0.01
_NEWS_S = 1.0
"""That the news of a loss may come after the failure of what waited for the lost."""
_BYE = "bye"
_MOVED = "moved"


@dataclass(frozen=True)
class Saving:
    """When checkpoints are written, and where."""

    root: Path
    every: int = 100
    """Steps."""
    keep: int = 3


@dataclass(frozen=True)
class Change:
    """A change of the membership that was survived, for whoever watches."""

    epoch: int
    reason: str
    members: tuple[Member, ...]
    step: int
    undone: int
    """Steps that had been applied and are computed again."""
    source: str
    took_s: float
    """From the first sign until this member can begin the next step."""
    plan: MixPlan
    planned: str
    """By what; see :data:`sapper.mix.survive.planner.How`."""


@dataclass
class Watch:
    """Who is told what."""

    phase: Callable[[str, int], None] = lambda phase, step: None
    step: Callable[[StepLog, View], None] = lambda log, view: None
    change: Callable[[Change], None] = lambda change: None
    fault: Callable[[BadFile], None] = lambda error: None


@dataclass
class _Place:
    """What a member has while it works in one membership."""

    view: View
    circle: Circle
    comm: ViewComm | None = None
    runner: Runner | None = None
    held: Held | None = None
    updating: bool = False
    begun: int = 0

    @property
    def now(self) -> Held | None:
        """What its stage holds; None in the middle of an update, and without a seat."""
        return None if self.runner is None or self.held is None or self.updating else _after(self.held, self.runner.done)


class Trainer:
    """One process of a job that survives the loss of others.

    Args:
        job: The job; its plan is the one for all chips.
        peers: The links, with :attr:`~sapper.mix.survive.peers.Peers.number` set and all members connected.
        origin: Of this process; guests have to be like it.
        saving: Checkpoints; None: none are written or read.
        watch: Who is told what.
        planner: Makes plans for the chips that are left.
    """

    def __init__(
        self, job: Job, peers: Peers, *, origin: Origin, saving: Saving | None = None, watch: Watch | None = None,
        planner: Planner | None = None,
    ) -> None:  # fmt: skip
        self.job, self.peers, self.watch = job, peers, watch or Watch()
        self.ledger = Ledger()
        self._saving, self._planner = saving, planner or Planner()
        self._tried = Tried()
        self._done_with: list[ViewComm] = []
        self._writer = Writer(saving.root, keep=saving.keep, told=self.watch.fault) if saving else None
        self._keeper = Keeper()
        self._door = Door(peers, origin)
        self._regroup = Regroup()
        self._at: _Place | None = None
        self._known: Anatomy | None = None
        self._scales: dict[int, tuple[float, int]] = {}
        """Of losses, by the last steps: all ranks go on with the same one."""
        self._circle: Circle | None = None
        self._seen: View | None = None
        """The last membership that was agreed on, entered or not."""
        self._guests: list[Guest] = []

    @property
    def runner(self) -> Runner | None:
        """Of the last membership; None: this member is spare."""
        return self._at.runner if self._at else None

    @property
    def is_outside(self) -> bool:
        """Whether it has not been let in yet."""
        return self._seen is not None and self._seen.source == "outside"

    def run(self, view: View) -> None:
        """Train to the end, beginning in ``view``.

        Raises:
            Outcast: The others go on without this member.
        """
        started, change = time.monotonic(), False
        while True:
            self._seen = view
            try:
                self._enter(view)
                if change:
                    self._tell_change(view, started)
                plan = self._train()
                following = self._moved(plan) if plan is not None else self._leave()
                if following is None:
                    return
                started, change, view = time.monotonic(), True, following
            except (WireError, RuntimeError) as error:
                # A collective of PyTorch's that was given up says so in its own words.
                if not isinstance(error, WireError) and not self._broken():
                    raise
                started, change = time.monotonic(), True
                view = self._next(str(error))

    def _broken(self) -> bool:
        """Whether the membership in force has lost a member."""
        circle = self._circle
        if circle is None:
            return False
        due = time.monotonic() + _NEWS_S
        while not circle.broken.is_set() and time.monotonic() < due:
            with contextlib.suppress(WireError):
                circle.check()
            time.sleep(_IDLE_S)
        return circle.broken.is_set()

    def _enter(self, view: View) -> None:
        """Take the seat in ``view`` with the state that it says."""
        before = self._at
        self._phase("restore")
        self.peers.connect(view.members, within_s=self.peers.limits.silent_s)
        self._anatomy()  # once, however often layers move
        circle, began_s = Circle(self.peers, view), time.monotonic()
        self._circle = circle
        at = _Place(view, circle, begun=view.step)
        self.ledger = view.ledger.copy()
        self._give(circle, before)
        if circle.rank >= 0:
            at.comm = ViewComm(circle, at_sum=(self._before_gate, self._after_gate), told=self._phase)
            at.held = part_of(view.plan, circle.rank, step=view.step)
            had = before.runner if before is not None and before.held is not None and _same_weights(before.held, at.held) else None
            model = self.job.model if had is None else Standing(self.job.model, had.stage.module)
            runner = Runner(dataclasses.replace(self.job, plan=view.plan, model=model), at.comm, anatomy=self._anatomy())
            self._fill(runner, at, before)
            self._replan(runner, view, entered_s=time.monotonic() - began_s)
            at.runner = runner
            self._keeper.enter(circle, view.plan)
            self._at = at
            self._keep()
        self._at = at
        for epoch in range(before.view.epoch if before else view.epoch, view.epochs[0]):
            self.peers.forget(epoch)

    def _give(self, circle: Circle, before: _Place | None) -> None:
        """Send what others need of this member."""
        view, own = circle.view, self.peers.number
        for move in view.moves:
            rank = view.rank_of(move.target)
            if move.source == own and move.target != own and rank is not None:
                send(circle, rank, _tag(move), state=states.copied(self._given(move, before)), about=move.held)

    def _given(self, move: Move, before: _Place | None) -> State:
        """What a move gives of this member's memory."""
        state, anatomy = self._find(move.held, before), self._anatomy()
        if anatomy is None:
            return state
        return states.of_layers(state, anatomy.owned(move.first, move.last))

    def _fill(self, runner: Runner, at: _Place, before: _Place | None) -> None:
        view, own = at.view, self.peers.number
        if view.source == "members":
            found = Pool()
            for move in view.moves:
                if move.target == own and move.source == own:
                    found.add(states.copied(self._given(move, before)))
                elif move.target == own:
                    source = next(rank for rank, one in enumerate(view.members) if one.number == move.source)
                    found.add(receive(at.circle, source, _tag(move))[1])
            states.load(runner, found, step=view.step)
        elif view.source == "checkpoint":
            assert self._saving is not None
            load_checkpoint(runner, self._saving.root, step=view.step)
        elif before is not None:  # from the seed once more, whatever the stage has been trained to
            fresh = Runner(dataclasses.replace(self.job, plan=view.plan), at.comm, anatomy=self._anatomy())  # type: ignore[arg-type]
            found = Pool()
            found.add(states.live(fresh))
            states.load(runner, found, step=0)
        if view.scale is not None:
            runner.loss_scale.state = view.scale

    def _find(self, held: Held, before: _Place | None) -> State:
        """A state in this member's memory."""
        if before is not None and before.runner is not None and before.now == held:
            return states.live(before.runner)
        found = self._keeper.find(held)
        assert found is not None, "the report named it"
        return found

    def _anatomy(self) -> Anatomy | None:
        """Of the job's model, which no change of the membership changes; None: one that runs in one stage only."""
        if self._known is None:
            self._known = dissect(self.job, whole=all(len(one.stages) == 1 for one in self.job.plan.pipelines))
        return self._known

    def _replan(self, runner: Runner, view: View, *, entered_s: float) -> None:
        """Let the split follow the measured times, where the job says so."""
        if self.job.replan is None:
            return
        if not view.follows:  # members may be here that know nothing of what was tried
            self._tried = Tried()
        runner.replan(self.job.replan, tried=self._tried, fits=self._planner.may_fit, entered_s=entered_s)

    def _train(self) -> MixPlan | None:
        """Step after step: to the end of the job, or until the measured times ask for the plan that is returned."""
        at = self._at
        assert at is not None
        while at.runner is not None and at.runner.done < self.job.steps:
            self._phase("between")
            self._admit()
            at.circle.check()
            at.begun = at.runner.done + 1
            log = at.runner.step()
            at.updating = False
            self.ledger.applied(log.step, batch=at.view.plan.global_batch, plan=at.view.plan.digest, epoch=at.view.epoch)
            self.watch.step(log, at.view)
            if at.runner.wanted is not None and at.runner.done < self.job.steps:
                self._save()
                return at.runner.wanted
            self._keep()
            self._save()
        return None

    def _moved(self, plan: MixPlan) -> View:
        """The view in which the members go on by ``plan``, whose stages have other layers."""
        at = self._at
        assert at is not None and at.comm is not None and at.runner is not None
        self._done_with.append(at.comm)
        view = moved(at.view, plan, step=at.runner.done, ledger=self.ledger.copy(), reason=messages.text("mix.run.slower"))
        if at.circle.rank == 0:
            for spare in view.members[len(view.seated) :]:  # they hear nothing of the times
                self.peers.tell(spare.number, f"{at.view.epoch}/{_MOVED}", view)
        return view

    def _leave(self) -> View | None:
        """Wait until all others are done too: until then they may need what is kept here.

        Returns:
            The view in which the seated members go on by other cuts, for a member without a seat; None: all are done.
        """
        at = self._at
        assert at is not None
        numbers = {one.number for one in at.view.members}
        seated = {one.number for one in at.view.seated}
        if at.runner is not None:
            self._keeper.settle()
            for number in numbers - {self.peers.number}:
                self.peers.tell(number, f"{at.view.epoch}/{_BYE}", True)
        waiting = seated - {self.peers.number}
        while waiting:
            lost = self.peers.lost(waiting)
            waiting -= {number for number in waiting if self.peers.told(number, f"{at.view.epoch}/{_BYE}", bool)}
            if at.runner is None:
                view = self.peers.told(at.view.members[0].number, f"{at.view.epoch}/{_MOVED}", View)
                if view is not None:
                    return view
            asked = self.peers.reported(at.view.turns).keys() & waiting
            if lost & waiting or asked or self.peers.alarmed(waiting, at.view.epochs):
                at.circle.broken.set()
                at.circle.check()
            time.sleep(_IDLE_S)
        if self._writer is not None:
            self._writer.wait()
        return None

    def _next(self, reason: str) -> View:
        """Agree on the membership that follows."""
        at, seen = self._at, self._seen
        assert seen is not None
        self._phase("regroup")
        if at is not None and at.comm is not None:
            self._done_with.append(at.comm)
        self._close()
        if self._writer is not None:
            self._writer.abandon()
        numbers = [one.number for one in seen.members]
        guests, self._guests = self._guests, []
        self.peers.alarm(numbers, seen.epoch)
        for guest in guests:
            self.peers.alarm([guest.member.number], guest.epoch)
        host = min(set(numbers) - {self.peers.number}) if self.is_outside else None
        setting = Setting(
            peers=self.peers, members=[*seen.members, *(one.member for one in guests)], report=self._report,
            decide=lambda members, reports: self._decide(members, reports, reason), turns=seen.turns,
            silent_s=self.peers.limits.silent_s, host=host,
        )  # fmt: skip
        view = self._regroup.agree(setting)
        for number in set(numbers) - {one.number for one in view.members}:
            self.peers.drop(number)
        return view

    def _close(self) -> None:
        """Leave the memberships that this one came from."""
        while self._done_with:
            self._done_with.pop().close()

    def _report(self, turn: int, lost: Iterable[int]) -> Report:
        at, seen = self._at, self._seen
        held = list(self._keeper.held())
        if at is not None and at.now is not None:
            held.append(at.now)
        return Report(
            number=self.peers.number, turn=turn, epoch=seen.epoch if seen else 0, begun=at.begun if at else 0,
            lost=tuple(sorted(lost)), held=tuple(dict.fromkeys(held)), ledger=self.ledger, factors=self._scales,
        )  # fmt: skip

    def _decide(self, members: Sequence[Member], reports: dict[int, Report], reason: str) -> View:
        whole_ones = manifest.whole(self._saving.root) if self._saving else []
        view = decide(
            self.job.plan, members, reports, reason=reason, saved=whole_ones[-1] if whole_ones else None, planner=self._planner
        )  # fmt: skip
        if view is None:
            raise BadFile("SP-MIX-197", where=self.job.plan.model, members=len(members))
        return view

    def _admit(self) -> None:
        """Let in whoever came to the door."""
        at = self._at
        assert at is not None
        self._guests += self._door.admit(at.view)
        if self._guests:
            raise PeerLost("SP-MIX-200", rank=-1, count=len(self._guests))

    def _phase(self, phase: str) -> None:
        at = self._at
        self.watch.phase(phase, at.begun if at is not None else 0)

    def _before_gate(self) -> None:
        self._keeper.settle()

    def _after_gate(self) -> None:
        assert self._at is not None
        self._close()  # all are here, so that nobody waits there any more
        self._keeper.passed()
        self._at.updating = True
        self._phase("update")

    def _keep(self) -> None:
        at = self._at
        assert at is not None and at.runner is not None and at.held is not None
        self._keeper.copy(states.live(at.runner), _after(at.held, at.runner.done))
        self._scales = dict(list(self._scales.items())[-2:]) | {at.runner.done: at.runner.loss_scale.state}

    def _save(self) -> None:
        at = self._at
        assert at is not None and at.runner is not None
        if self._writer is None or self._saving is None or at.runner.done % self._saving.every:
            return
        self._phase("checkpoint")
        about = about_of(self.job, at.runner, self.ledger, at.view.plan)
        place = Place(at.comm.rank if at.comm else 0, len(at.view.seated), attempt=str(at.view.epoch))
        self._writer.save(own_share(at.runner, at.view.plan), about, place=place)

    def _tell_change(self, view: View, started: float) -> None:
        undone = view.ledger.undone[-1] if view.ledger.undone else None
        lost = max(0, undone.last - undone.first - 1) if undone is not None and undone.first == view.step else 0
        self.watch.change(
            Change(
                epoch=view.epoch, reason=view.reason, members=view.members, step=view.step, undone=lost, source=view.source,
                took_s=time.monotonic() - started, plan=view.plan, planned=view.planned,
            )
        )  # fmt: skip


def take_part(come: Callable[[], tuple[Peers, View]], trainer: Callable[[Peers], Trainer]) -> Trainer:
    """Take part in a job to its end.

    Args:
        come: To its start, or by a door of it. Whoever loses the member that lets it in before it is in comes once more.
        trainer: Of the links.

    Raises:
        Outcast: See :meth:`Trainer.run`.
    """
    while True:
        peers, view = come()
        found = trainer(peers)
        try:
            found.run(view)
        except Outcast:
            if not found.is_outside:
                raise
            peers.close()
        else:
            return found


def _tag(move: Move) -> str:
    held = move.held
    return f"restore/{move.first}-{move.last}/{held.first}-{held.last}/{held.shard}-{held.tp}/{held.share}-{held.shares}"


def _same_weights(one: Held, other: Held) -> bool:
    """Whether two seats hold the same weights whole."""
    return (one.first, one.last) == (other.first, other.last) and {one.tp, other.tp, one.shares, other.shares} == {1}


def _after(held: Held, step: int) -> Held:
    """``held`` after ``step`` steps."""
    return msgspec.structs.replace(held, step=step)
