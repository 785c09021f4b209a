"""Pricing of an engine's iteration and a replica's memory, loads in the mean, and the predictor of published inference rows."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest

from sapper.chips import catalogue
from sapper.clusters.spec import parse_cluster
from sapper.errors import BadValue
from sapper.predict.rows.shipped import shipped_rows
from sapper.predict.serve import Priced, ServeJob, ServePlan, load, price, price_many
from sapper.predict.serve.dies import die_of, first_released, released
from sapper.predict.serve.parts import parts_of
from sapper.predict.serve.plan import Admission
from sapper.predict.serve.posterior import Posterior, prior_posterior, shipped_posterior, slim
from sapper.predict.serve.power import Draw
from sapper.predict.serve.predictor import ServePredictor, chords, thinned
from sapper.predict.serve.records import records
from sapper.predict.serve.rows import ServeCase, all_cases
from sapper.predict.serve.separate import Separate, disaggregated
from sapper.predict.serve.stacks import ported
from sapper.predict.serve.terms import PLACE, pairs, reached, split, zeros
from sapper.workloads import load as load_model

LLAMA, DEEPSEEK, MIXTRAL, GEMMA = "llama-3.1-8b", "deepseek-v3", "mixtral-8x7b", "gemma-3-27b"


@functools.cache
def engine(model: str = LLAMA, chip: str = "8x h100-sxm-80gb", **changes: object) -> Priced:
    plan = {name: changes.pop(name) for name in tuple(changes) if name in ServePlan.__struct_fields__}
    return price(ServeJob(model=load_model(model), **changes), parse_cluster(chip), ServePlan(**plan))


def token_bytes(priced: Priced) -> float:
    return sum(layer.token_bytes for layer in priced.times.layers)


def decode_s(priced: Priced, batch: float, context: float) -> float:
    return float(priced.times.decode_s(np.array(batch), np.array(context)))


def separate(**changes: object) -> Separate:
    priced = engine()
    usual = {"plan": priced.plan, "ranks": 4.0, "readers": None, "input_len": 4000, "output_len": 200}
    return Separate(decoder=priced.iteration, reader=priced.iteration, **usual | changes)


# -- memory


def test_grouped_keys_and_values_are_cut_until_each_chip_has_one_head() -> None:
    whole = 2 * 8 * 128 * 32 * 2  # keys and values, kv heads, head dim, layers, bytes

    assert whole == token_bytes(engine())
    assert whole / 8 == token_bytes(engine(tp=8))
    assert whole / 8 == token_bytes(engine(chip="16x h100-sxm-80gb", tp=16))  # copies
    assert whole / 2 == token_bytes(engine(cache_dtype="fp8"))
    assert whole / 2 == token_bytes(engine(pp=2))


def test_a_latent_cache_is_small_and_copied_to_every_chip() -> None:
    whole = (512 + 64) * 61 * 2

    assert whole == token_bytes(engine(DEEPSEEK, chip="8x h200-sxm-141gb", tp=8))
    assert whole == token_bytes(engine(DEEPSEEK, chip="8x h200-sxm-141gb", tp=1, attention_dp=8))


def test_windowed_layers_read_no_more_than_their_window() -> None:
    layers = engine(GEMMA).times.layers

    assert sorted(layer.window or 0 for layer in layers) == [0, 1024]
    short = next(layer for layer in layers if layer.window)
    assert short.read_tokens(np.array(100_000.0)) == 1024
    assert short.pairs(np.array(1.0), 5000.0) == 1024
    assert pairs(np.array(3000.0), 1024) == 1024 * 1025 / 2 + (3000 - 1024) * 1024


def test_weights_are_stored_in_their_dtype_and_the_rest_in_16_bit() -> None:
    model = load_model(LLAMA)
    linears = parts_of(model).linears
    inside = float((linears.n * linears.k * linears.layers)[linears.quantised].sum())

    assert engine().memory.weights_bytes == pytest.approx(2 * model.params)
    assert engine(weights_dtype="int8").memory.weights_bytes == pytest.approx(2 * model.params - inside)
    assert engine(weights_dtype="fp4").memory.weights_bytes == pytest.approx(2 * model.params - (2 - 0.5625) * inside)
    assert engine(tp=8).memory.weights_bytes == pytest.approx(2 * model.params / 8, rel=1e-3)


def test_all_experts_count_in_memory_not_the_active_ones() -> None:
    priced = engine(MIXTRAL, tp=2)
    cut = engine(MIXTRAL, tp=4, ep=4)

    assert priced.memory.weights_bytes == pytest.approx(load_model(MIXTRAL).params, rel=0.01)  # 2 bytes over 2 chips
    assert cut.memory.weights_bytes == pytest.approx(load_model(MIXTRAL).params / 2, rel=0.02)


# -- time


def test_few_tokens_touch_few_experts() -> None:
    touched = reached(np.array(128.0), topk=np.array(8.0), tokens=np.array([1.0, 2.0, 16.0, 4096.0]))

    assert touched[0] == pytest.approx(8)
    assert touched[1] == pytest.approx(16 - 8 * 8 / 128)
    assert np.all(np.diff(touched) > 0)
    assert touched[-1] == pytest.approx(128)


def test_the_soft_roofline_lies_between_the_greater_and_the_sum() -> None:
    for compute, memory in ((1.0, 1.0), (1.0, 0.1), (0.01, 1.0), (0.0, 1.0)):
        parts = split(np.array(compute), np.array(memory), unit="matmul")
        seconds = parts[0] / 0.7 + parts[1] / 0.8

        assert max(compute / 0.7, memory / 0.8) <= seconds * (1 + 1e-9)
        assert seconds <= compute / 0.7 + memory / 0.8


def test_each_row_of_a_thin_dense_product_adds_to_the_stream_and_experts_have_kernels_of_their_own() -> None:
    dense, routed = (engine(model).iteration.at(np.array([8.0, 64.0, 8192.0]))[PLACE["rowwise"]] for model in (LLAMA, MIXTRAL))

    assert 7.0 < dense[1] / dense[0] < 8.0  # linear in the rows
    assert dense[2] < dense[1]  # large products have none of it
    assert routed[1] < dense[1]  # attention layers alone


def test_an_iteration_grows_with_batch_and_context_and_shrinks_with_tp() -> None:
    times = [decode_s(engine(), batch, context) for batch, context in ((1, 100), (8, 100), (64, 100), (64, 1000), (256, 8000))]

    assert times == sorted(times)
    assert decode_s(engine(tp=4), 64, 1000) < decode_s(engine(tp=2), 64, 1000) < decode_s(engine(), 64, 1000)
    assert decode_s(engine(), 64, 1000) / 64 < decode_s(engine(), 1, 1000) / 2  # batches share the weights


def test_a_decode_step_is_never_faster_than_its_bytes_allow() -> None:
    priced = engine()
    floor = (priced.memory.weights_bytes - 2 * 128256 * 4096) / 3.35e12

    assert decode_s(priced, 1, 100) > floor


def test_quantised_weights_speed_up_small_batches() -> None:
    assert decode_s(engine(weights_dtype="fp8", compute_dtype="fp8"), 1, 100) < decode_s(engine(), 1, 100)


def test_a_chip_without_the_format_multiplies_in_16_bit_and_says_so() -> None:
    old = engine(chip="1x a100-sxm-80gb", weights_dtype="fp8", compute_dtype="fp8")

    assert old.fallback
    assert not engine(weights_dtype="fp8", compute_dtype="fp8").fallback
    assert any("dense peak bf16" in item.key for item in old.used)


def test_prompts_cost_more_than_their_length_ratio_when_long() -> None:
    prompt = engine().times.prefill_s

    assert float(prompt(np.array(65536.0))) > 8 * float(prompt(np.array(8192.0)))
    whole = float(prompt(np.array(4096.0)))
    assert whole < float(prompt(np.array(2048.0))) + float(prompt(np.array(2048.0), 2048.0))  # chunks pay the fixed part twice


def test_recurrent_layers_have_a_state_and_no_cache() -> None:
    priced = engine("falcon-mamba-7b")

    assert priced.memory.sequence_bytes > 0
    assert token_bytes(priced) == 0


def test_many_plans_answer_as_one_by_one() -> None:
    job, cluster = ServeJob(model=load_model(LLAMA)), parse_cluster("8x h100-sxm-80gb")
    plans = [ServePlan(tp=tp) for tp in (1, 2, 4, 8)]

    for plan, both in zip(plans, price_many(job, cluster, plans), strict=True):
        assert np.array_equal(price(job, cluster, plan).times.rows_s, both.times.rows_s)


@pytest.mark.parametrize("plan", [ServePlan(tp=16), ServePlan(tp=4, ep=3), ServePlan(tp=4, ep=4)])
def test_a_plan_that_cannot_be_is_refused(plan: ServePlan) -> None:
    with pytest.raises(BadValue) as caught:
        price(ServeJob(model=load_model(LLAMA)), parse_cluster("8x h100-sxm-80gb"), plan)

    assert caught.value.code in ("SP-SERVE-020", "SP-SERVE-021")


# -- loads


def test_one_request_at_a_time_does_not_queue() -> None:
    priced = engine()
    found = load.closed(priced.iteration, priced.memory, priced.factors, plan=priced.plan, concurrency=1.0, input_len=1000, output_len=100)

    assert float(priced.factors @ found.queue) == 0
    assert float(priced.factors @ found.burst) == 0


def test_prompts_of_others_slow_generation_down() -> None:
    priced = engine()
    alone = load.context_mean(priced.iteration, sequences=32.0, input_len=4000, output_len=200)
    found = load.closed(priced.iteration, priced.memory, priced.factors, plan=priced.plan, concurrency=32.0, input_len=4000, output_len=200)

    assert found.sequences < 32
    assert float(priced.factors @ found.tpot) > float(priced.factors @ alone)



def test_an_engine_that_looks_seldom_makes_requests_wait_for_half_of_the_iterations_between() -> None:
    priced = engine()
    loads = [
        load.closed(
            priced.iteration, priced.memory, priced.factors, plan=priced.plan, concurrency=16.0, input_len=1000, output_len=1000,
            admission=Admission(poll=poll),
        )
        for poll in (0, 30)
    ]
    at_once, seldom = ((one.ttft + one.queue + one.burst) @ priced.factors for one in loads)

    assert seldom - at_once == pytest.approx(0.9 * 15.0 * float(loads[0].tpot @ priced.factors), rel=0.05)  # the first wave is read at once


def test_prompts_are_held_back_for_other_ranks_no_longer_than_the_limit() -> None:
    balance = Admission(balance=60)

    assert Admission().held(0.1, ranks=8.0, prompt=1000.0) == 0.0
    assert balance.held(0.1, ranks=1.0, prompt=1000.0) == 0.0
    assert balance.held(1e-6, ranks=8.0, prompt=1000.0) == pytest.approx(60.0, rel=1e-3)  # nobody else comes
    assert balance.held(7.0, ranks=8.0, prompt=1000.0) == pytest.approx(1.0 * (1.0 + 3.5) / 8.0)  # all have come after one iteration


def test_prompts_are_gathered_until_they_hold_enough_tokens() -> None:
    gather = Admission(gather=40, gather_tokens=6000)

    assert gather.held(0.01, ranks=1.0, prompt=8000.0) == 0.0  # one is enough
    assert gather.held(1e-6, ranks=1.0, prompt=1000.0) == pytest.approx(40.0, rel=1e-3)
    assert gather.held(5.0, ranks=1.0, prompt=1000.0) == pytest.approx(1.0 * (1.0 + 2.5) / 6.0)  # five more after one iteration


def test_an_engine_of_few_places_lets_the_others_wait_for_a_round_each() -> None:
    priced = engine()
    plan = ServePlan(max_sequences=16)
    found, small = (
        load.closed(
            priced.iteration, priced.memory, priced.factors, plan=plan, concurrency=users, input_len=100, output_len=1000, waves=waves
        )
        for users, waves in ((160.0, 1.0), (16.0, 10.0))
    )
    round_s = float(priced.factors @ (small.ttft + small.queue + 999.0 * small.tpot))

    assert float(priced.factors @ found.tpot) == pytest.approx(float(priced.factors @ small.tpot), rel=0.02)
    # ten rounds of sixteen that came at once: the first waits for none, the last for nine
    assert float(priced.factors @ (found.ttft - small.ttft)) == pytest.approx(4.5 * round_s, rel=0.05)


def test_each_request_under_way_holds_up_the_front_end() -> None:
    priced = engine()
    held = [
        load.closed(
            priced.iteration, priced.memory, priced.factors, plan=ServePlan(attention_dp=ranks), concurrency=users, input_len=500,
            output_len=500,
        ).ttft[PLACE["stream_s"]]
        for users, ranks in ((1.0, 1), (64.0, 1), (64.0, 4))
    ]

    assert held == [0.0, 63.0, 255.0]
    assert disaggregated(separate(), priced.factors, concurrency=256.0).ttft[PLACE["stream_s"]] == 255.0


def test_a_kernel_measured_apart_from_any_row_bears_on_its_stack_and_chip_before_the_release_that_replaced_it() -> None:
    (record,) = [one for one in records({"amd-mi300x"}) if one.constant == "reread"]
    rows = shipped_rows("inference").rows
    cases = [case for case in all_cases([row for row in rows if row.chip_id == "amd-mi300x"], catalogue())[0] if case.job.stack == "vllm"]
    subjects = {case.job.stack_year: subject for case, subject in zip(cases, ServePredictor().subjects(cases), strict=True)}
    early, late = (next(subject for year, subject in subjects.items() if year and old == (year < 2024.75)) for old in (True, False))

    assert record.subject.effects().items() <= early.effects().items()
    assert not record.subject.effects().items() <= late.effects().items()
    assert 0.2 < record.value < 0.35
    assert records({"amd-mi250x", "nvidia-h100-sxm-80gb"}) == []  # a chip that is left out is unseen


def test_requests_that_find_no_place_among_those_that_decode_wait_before_their_first_token() -> None:
    priced = engine()
    asked = [separate(ranks=2.0, readers=64.0, most=most, input_len=500) for most in (None, 64.0)]
    free, limited = (disaggregated(one, priced.factors, concurrency=256.0) for one in asked)
    tpot = [float(found.tpot @ priced.factors) for found in (free, limited)]
    waits = [float((found.ttft + found.queue) @ priced.factors) for found in (free, limited)]

    assert limited.sequences == 64.0 < free.sequences
    assert tpot[1] < tpot[0]
    assert waits[1] - waits[0] == pytest.approx(199.0 * tpot[1], rel=0.05)  # half of the requests wait for the other half


def test_prefill_workers_that_nobody_counted_keep_pace() -> None:
    priced = engine()
    one, unknown = (
        float((found.ttft + found.queue) @ priced.factors)
        for found in (disaggregated(separate(readers=count), priced.factors, concurrency=256.0) for count in (1.0, None))
    )

    assert unknown < 0.5 * one


def test_prompts_that_wait_for_a_reader_are_read_together() -> None:
    priced = engine()
    singly = separate(readers=1.0, input_len=100, plan=ServePlan(max_batched_tokens=100))
    together = separate(readers=1.0, input_len=100, plan=ServePlan(max_batched_tokens=10_000))
    slow, fast = (disaggregated(one, priced.factors, concurrency=1024.0) for one in (singly, together))

    assert (fast.ttft + fast.queue) @ priced.factors < 0.7 * float((slow.ttft + slow.queue) @ priced.factors)
    assert singly.fitting == 1.0


def test_a_batch_that_does_not_fit_runs_in_waves() -> None:
    priced = engine("llama-3.1-70b", tp=2)
    ask = functools.partial(load.static, priced.iteration, priced.memory, priced.plan, input_len=4000, output_len=1000)
    room = load.fitting_sequences(priced.iteration, priced.memory, tokens=5000)
    once, twice = (float(priced.factors @ ask(batch=batch)) for batch in (room, 2 * room))

    assert twice == pytest.approx(2 * once, rel=0.02)


def test_compute_draws_more_than_waiting() -> None:
    busy, idle = zeros(), zeros()
    busy[PLACE["matmul"]] = idle[PLACE["host_s"]] = 1.0

    assert Draw().share(busy) > Draw().share(idle) > 0


# -- the predictor


@functools.cache
def cases() -> tuple[ServeCase, ...]:
    """Some questions of every source and quantity, on three chips."""
    rows = [row for row in shipped_rows("inference_bulk").rows if row.chip_id in ("nvidia-h100-sxm-80gb", "nvidia-b200-sxm", "amd-mi300x")]
    found, _ = all_cases(rows[::131], catalogue())
    return tuple(case for case in found if case.confidence == "high")


@pytest.mark.slow
def test_every_question_is_answered_with_a_range_around_the_middle() -> None:
    asked = list(cases())
    answers = ServePredictor().predict(asked)

    assert {case.quantity for case in asked} >= {"e2e", "tpot", "ttft", "energy_per_token"}
    for answer in answers:
        assert isinstance(answer, tuple)
        middle, low, high = answer
        assert 0 < low <= middle <= high


@pytest.mark.slow
def test_the_scatter_of_what_is_drawn_weighs_more_where_little_is_drawn() -> None:
    asked = [next(case for case in cases() if case.quantity == "energy_per_token")]
    widths = []
    for share in (0.3, 0.9):
        [(_, low, high)] = ServePredictor(posterior=replace(shipped_posterior(), draw=Draw((share, 0.0, 0.0, 0.0)))).predict(asked)
        widths.append(np.log(high / low))

    assert widths[0] > 1.2 * widths[1]


@pytest.mark.slow
def test_measurements_bring_the_predictor_nearer_and_unseen_chips_keep_wider_ranges() -> None:
    times = [case for case in cases() if case.quantity in ("e2e", "tpot")]
    prior = ServePredictor(posterior=prior_posterior())
    without = prior.fit([case for case in times if case.chip_id != "amd-mi300x"])
    seen = prior.fit(times)

    def error(predictor: ServePredictor) -> float:
        return float(np.median([abs(np.log(a[0] / c.measured)) for a, c in zip(predictor.predict(times), times, strict=True)]))

    def width(predictor: ServePredictor) -> float:
        own = [case for case in times if case.chip_id == "amd-mi300x"]
        return float(np.median([np.log(a[2] / a[1]) for a in predictor.predict(own)])) / (
            predictor.posterior.fitted.widen * predictor.posterior.fitted.factor(kind="e2e"))

    assert error(seen) < error(prior)
    assert width(without) > width(seen)


def test_long_tables_are_thinned_evenly_and_short_ones_kept() -> None:
    kept = thinned(["a"] * 100 + ["b"] * 5, 30)

    assert sum(index >= 100 for index in kept) == 5
    assert 20 <= len(kept) <= 30
    assert kept == thinned(["a"] * 100 + ["b"] * 5, 30)


def test_chips_of_one_die_share_its_kernels_and_its_age() -> None:
    chips = catalogue().chips
    h100, h200, b200 = (chips[f"nvidia-{name}"] for name in ("h100-sxm-80gb", "h200-sxm-141gb", "b200-sxm"))

    assert die_of(h100.id) == die_of(h200.id) != die_of(b200.id) and die_of("intel-gaudi2") == ""
    assert released(h200) > released(h100) == first_released(h200) == first_released(h100)
    assert first_released(b200) == released(b200)


def test_a_port_is_a_stack_on_chips_of_another_vendor_than_it_was_written_for() -> None:
    assert ported("vllm", "AMD")
    assert not ported("vllm", "NVIDIA")
    assert not ported("mindie", "Huawei")  # nobody says
    assert "port_row" in engine(chip="8x amd-mi300x").subject.effects()
    assert "port_row" not in engine().subject.effects()


def test_runs_of_a_stack_on_an_unseen_ported_chip_are_less_certain_than_on_one_of_its_home() -> None:
    home, away = (price(ServeJob(model=load_model(LLAMA)), parse_cluster(chip), ServePlan(), fitted=prior_posterior().fitted)
                  for chip in ("8x h100-sxm-80gb", "8x amd-mi300x"))

    assert away.decode_sd > home.decode_sd


def test_an_uncertain_small_term_can_slow_much_more_than_it_can_speed_up() -> None:
    slope, scatter = np.array([[-0.1], [0.9]]), np.array([[2.3], [0.0]])
    slower, faster = chords(slope, scatter), chords(slope, -scatter)

    assert slower[0, 0] * 2.3 == pytest.approx(-np.log(0.9 + 0.1 * np.exp(2.3)))
    assert faster[0, 0] * 2.3 == pytest.approx(np.log(0.9 + 0.1 * np.exp(-2.3)))
    assert slower[1, 0] == faster[1, 0] == 0.9


def test_the_posterior_survives_its_file() -> None:
    shipped = shipped_posterior()
    again = Posterior.thaw(shipped.freeze())

    assert shipped.fitted.rows > 1000
    assert again.fitted.columns == slim(shipped.fitted).columns
    assert again.fitted.factor(0.9, kind="tpot") == pytest.approx(shipped.fitted.factor(0.9, kind="tpot"), rel=1e-3)
    assert shipped.fitted.factor(0.9, kind="ttft sglang apart") > 1.5 * shipped.fitted.factor(0.9, kind="tpot")
    assert again.draw == shipped.draw
