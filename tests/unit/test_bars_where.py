"""Noise of repeated measurements, and where the error of serving sits."""

from __future__ import annotations

import functools

import msgspec
import pytest

from sapper.chips import catalogue
from sapper.predict.bars import page
from sapper.predict.bars.noise import floor
from sapper.predict.bars.where import Place, places, seen_answers, workers_of
from sapper.predict.rows.scores import Answer, Scored, score
from sapper.predict.rows.shipped import shipped_rows
from sapper.predict.serve.predictor import ServePredictor
from sapper.predict.serve.rows import ServeCase, all_cases


@functools.cache
def some_cases() -> tuple[ServeCase, ...]:
    points = [row for row in shipped_rows("inference_bulk").rows if row.confidence == "high" and "silicon_sample" in row.source]
    return tuple(all_cases(points[::60], catalogue())[0])


def again(case: ServeCase, measured: float, **changes: object) -> ServeCase:
    return msgspec.structs.replace(case, measured=measured, **changes)


def test_the_floor_is_the_best_constant_answer_to_what_was_measured_more_than_once() -> None:
    case = some_cases()[0]
    other = again(case, 7.0, batch=(case.batch or 1.0) + 1.0)

    found = floor([again(case, 100.0, engine="vllm 1"), again(case, 200.0, engine="vllm 2"), again(case, 200.0, engine="vllm 2"), other])
    assert (found.groups, found.rows) == (1, 2)
    assert found.mean == pytest.approx(0.25)  # 100 for both: 0 and 50%; 200 for both: 100% and 0
    assert found.apart == pytest.approx(1.0)
    apart = floor([again(case, 100.0, engine="vllm 1"), again(case, 200.0, engine="vllm 2")], same_release=True)
    assert apart.groups == 0 and apart.mean is None


@functools.cache
def found_places() -> tuple[Place, ...]:
    lines: list[Scored] = [
        score(case, Answer(mid=2.0 * case.measured, low=case.measured, high=3.0 * case.measured), in_training=False)
        for case in some_cases()
    ]
    return places(some_cases(), lines, seen_answers(some_cases(), ServePredictor()))


def test_shares_of_each_facet_are_of_the_whole_error() -> None:
    tpot, ttft = found_places()

    assert (tpot.key, ttft.key) == ("tpot", "ttft")
    assert tpot.mean == tpot.median == pytest.approx(1.0) and 0.0 < tpot.seen < 1.0
    for facet in ("workers", "term", "chip"):
        own = [part for part in tpot.parts if part.facet == facet]
        assert own and sum(part.share for part in own) <= 1.0 + 1e-9
        assert all(part.mean == pytest.approx(1.0) and part.bias == pytest.approx(1.0) for part in own)
        assert [part.share for part in own] == sorted((part.share for part in own), reverse=True)
    each = next(remedy for remedy in tpot.remedies if remedy.key == "each_chip")
    assert each.mean == pytest.approx(tpot.seen)


def test_workers_that_nobody_states_are_told_from_stated_ones() -> None:
    assert {workers_of(case) for case in some_cases()} >= {"together", "stated", "drafts"}


def test_the_section_is_written_in_both_languages() -> None:
    english, chinese = (page.page(found_places(), taus=(0.5, None), lang=lang) for lang in ("en", "zh"))
    assert "Where the error of serving sits" in english and "prompts and generation together" in english and "0.50 left out, ?" in english
    assert "推理误差出在哪里" in chinese and "预填充与生成一体" in chinese
    assert english.count("| ") == chinese.count("| ")
