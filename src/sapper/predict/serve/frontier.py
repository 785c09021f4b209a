"""Frontier: the most tokens per second and chip at each speed that one user sees.

Plans and batch sizes are priced by their steady states; those that no other beats on both axes are simulated as closed loops.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from sapper.evidence import Interval
from sapper.evidence.fact import Grade
from sapper.predict.serve import costs, fluid
from sapper.predict.serve.clock import Clock
from sapper.predict.serve.deployment import Deployment
from sapper.predict.serve.plan import ServePlan
from sapper.predict.serve.predict import three
from sapper.predict.serve.question import ServeQuestion
from sapper.predict.serve.reasons import grade_of
from sapper.predict.serve.search import engines_of
from sapper.predict.serve.step import Engine
from sapper.predict.serve.target import Target
from sapper.predict.serve.traffic import Traffic

POINTS = 10
"""Points of a chip's frontier that are simulated."""
LOOPS = 4.0
"""Requests of a simulation over its users, at least."""
FEWEST = 200


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One plan at one number of users."""

    plan: ServePlan
    weights_dtype: str
    chips: int
    """Of one replica."""
    users: int
    """Of one replica, each of whom always waits for an answer."""
    user_tokens_per_s: Interval
    """1 / median TPOT."""
    chip_tokens_per_s: Interval
    """Output tokens of one chip."""
    ttft: Interval
    """Median, in seconds."""
    cost: dict[str, Interval]
    """Per million output tokens by currency and basis."""


class Frontier(msgspec.Struct, frozen=True, kw_only=True):
    """A chip's points, the fastest for users first."""

    cluster: str
    chip: str
    points: tuple[Point, ...]
    plans: int
    """Looked at, each at every number of users."""
    elapsed_s: float
    grade: Grade


@dataclass(frozen=True, kw_only=True)
class _Steady:
    engine: Engine
    users: int
    user_rate: float
    chip_rate: float


def frontier(question: ServeQuestion, target: Target) -> Frontier:
    """The frontier of one chip for the question's model and lengths.

    Raises:
        SapperError: No plan holds the model, or a value is missing.
    """
    start = time.perf_counter()
    engines, looked_at = engines_of(question, target)
    steady = [state for engine in engines for state in _states(question, engine)]
    kept = _thinned(_best(steady))
    points = tuple(_point(question, target, state) for state in kept)
    ordered = sorted(points, key=lambda point: -point.user_tokens_per_s.mid)
    return Frontier(
        cluster=target.name, chip=target.chip.id, points=tuple(_undominated(ordered)), plans=looked_at,
        elapsed_s=time.perf_counter() - start, grade=grade_of(engines[0], ()),
    )  # fmt: skip


def _states(question: ServeQuestion, engine: Engine) -> list[_Steady]:
    """Steady states of an engine at 1, 2, 4, ... users a rank, and at as many as it holds."""
    clock = Clock(engine, speculation=question.speculation)
    prompt, answer = question.traffic.prompt.tokens, question.traffic.answer.tokens
    most = fluid.most_sequences(clock, prompt=prompt, answer=answer)
    sizes = [users for power in range(16) if (users := 2**power) < most] + [max(1, int(most))]
    found = []
    for users in sizes:
        state = fluid.steady(clock, sequences=float(users), prompt=prompt, answer=answer)
        if state.tpot_s > 0:
            found.append(
                _Steady(
                    engine=engine,
                    users=users * clock.ranks,
                    user_rate=1 / state.tpot_s,
                    chip_rate=state.rate_per_s * clock.ranks * answer / engine.plan.chips,
                )
            )
    return found


def _best(states: Sequence[_Steady]) -> list[_Steady]:
    """Those that no other beats on both axes."""
    kept: list[_Steady] = []
    for state in sorted(states, key=lambda one: (-one.user_rate, -one.chip_rate)):
        if not kept or state.chip_rate > kept[-1].chip_rate:
            kept.append(state)
    return kept


def _thinned(states: list[_Steady]) -> list[_Steady]:
    """At most :data:`POINTS`, evenly spread over their order, both ends kept."""
    if len(states) <= POINTS:
        return states
    step = (len(states) - 1) / (POINTS - 1)
    return [states[round(at * step)] for at in range(POINTS)]


def _undominated(points: Sequence[Point]) -> list[Point]:
    """By the simulations this time."""
    kept: list[Point] = []
    for point in points:
        if not kept or point.chip_tokens_per_s.mid > kept[-1].chip_tokens_per_s.mid:
            kept.append(point)
    return kept


def _point(question: ServeQuestion, target: Target, state: _Steady) -> Point:
    engine = state.engine
    loop: Traffic = replace(question.traffic, arrivals="closed", rate_per_s=None, concurrency=state.users, trace=None)
    deployment = Deployment(engine=engine, speculation=question.speculation)
    runs = three(deployment, loop, slo=None, requests=max(FEWEST, round(LOOPS * state.users)))
    grade = grade_of(engine, ())
    tokens = runs.interval(lambda run: run.output_tokens_per_s, unit="tokens/s", grade=grade)
    paid = costs.bill(
        target.group_for(engine.plan.chips), engine.plan.chips, tokens_per_s=tokens, input_tokens_per_s=runs.likely.input_tokens_per_s,
        busy_share=runs.likely.busy_share, prompt_share=runs.likely.prompt_share, power_price=target.power_price, pue=target.pue,
    )  # fmt: skip
    return Point(
        plan=engine.plan,
        weights_dtype=engine.job.weights_dtype,
        chips=engine.plan.chips,
        users=state.users,
        user_tokens_per_s=runs.interval(lambda run: 1 / run.tpot.p50_s if run.tpot else 0.0, unit="tokens/s", grade=grade),
        chip_tokens_per_s=costs.scaled(tokens, 1.0 / engine.plan.chips, unit="tokens/s/chip"),
        ttft=runs.interval(lambda run: run.ttft.p50_s, unit="s", grade=grade),
        cost=paid.cost,
    )
