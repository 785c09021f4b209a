"""Replica: the event simulation of one continuous-batching engine.

An iteration (Orca, OSDI 2022) gives every decoding request its next token first; what is left of the token budget goes to chunks
of prompts in order of arrival (Sarathi-Serve, arXiv:2403.02310, section 4; vLLM's scheduler since version 1). The cache is paged
(arXiv:2309.06180): a request is admitted when the pages of its prompt are free, grows by a page at a time, and when none is
left the request that was admitted last is thrown out, to be computed again from its tokens (that paper's section 4.5).

Between two changes of who decodes, iteration times grow linearly, so a run of k iterations is one step here:
sum over j < k of (first + j * growth) = k * first + growth * k * (k - 1) / 2. What costs time are arrivals, completions and prompt
chunks, not tokens.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

from sapper.predict.serve.clock import Clock
from sapper.predict.serve.log import Log
from sapper.predict.serve.requests import Requests

HEADROOM = 0.01
"""Share of the cache that must stay free when a request is admitted, so that the next iterations do not throw it out again
(vLLM's watermark)."""
_NEVER = math.inf


class Replica:
    """One engine loop (an attention rank of a replica) with its queue, its batch and its cache. Times are seconds since the start of
    the simulation."""

    def __init__(self, clock: Clock, requests: Requests, *, log: Log | None = None, prompts_only: bool = False) -> None:
        self.clock = clock
        self.requests = requests
        self.log = log or Log()
        self.now_s = 0.0
        self.prompts_only = prompts_only
        """A prefill worker: a request leaves with its first token."""
        self.waiting: deque[int] = deque()
        self.decoding = 0
        self._prompts: list[list[float]] = []
        """Admitted prompts as [request, tokens to go, tokens done], in order."""
        self._iteration = 0
        self._finish: list[tuple[int, int]] = []
        """Heap of (iteration after which it is finished, request); an entry that :attr:`_finish_at` contradicts is stale."""
        self._finish_at: dict[int, int] = {}
        self._joined: dict[int, tuple[int, float]] = {}
        """Decoding request -> iteration at which it joined, its context then."""
        self._admitted: list[int] = []
        """Decoding requests in the order in which they joined; finished ones are dropped when the end is reached."""
        kinds = len(clock.windows)
        self._sums = [0.0] * kinds
        """Cached tokens that the decoding requests read, for each type of layer."""
        self._growing = [0] * kinds
        """Decoding requests whose window is not yet full."""
        self._crossings: list[tuple[int, int, int]] = []
        """Heap of (iteration after which a window is full, type of layer, request)."""
        self._prompt_bytes = 0.0
        self._promptless: set[int] = set()
        """Requests whose cache arrives over a link: they join the batch without a prompt."""

    @property
    def load(self) -> int:
        """Requests that it has not finished."""
        return len(self.waiting) + self.decoding + len(self._prompts)

    def submit(self, request: int, at_s: float, *, computed: bool = False) -> None:
        """Put a request into the queue at ``at_s``, which is not before an iteration that has begun."""
        if not self.load and self.now_s < at_s:
            self.now_s = at_s
        if computed:
            self._promptless.add(request)
        self.waiting.append(request)

    def run_until(self, until_s: float) -> list[int]:
        """Work until ``until_s`` or until nothing is left; the iteration under way at that time is finished. Returns who finished."""
        finished: list[int] = []
        while self.now_s < until_s and self.load:
            finished += self.step(until_s)
        return finished

    def step(self, until_s: float = _NEVER) -> list[int]:
        """One iteration with prompts, or a run of iterations without; returns who finished."""
        self._admit()
        if self._prompts and self.clock.budget > self.decoding * self.clock.rows:
            return self._mixed()
        return self._decode(until_s)

    def held_bytes(self) -> float:
        """Cache in use."""
        clock = self.clock
        return _dot(clock.token_bytes, self._sums) + self.decoding * clock.pad_bytes + self._prompt_bytes

    # admission and memory

    def _admit(self) -> None:
        clock, requests = self.clock, self.requests
        if not self.waiting:
            return
        room = clock.capacity_bytes * (1.0 - HEADROOM)
        budget = clock.budget - sum(prompt[1] for prompt in self._prompts)
        while self.waiting and budget > 0 and self.decoding + len(self._prompts) < clock.sequences:
            request = self.waiting[0]
            need = clock.held_bytes(requests.context[request])
            if self.held_bytes() + need > room and self.decoding + len(self._prompts):
                self.log.blocked += 1
                return
            self.waiting.popleft()
            if request in self._promptless:
                self._promptless.remove(request)
                self._join(request)
                continue
            self._prompts.append([request, requests.context[request], 0.0])
            self._prompt_bytes += need
            budget -= requests.context[request]

    def _make_room(self) -> None:
        """Throw out whoever came last until the next iteration's tokens have pages."""
        clock = self.clock
        while self.decoding + len(self._prompts) > 1 and self.held_bytes() + self._growth_bytes() > clock.capacity_bytes:
            self.requests.preempted += 1
            if self._prompts:
                request = int(self._prompts.pop()[0])
                self._prompt_bytes -= clock.held_bytes(self.requests.context[request])
            else:
                request = self._last_admitted()
                self.requests.context[request] = self._leave(request)
            self.waiting.appendleft(request)

    def _growth_bytes(self) -> float:
        return self.clock.grow * _dot(self.clock.token_bytes, self._growing)

    def _last_admitted(self) -> int:
        while self._admitted[-1] not in self._joined:
            self._admitted.pop()
        return self._admitted.pop()

    # who decodes

    def _join(self, request: int) -> None:
        """``request`` decodes from the next iteration on."""
        clock, requests = self.clock, self.requests
        context = requests.context[request]
        self.decoding += 1
        self._joined[request] = (self._iteration, context)
        self._admitted.append(request)
        at = self._iteration + math.ceil(requests.remaining[request] / clock.grow - 1e-9)
        self._finish_at[request] = at
        heappush(self._finish, (at, request))
        for kind, window in enumerate(clock.windows):
            self._sums[kind] += min(context, window)
            if context < window:
                self._growing[kind] += 1
                if window < _NEVER:
                    heappush(self._crossings, (self._iteration + math.ceil((window - context) / clock.grow), kind, request))

    def _leave(self, request: int) -> float:
        """``request`` no longer decodes; returns its context."""
        joined, start = self._joined.pop(request)
        del self._finish_at[request]
        gained = (self._iteration - joined) * self.clock.grow
        context = start + min(gained, self.requests.remaining[request])
        self.requests.remaining[request] -= min(gained, self.requests.remaining[request])
        self.decoding -= 1
        for kind, window in enumerate(self.clock.windows):
            if start + gained >= window:
                self._sums[kind] -= window
            else:
                self._sums[kind] -= start + gained
                self._growing[kind] -= 1
        if not self.decoding:  # nothing of a long sum's rounding stays
            self._sums = [0.0] * len(self._sums)
        return context

    def _advance(self, iterations: int) -> list[int]:
        """All decoding requests gain the tokens of ``iterations``; returns who is finished."""
        gain = iterations * self.clock.grow
        self._iteration += iterations
        for kind, growing in enumerate(self._growing):
            self._sums[kind] += gain * growing
        while self._crossings and self._crossings[0][0] <= self._iteration:
            self._cross(*heappop(self._crossings))
        finished = []
        while self._finish and self._finish[0][0] <= self._iteration:
            at, request = heappop(self._finish)
            if self._finish_at.get(request) == at:
                self._leave(request)
                self.requests.finish_s[request] = self.now_s
                finished.append(request)
        return finished

    def _cross(self, at: int, kind: int, request: int) -> None:
        """The window of ``request`` is full; what it grew beyond is taken back."""
        if request not in self._joined:
            return
        joined, start = self._joined[request]
        window = self.clock.windows[kind]
        if start >= window or at != joined + math.ceil((window - start) / self.clock.grow):
            return
        self._growing[kind] -= 1
        self._sums[kind] -= start + (at - joined) * self.clock.grow - window

    # time

    def _decode(self, until_s: float) -> list[int]:
        """Iterations without prompts until somebody finishes, a window fills, the cache is full, or ``until_s`` has come."""
        self._make_room()
        if not self.decoding:
            return []
        clock = self.clock
        first = clock.decode_s(self.decoding, _dot(clock.context_s, self._sums))
        growth = clock.growth_s(clock.grow * _dot(clock.context_s, self._growing))
        while self._finish_at.get(self._finish[0][1]) != self._finish[0][0]:
            heappop(self._finish)
        count = self._finish[0][0] - self._iteration
        if self._crossings:
            count = max(1, min(count, self._crossings[0][0] - self._iteration))
        grown = self._growth_bytes()
        if grown > 0 and self.decoding > 1:
            count = max(1, min(count, int((clock.capacity_bytes - self.held_bytes()) // grown)))
        spent = count * first + growth * count * (count - 1) / 2
        if self.now_s + spent > until_s:
            count = min(count, _iterations_until(until_s - self.now_s, first, growth))
            spent = count * first + growth * count * (count - 1) / 2
        return self._spend(spent, count)

    def _mixed(self) -> list[int]:
        """One iteration of all decoding requests and as many prompt tokens as the budget leaves."""
        self._make_room()
        if not self._prompts:
            return self._decode(self.now_s)
        clock = self.clock
        room = clock.budget - self.decoding * clock.rows
        left, attending_s = float(room), 0.0
        done: list[int] = []
        for prompt in self._prompts:
            take = min(prompt[1], left)
            if take <= 0:
                break
            attending_s += clock.attending_s(take, prompt[2])
            left -= take
            prompt[1] -= take
            prompt[2] += take
            if prompt[1] <= 0:
                done.append(int(prompt[0]))
        added = clock.prompt_s(self.decoding, tokens=room - int(left), attending_s=attending_s)
        spent = clock.decode_s(self.decoding, _dot(clock.context_s, self._sums)) + added
        finished = self._spend(spent, 1, prompts=len(done), prompt_s=added)
        for request in done:
            self._prompt_bytes -= clock.held_bytes(self.requests.context[request])
        self._prompts = [prompt for prompt in self._prompts if prompt[1] > 0]
        return finished + [request for request in done if self._first_token(request)]

    def _first_token(self, request: int) -> bool:
        """The prompt of ``request`` is computed and has given a token; whether it was the last."""
        requests = self.requests
        if requests.first_s[request] < 0:
            requests.first_s[request] = self.now_s
        requests.remaining[request] -= 1.0
        requests.context[request] += 1.0
        if requests.remaining[request] <= 0:
            requests.finish_s[request] = self.now_s
            return True
        if self.prompts_only:
            return True
        self._join(request)
        return False

    def _spend(self, spent_s: float, iterations: int, *, prompts: int = 0, prompt_s: float = 0.0) -> list[int]:
        """Let the time of ``iterations`` pass."""
        decoding = self.decoding
        self.now_s += spent_s
        held = self.held_bytes()
        self.log.add(self.now_s, spent_s, iterations=iterations, decoding=decoding, prompts=prompts, prompt_s=prompt_s, held_bytes=held)
        return self._advance(iterations)


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    """Sum of products; a plain loop, since there are one or two types of layers."""
    total = 0.0
    for a, b in zip(left, right):  # noqa: B905  # strict costs a third of the time
        total += a * b
    return total


def _iterations_until(wait_s: float, first_s: float, growth_s: float) -> int:
    """Fewest iterations that together take at least ``wait_s``: the root of growth/2 k^2 + (first - growth/2) k = wait."""
    if wait_s <= 0:
        return 1
    if growth_s <= 0:
        return max(1, math.ceil(wait_s / first_s - 1e-9))
    half = growth_s / 2
    slope = first_s - half
    root = (-slope + math.sqrt(slope * slope + 4 * half * wait_s)) / (2 * half)
    return max(1, math.ceil(root - 1e-9))
