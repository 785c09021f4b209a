"""The event simulation against a simulator that takes every iteration on its own, and against what queueing theory says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from predict_kit import cluster, model
from serve_kit import HandEngine, memory, times, token_by_token

from sapper.errors import BadPlan
from sapper.predict.serve import ServeJob, ServePlan, fluid, load
from sapper.predict.serve.clock import Clock
from sapper.predict.serve.deployment import Deployment, Transfer
from sapper.predict.serve.measure import measure
from sapper.predict.serve.price import price
from sapper.predict.serve.replica import Replica
from sapper.predict.serve.requests import Requests
from sapper.predict.serve.simulate import simulate
from sapper.predict.serve.slo import Slo
from sapper.predict.serve.speculate import Speculation
from sapper.predict.serve.traffic import Length, Traffic

CHAT = Traffic(arrivals="poisson", rate_per_s=5.0, prompt=Length(tokens=1024, cv_ratio=0.5), answer=Length(tokens=256, cv_ratio=0.5))
LINK = Transfer(bandwidth_bytes_per_s=50e9, latency_s=1e-3)


def closed(users: int, **more: object) -> Traffic:
    return Traffic(arrivals="closed", concurrency=users, prompt=CHAT.prompt, answer=CHAT.answer, **more)  # type: ignore[arg-type]


def both(engine: HandEngine, *, count: int, rate: float, seed: int, prompt: float = 800, answer: float = 100) -> tuple[Requests, list]:
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1 / rate, count))
    prompts = np.clip(np.rint(rng.lognormal(math.log(prompt), 0.8, count)), 1, 6000)
    answers = np.clip(np.rint(rng.lognormal(math.log(answer), 0.8, count)), 1, 1000)
    stream = Requests(arrival, prompts, answers)
    replica = Replica(Clock(engine), stream)
    for request, at_s in enumerate(stream.arrival_s):
        replica.run_until(at_s)
        replica.submit(request, at_s)
    replica.run_until(math.inf)
    slow, thrown = token_by_token(engine, list(zip(arrival, prompts, answers, strict=True)))
    assert stream.preempted == thrown
    return stream, slow


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    seed=st.integers(0, 2**16),
    rate=st.sampled_from([0.5, 3.0, 12.0, 40.0]),
    windows=st.sampled_from([(None,), (None, 512), (128, 1024)]),
    cache_gib=st.sampled_from([1.5, 4.0, 40.0]),
    budget=st.sampled_from([256, 2048, 8192]),
    sequences=st.sampled_from([4, 64, 256]),
)
def test_every_request_has_the_times_of_the_slow_simulator(
    seed: int, rate: float, windows: tuple[int | None, ...], cache_gib: float, budget: int, sequences: int
) -> None:
    engine = HandEngine(
        plan=ServePlan(max_batched_tokens=budget, max_sequences=sequences), times=times(windows=windows), memory=memory(cache_gib=cache_gib)
    )
    stream, slow = both(engine, count=40, rate=rate, seed=seed)
    np.testing.assert_allclose(stream.first_s, [one.first_s for one in slow], rtol=1e-9)
    np.testing.assert_allclose(stream.finish_s, [one.finish_s for one in slow], rtol=1e-9)


def test_a_full_cache_throws_out_the_last_and_computes_it_again() -> None:
    engine = HandEngine(memory=memory(cache_gib=1.5))
    stream, slow = both(engine, count=60, rate=20.0, seed=3, answer=300)
    assert stream.preempted > 0
    np.testing.assert_allclose(stream.finish_s, [one.finish_s for one in slow], rtol=1e-9)


@pytest.mark.slow
def test_one_server_with_fixed_service_waits_as_the_formula_says() -> None:
    """M/D/1 (Pollaczek-Khinchine): mean wait = load * service / (2 (1 - load)). A budget of one prompt makes the engine that server."""
    engine = HandEngine(plan=ServePlan(max_batched_tokens=2000))
    service_s = float(engine.times.prefill_s(np.array(2000.0)))
    for share in (0.3, 0.7):
        traffic = Traffic(arrivals="poisson", rate_per_s=share / service_s, prompt=Length(tokens=2000), answer=Length(tokens=1))
        found = measure(simulate(Deployment(engine=engine), traffic, requests=20000))
        assert found.ttft.mean_s == pytest.approx(service_s + share * service_s / (2 * (1 - share)), rel=0.03)
        assert found.busy_share == pytest.approx(share, rel=0.02)


def test_even_arrivals_below_capacity_never_wait() -> None:
    engine = HandEngine(plan=ServePlan(max_batched_tokens=2000))
    service_s = float(engine.times.prefill_s(np.array(2000.0)))
    traffic = Traffic(arrivals="even", rate_per_s=0.9 / service_s, prompt=Length(tokens=2000), answer=Length(tokens=1))
    found = measure(simulate(Deployment(engine=engine), traffic, requests=500))
    assert found.ttft.p99_s == pytest.approx(service_s, rel=1e-6)


@pytest.mark.parametrize("rate", [2.0, 8.0])
def test_littles_law_holds(rate: float) -> None:
    run = simulate(Deployment(engine=HandEngine()), CHAT.at_rate(rate), requests=4000)
    found = measure(run)
    stream, kept = run.requests, slice(run.warm, run.end)
    decoding_s = (stream.column("finish_s")[kept] - stream.column("first_s")[kept]).mean()
    assert found.batch * found.busy_share == pytest.approx(found.requests_per_s * decoding_s, rel=0.03)
    assert found.sustained


@pytest.mark.parametrize("users", [1, 16, 100])
def test_a_closed_loop_is_what_the_steady_state_says(users: int) -> None:
    engine = HandEngine()
    found = measure(simulate(Deployment(engine=engine), closed(users), requests=2000))
    steady = fluid.steady(Clock(engine), sequences=users, prompt=1024, answer=256)
    assert found.batch == pytest.approx(users, rel=0.05)
    assert found.tpot is not None
    assert found.tpot.mean_s == pytest.approx(steady.tpot_s, rel=0.05)
    assert found.requests_per_s == pytest.approx(steady.rate_per_s, rel=0.06)
    assert found.requests_per_s * found.e2e.mean_s == pytest.approx(users, rel=0.05)


@pytest.mark.parametrize("replicas", [1, 4])
def test_each_request_under_way_at_a_replica_holds_up_its_front_end(replicas: int) -> None:
    users = 32 * replicas
    engines = [HandEngine(times=replace(times(), stream_s=seconds)) for seconds in (0.0, 1e-3)]
    usual, held = (measure(simulate(Deployment(engine=one, replicas=replicas), closed(users), requests=1000)) for one in engines)
    assert held.ttft.mean_s - usual.ttft.mean_s == pytest.approx(31e-3, rel=0.02)
    assert held.tpot == usual.tpot  # the engine goes on meanwhile


def test_beyond_capacity_the_queue_is_said_to_grow() -> None:
    engine = HandEngine()
    most = fluid.capacity_per_s(Clock(engine), prompt=1024, answer=256)
    calm = measure(simulate(Deployment(engine=engine), CHAT.at_rate(0.8 * most)))
    flooded = measure(simulate(Deployment(engine=engine), CHAT.at_rate(1.3 * most)))
    assert calm.sustained and not flooded.sustained
    assert flooded.overload == pytest.approx(1.3, rel=1e-6)
    assert flooded.output_tokens_per_s == pytest.approx(most * 256, rel=0.05)


@pytest.mark.slow
def test_replicas_share_a_stream_and_the_seed_decides_it() -> None:
    engine = HandEngine()
    one, again = (measure(simulate(Deployment(engine=engine, replicas=4), CHAT.at_rate(32.0))) for _ in range(2))
    assert one == again
    all_four = measure(simulate(Deployment(engine=engine, replicas=4, balancer="least-loaded"), CHAT.at_rate(32.0), requests=6000))
    assert one.output_tokens_per_s == pytest.approx(all_four.output_tokens_per_s, rel=0.03)
    assert one.tpot is not None and all_four.tpot is not None
    assert one.tpot.mean_s == pytest.approx(all_four.tpot.mean_s, rel=0.1)


def test_each_attention_rank_is_a_loop_of_its_own() -> None:
    one = measure(simulate(Deployment(engine=HandEngine()), closed(32)))
    four = measure(simulate(Deployment(engine=HandEngine(plan=ServePlan(attention_dp=4))), closed(128)))
    assert one.tpot is not None and four.tpot is not None
    assert four.batch == pytest.approx(4 * one.batch)
    assert four.tpot == one.tpot
    assert four.output_tokens_per_s == pytest.approx(4 * one.output_tokens_per_s)
    assert four.cache_share == pytest.approx(one.cache_share)


def test_workers_of_their_own_for_prompts_keep_the_gaps_between_tokens_even() -> None:
    engine = HandEngine()
    mixed = measure(simulate(Deployment(engine=engine, replicas=2), CHAT.at_rate(10.0)), Slo(ttft_s=0.5, tpot_s=0.05))
    apart = Deployment(engine=engine, prefill=engine, prefill_replicas=1, transfer=LINK)
    split = measure(simulate(apart, CHAT.at_rate(10.0)), Slo(ttft_s=0.5, tpot_s=0.05))
    assert mixed.itl is not None and split.itl is not None
    assert split.itl.p99_s < 1.3 * split.itl.p50_s < mixed.itl.p99_s
    assert split.prompt_busy_share is not None and 0 < split.prompt_busy_share < 1
    assert split.goodput_per_s == pytest.approx(10.0, rel=0.05)


def test_a_slow_link_delays_the_second_token_and_not_the_first() -> None:
    engine = HandEngine()
    near, far = (
        measure(simulate(Deployment(engine=engine, prefill=engine, prefill_replicas=1, transfer=link), CHAT))
        for link in (LINK, Transfer(bandwidth_bytes_per_s=1e8, latency_s=1e-3))
    )
    moved_s = 1024 * 131072 / 1e8
    assert far.ttft == near.ttft
    assert far.e2e.mean_s - near.e2e.mean_s == pytest.approx(moved_s, rel=0.1)


@pytest.mark.slow
def test_a_closed_loop_over_both_kinds_of_workers_keeps_its_users() -> None:
    engine = HandEngine()
    found = measure(simulate(Deployment(engine=engine, replicas=2, prefill=engine, prefill_replicas=1, transfer=LINK), closed(64)))
    assert found.requests_per_s * found.e2e.mean_s == pytest.approx(64, rel=0.05)


def test_speculation_gives_the_tokens_of_the_formula() -> None:
    """1 + a + a^2 for two drafted tokens (arXiv:2211.17192, equation 1)."""
    draft = Speculation(draft=2, accept_share=0.5, cost_ratio=0.0)
    assert draft.tokens_per_iteration == pytest.approx(1.75)
    plain = measure(simulate(Deployment(engine=HandEngine()), closed(1)))
    ahead = measure(simulate(Deployment(engine=HandEngine(), speculation=draft), closed(1)))
    costly = Speculation(draft=2, accept_share=0.5, cost_ratio=0.375)
    none = measure(simulate(Deployment(engine=HandEngine(), speculation=costly), closed(1)))
    assert plain.tpot is not None and ahead.tpot is not None and none.tpot is not None
    assert plain.tpot.mean_s / ahead.tpot.mean_s == pytest.approx(1.75, rel=0.02)
    assert none.tpot.mean_s == pytest.approx(plain.tpot.mean_s, rel=0.02)


def test_a_request_larger_than_the_cache_is_refused() -> None:
    traffic = Traffic(arrivals="poisson", rate_per_s=1.0, prompt=Length(tokens=100_000), answer=Length(tokens=10))
    with pytest.raises(BadPlan) as caught:
        simulate(Deployment(engine=HandEngine(memory=memory(cache_gib=4))), traffic, requests=10)
    assert caught.value.code == "SP-SERVE-030"


@pytest.mark.slow
@pytest.mark.parametrize("users", [8, 64])
def test_it_agrees_with_the_closed_form_that_the_efficiencies_were_fitted_with(users: int) -> None:
    """Published runs are explained by :mod:`sapper.predict.serve.load`; what it says of a closed loop holds here as well."""
    engine = price(ServeJob(model=model()), cluster("nvidia-h100-sxm-80gb", 8), ServePlan(tp=2))
    found = measure(simulate(Deployment(engine=engine), closed(users), requests=1000))
    form = load.closed(
        engine.iteration, engine.memory, engine.factors, plan=engine.plan, concurrency=float(users), input_len=1024.0, output_len=256.0
    )
    assert found.tpot is not None
    assert found.tpot.mean_s == pytest.approx(float(engine.factors @ form.tpot), rel=0.06)
