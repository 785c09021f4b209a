from __future__ import annotations

import msgspec
import pytest

from assess_examples import AS_OF, answers, assessment, chip, cluster, estimate, price, question
from sapper.assess.answer import Answer
from sapper.assess.assessment import Assessment, Option
from sapper.assess.index import ranges
from sapper.assess.join import join
from sapper.assess.risks import age_months
from sapper.chips.schema import ExportRule
from sapper.predict.estimate import Warning_


@pytest.fixture(scope="module")
def given() -> Assessment:
    return assessment()


def named(a: Assessment, part: str) -> Option:
    return next(option for option in a.options if part in option.label)


def codes(option: Option) -> dict[str, str]:
    return {risk.code: risk.severity for risk in option.risks}


def one(**more: object) -> Option:
    made = cluster(chip("Solo", **more))  # type: ignore[arg-type]
    answered = (*answers()[:1], Answer(cluster=made, estimate=estimate(made, 20.0)))
    return join(question(), answered, as_of=AS_OF, version="0", elapsed_s=0.0).options[1]


def test_every_option_is_there_answered_or_refused(given: Assessment) -> None:
    assert len(given.options) == len(answers())
    assert all((option.estimate is None) != (option.refusal is None) for option in given.options)
    assert sorted([*given.ranking, *given.unanswered]) == list(range(len(given.options)))


def test_the_refused_option_names_the_missing_field_in_both_languages(given: Assessment) -> None:
    s60 = named(given, "S60")

    assert s60.refusal_kind == "missing"
    assert s60.refusal is not None and s60.refusal.values["field"] == "peak_flops_per_s.bf16"
    assert "peak_flops_per_s.bf16" in s60.why["en"]
    assert "peak_flops_per_s.bf16" in s60.why["zh"]
    assert s60.remedy["zh"] != s60.remedy["en"]


def test_the_fastest_comes_first_and_the_reference_is_one(given: Assessment) -> None:
    times = [given.options[at].estimate.job_time.mid for at in given.ranking]  # type: ignore[union-attr]
    reference = given.reference.ratios.time

    assert times == sorted(times)
    assert given.reference.is_reference
    assert reference is not None and (reference.low, reference.mid, reference.high) == (1, 1, 1)


def test_ratios_follow_from_the_times(given: Assessment) -> None:
    npu = named(given, "910B3").ratios

    assert npu.time is not None and npu.time.mid == pytest.approx(31 / 24)
    assert npu.time.low < 31 / 24 < npu.time.high
    assert npu.comm_share == pytest.approx(0.15 / 0.08)
    assert named(given, "P800").ratios.energy is None  # no power is known: no energy, and no zero


def test_cost_is_compared_only_on_the_same_currency_and_basis(given: Assessment) -> None:
    npu = named(given, "910B3")

    assert npu.estimate is not None and list(npu.estimate.cost) == ["CNY cloud"]
    assert npu.ratios.cost == {}  # the reference has prices in USD alone
    assert given.reference.ratios.cost["USD cloud"].mid == 1


def test_the_whole_answer_survives_json(given: Assessment) -> None:
    assert msgspec.json.decode(msgspec.json.encode(given), type=Assessment) == given


def test_every_fact_under_an_estimate_is_in_the_index(given: Assessment) -> None:
    facts = {source.number: source.fact for source in given.evidence}
    for option in given.options:
        cited = [facts[number] for number in option.evidence]
        assert all(used.fact in cited for used in (option.estimate.used if option.estimate else ()))
        assert all(number in facts for numbers in option.figure_evidence.values() for number in numbers)
        assert all(number in facts for risk in option.risks for number in risk.evidence)
    assert list(facts) == list(range(1, len(facts) + 1))


def test_a_fact_is_numbered_once(given: Assessment) -> None:
    seen = [(source.subject, msgspec.json.encode(source.fact)) for source in given.evidence]

    assert len(seen) == len(set(seen))


def test_like_labels_are_told_apart() -> None:
    same = cluster(chip("Twin"))
    other = msgspec.structs.replace(cluster(chip("Twin")), name="the other site")
    answered = tuple(Answer(cluster=c, estimate=estimate(c, 9.0)) for c in (same, other))

    labels = [option.label for option in join(question(), answered, as_of=AS_OF, version="0", elapsed_s=0).options]

    assert len(set(labels)) == 2
    assert "the other site" in labels[1]


