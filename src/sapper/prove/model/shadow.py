"""The shadow: sees each ATen op of the step on the device, and judges it on the inputs that the device really had."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

import torch
from sapper.backends.evidence import computed_by_host
from sapper.backends.on_device import must_launch
from sapper.backends.trees import leaves, tensors_in
from sapper.prove.call import Call
from sapper.prove.model.copies import Copies
from sapper.prove.model.local import judged
from sapper.prove.model.records import record_of
from sapper.prove.model.result import Coverage, OpRecord, Pass, Phase
from sapper.prove.model.summary import badness, finding_of
from sapper.prove.model.tracker import Tracker
from sapper.prove.signature import signature
from sapper.prove.stored import Unkept
from sapper.prove.verdict import GREEN, RED, Outcome, Score
from sapper.prove.worker import is_out_of_memory

WATCHED: frozenset[Phase] = frozenset({"forward", "backward", "optimizer"})
_TRANSPARENT = frozenset(
    {"detach", "detach_", "alias", "lift_fresh", "requires_grad_", "_unsafe_view", "_reshape_alias", "set_", "record_stream"}
)


_NO_COMPUTATION = frozenset({"profiler", "prim", "prims"})


@functools.cache
def is_transparent(func: Any) -> bool:
    """Whether an op computes nothing: views, bookkeeping of the profiler."""
    if getattr(func, "namespace", "profiler") in _NO_COMPUTATION:
        return True
    return bool(func.is_view) or func._schema.name.partition("::")[2] in _TRANSPARENT


class Stopped(Exception):
    """The step cannot go on: the op that ended it is on record."""


@dataclass(kw_only=True)
class Tally:
    """What the shadow has seen in one pass."""

    records: list[OpRecord] = field(default_factory=list)
    calls: dict[int, Call] = field(default_factory=dict)
    """Of records that are findings, by index: op and inputs, to be run again; of each finding its worst record."""
    ops: int = 0
    judged: int = 0
    views: int = 0
    random: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def skip(self, why: str) -> None:
        """Count an op without a verdict."""
        self.skipped[why] = self.skipped.get(why, 0) + 1

    def coverage(self, *, drawn: int, dropout_off: int) -> Coverage:
        """As it is stored."""
        return Coverage(
            ops=self.ops, judged=self.judged, views=self.views, random=self.random, skipped=dict(self.skipped), drawn=drawn,
            dropout_off=dropout_off,
        )  # fmt: skip


class Shadow(TorchDispatchMode):
    """A dispatch mode around a step.

    Args:
        tracker: Knows where in the program an op stands.
        device: Type of the device under test; ops of the host alone are not judged.
        before: Called with index, name, phase and path before each op, so that it is known which one was under way.
        after: Called with each record.
        share: Of the ops that are judged; the others run as they are.
        seed: Of the choice which those are.
        avoid: Ids of calls that are computed on the CPU instead, because they ended the device's process.
        launched: Tells the device's own count of kernels; None where it keeps none.
        most_calls: Findings of which the inputs are kept: the first one, where a chain of errors may begin, and the worst.
    """

    def __init__(
        self, tracker: Tracker, *, device: str, before: Callable[[int, str, Phase, str, str], None] | None = None,
        after: Callable[[OpRecord], None] | None = None, share: float = 1.0, seed: int = 0, at: Pass = "first",
        avoid: frozenset[str] = frozenset(), most_calls: int = 32, launched: Callable[[], int | None] = lambda: None,
    ) -> None:
        super().__init__()
        self.tally = Tally()
        self._tracker, self._device, self._before, self._after = tracker, device, before, after
        self._share, self._seed, self._at, self._avoid, self._most_calls = share, seed, at, avoid, most_calls
        self._launched = launched
        self._copies = Copies()
        self._asked: set[str] = set()
        self._accused: dict[tuple[str | None, str, str], OpRecord] = {}
        """By finding, the record whose call is kept."""

    @contextlib.contextmanager
    def watching(self, module: Any) -> Iterator[None]:
        """In force together with the tracker."""
        with self._tracker.watching(module), self:
            yield

    def begin(self, phase: Phase, weights: dict[str, Any]) -> None:
        """A phase begins."""
        self._tracker.begin(phase, weights)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._tracker.phase not in WATCHED or getattr(func, "namespace", "profiler") in _NO_COMPUTATION:
            return func(*args, **kwargs)
        given = tensors_in((args, kwargs))
        path = self._tracker.path(given)
        if is_transparent(func):
            self.tally.views += 1
            out = func(*args, **kwargs)
            self._copies.follow(func, args, kwargs, out)
            return out
        if given and not any(one.device.type == self._device for one in given) and "device" not in kwargs:
            return func(*args, **kwargs)  # of the host: counters, numbers
        index = self.tally.ops
        self.tally.ops += 1
        if not self._chosen(index):
            return self._unjudged(func, args, kwargs, index, path)
        return self._watched(func, args, kwargs, given, index, path)

    def _chosen(self, index: int) -> bool:
        if self._share >= 1:
            return True
        digest = hashlib.sha256(f"{self._seed}:{index}".encode()).digest()
        return int.from_bytes(digest[:4], "big") < self._share * 2**32

    def _unjudged(self, func: Any, args: Any, kwargs: Any, index: int, path: str) -> Any:
        if self._before is not None:
            self._before(index, func.name(), self._tracker.phase, path, "")
        self.tally.skip("not-sampled")
        out = func(*args, **kwargs)
        if func._schema.is_mutable:
            self._copies.forget(leaves((args, kwargs)))
        return out

    def _watched(self, func: Any, args: Any, kwargs: Any, given: list[torch.Tensor], index: int, path: str) -> Any:
        try:
            host_args, host_kwargs = self._copies.on_host((args, kwargs), given)
            call = Call.of(func, host_args, host_kwargs)
        except Unkept:
            self.tally.skip("layout")
            return func(*args, **kwargs)
        if self._before is not None:
            self._before(index, call.op, self._tracker.phase, path, call.id)
        if call.id in self._avoid:  # its inputs are kept: it could not keep them itself
            self._note(index, call, path, outcome="crash", reason="prove.model.reason.avoided")
            return self._elsewhere(func, args, kwargs, call)
        before = self._launched()
        try:
            returned = func(*args, **kwargs)
        except Exception as error:
            return self._refused(error, func, args, kwargs, call, index, path)
        counted = before is None or self._launched() != before
        self._judge(call, returned, args, kwargs, index, path, counted=counted)
        return returned

    def _judge(self, call: Call, returned: Any, args: Any, kwargs: Any, index: int, path: str, *, counted: bool) -> None:
        if call.func._schema.is_mutable or call.changed:
            self._copies.forget(leaves((args, kwargs)))
        nature = call.nature
        if nature == "uninitialised":
            self.tally.ops -= 1
            return
        if nature == "random":
            self.tally.random += 1
            return
        made = call.outputs(returned, args, kwargs)
        got = self._copies.on_host(made, made)
        scores, why = judged(call, got)
        if why is not None:
            self.tally.skip(why)
            return
        self.tally.judged += 1
        reason = self._betrayed(call, returned, args, kwargs, got, counted=counted) if all(one.outcome in GREEN for one in scores) else None
        self._note(index, call, path, scores=scores, outcome="fallback" if reason else None, reason=reason)

    def _betrayed(
        self, call: Call, returned: Any, args: Any, kwargs: Any, got: list[torch.Tensor], *, counted: bool
    ) -> str | None:
        """What says that an op, right as it is, was not computed on the device; None where nothing does."""
        if not counted:
            given = tensors_in((args, kwargs))
            if must_launch(call.func, given, returned=returned, device=self._device):
                return "prove.model.reason.uncounted"
        return "prove.model.reason.bits" if self._has_the_hosts_bits(call, got) else None

    def _has_the_hosts_bits(self, call: Call, got: list[torch.Tensor]) -> bool:
        """Whether an op gave the CPU's own bits where another implementation would not; each op with its shapes is asked once."""
        if self._device == "cpu" or call.id in self._asked:
            return False
        self._asked.add(call.id)
        with torch.no_grad():
            return computed_by_host(call.op, call.tensors, got=got, peer=call.computation())

    def _note(
        self, index: int, call: Call, path: str, *, scores: list[Score] | None = None, outcome: Outcome | None = None,
        reason: str | None = None, said: str | None = None,
    ) -> None:
        record = record_of(
            call, scores or (), index=index, phase=self._tracker.phase, path=path, at=self._at, outcome=outcome, reason=reason, said=said
        )
        self.tally.records.append(record)
        if record.outcome in RED:
            self._keep(record, call)
        if self._after is not None:
            self._after(record)

    def _keep(self, record: OpRecord, call: Call) -> None:
        key, known = finding_of(record), self._accused.get(finding_of(record))
        if known is not None:
            if badness(record) >= badness(known):
                return
            del self.tally.calls[known.index]
        elif len(self._accused) >= self._most_calls:
            first, *others = self._accused
            mildest = max(others, key=lambda one: badness(self._accused[one]), default=first)
            if not others or badness(record) >= badness(self._accused[mildest]):
                return
            del self.tally.calls[self._accused.pop(mildest).index]
        self._accused[key] = record
        self.tally.calls[record.index] = call.kept()

    def _refused(self, error: Exception, func: Any, args: Any, kwargs: Any, call: Call, index: int, path: str) -> Any:
        """The stack raised. Where the CPU computes the op the step goes on with that, so that one absent op hides no other."""
        said = f"{type(error).__name__}: {error}"[:500]
        if is_out_of_memory(error):
            self._note(index, call, path, outcome="memory", said=said)
            raise Stopped from error
        absent = isinstance(error, NotImplementedError) or "not implemented" in said or "not supported" in said
        try:
            returned = self._elsewhere(func, args, kwargs, call)
        except Exception:
            raise error from None  # the program's own mistake: no stack can run it
        self.tally.skip("unsupported" if absent else "raised")
        self._note(index, call, path, outcome="unsupported" if absent else "crash", said=said)
        return returned

    def _elsewhere(self, func: Any, args: Any, kwargs: Any, call: Call) -> Any:
        """The op on the CPU, in the place of the device's."""
        host_args, host_kwargs = call.bound(call.tensors)
        returned = func(*host_args, **host_kwargs)
        here, there = signature(func).bound(args, kwargs), signature(func).bound(host_args, host_kwargs)
        pairs: dict[int, Any] = {}
        for name in call.changed:
            for mine, theirs in zip(leaves(here[name]), leaves(there[name]), strict=True):
                mine.copy_(theirs)
                pairs[id(theirs)] = mine
        self._copies.forget(leaves((args, kwargs)))
        return torch.utils._pytree.tree_map(
            lambda one: pairs.get(id(one), one.to(self._target(args, kwargs))) if isinstance(one, torch.Tensor) else one, returned
        )

    def _target(self, args: Any, kwargs: Any) -> Any:
        if kwargs.get("device") is not None:
            return kwargs["device"]
        return next((one.device for one in tensors_in((args, kwargs))), torch.device("cpu"))