def test_without_an_answer_for_the_reference_there_are_no_ratios() -> None:
    refused = answers()[-1]
    found = join(question(), (refused, answers()[1]), as_of=AS_OF, version="0", elapsed_s=0.0)

    assert found.options[1].estimate is not None
    assert found.options[1].ratios.time is None


def test_risks_are_named_gravest_first(given: Assessment) -> None:
    order = ("high", "medium", "low")
    for option in given.options:
        ranks = [order.index(risk.severity) for risk in option.risks]
        assert ranks == sorted(ranks)


def test_a_licence_is_a_high_risk_and_a_free_item_a_low_one() -> None:
    licence = ExportRule(rule="r", source="s", status="press_report", effect="licence-required")
    free = ExportRule(rule="r", source="s", status="unsourced", effect="not-us-item")

    assert codes(one(rules=(licence,)))["export"] == "high"
    assert codes(one(rules=(free,)))["export"] == "low"


def test_what_is_not_measured_not_priced_not_cuda_is_a_risk() -> None:
    plain = codes(one())
    good = codes(one(measured=True, cuda=True, price=(price(9e4, date="2026-10", tax="excluded"),)))

    assert {"unmeasured", "software", "price-none"} <= set(plain)
    assert not {"unmeasured", "unmeasured-matmul", "software", "price-none", "price-old", "tax-unknown"} & set(good)


def test_prices_age() -> None:
    assert "price-old" in codes(one(price=(price(9e4, date="2024-01"),)))
    assert "price-undated" in codes(one(price=(price(9e4, date=None),)))
    assert "price-old" not in codes(one(price=(price(9e4, date="2026-02"),)))


@pytest.mark.parametrize(
    ("date", "months"),
    [("2024", 23), ("2023-05", 42), ("2026-07 snapshot", 4), ("2023-24", 35), ("n/d", None), (None, None), ("2030-01", 0)],
)
def test_an_age_is_never_overstated(date: str | None, months: int | None) -> None:
    assert age_months(date, AS_OF) == months


def test_tight_and_overflowing_memory_are_told_apart(given: Assessment) -> None:
    assert "memory-may-overflow" in codes(named(given, "MTT S4000"))
    assert "memory-tight" in codes(named(given, "910B3"))
    assert not {"memory-may-overflow", "memory-tight"} & set(codes(named(given, "H100")))


def test_sources_that_disagree_are_shown_side_by_side(given: Assessment) -> None:
    risk = next(risk for risk in named(given, "910B3").risks if risk.code == "conflict")

    assert "313 TFLOP/s" in risk.values["shown"]
    assert "295 TFLOP/s" in risk.values["shown"]
    assert len(risk.evidence) == 2


def test_remarks_of_the_predictor_are_kept() -> None:
    made = cluster(chip("Solo"))
    said = msgspec.structs.replace(estimate(made, 20.0), warnings=(Warning_(code="warn.no-training-record", values={"chip": "solo"}),))
    found = join(question(), (Answer(cluster=made, estimate=said),), as_of=AS_OF, version="0", elapsed_s=0.0)

    assert "no-training-record" in codes(found.options[0])


def test_a_pass_type_check_fails_only_on_knowledge(given: Assessment) -> None:
    s60 = {check.code: check.outcome for check in named(given, "S60").checks}

    assert s60["dtype"] == "unknown"
    assert s60["memory"] == "unknown"
    assert {check.outcome for check in given.reference.checks} == {"pass"}


def test_what_fits_nowhere_fails_the_memory_check() -> None:
    none = msgspec.structs.replace(answers()[-1], kind="no-fit")
    found = join(question(), (answers()[0], none), as_of=AS_OF, version="0", elapsed_s=0.0)

    assert {check.code: check.outcome for check in found.options[1].checks}["memory"] == "fail"


def test_numbers_are_shown_as_runs() -> None:
    assert ranges((7, 1, 2, 3, 2)) == [(1, 3), (7, 7)]
