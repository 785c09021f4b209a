"""What the stacks answer to code that was written for CUDA."""

import re

import pytest

from sapper.port.shim import Fact, Shim, questions, shims
from sapper.port.target import targets

FACTS = [
    pytest.param(one, question, fact, id=f"{name}-{question}") for name, one in shims().items() for question, fact in one.answers.items()
]


def test_every_target_is_there_with_its_shim_module() -> None:
    assert {name: one.module for name, one in shims().items()} == {name: target.shim for name, target in targets().items()}


@pytest.mark.parametrize(("one", "question", "fact"), FACTS)
def test_a_fact_has_a_source_that_was_read(one: Shim, question: str, fact: Fact) -> None:
    source = one.sources[fact.source]

    assert question in questions()
    assert re.fullmatch(r"https://[\w.-]+/\S*", source.url)
    assert re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", source.date)
    assert (fact.note_en is None) == (fact.note_zh is None)


def test_the_device_type_is_that_of_the_target() -> None:
    assert {name: one.answer("device_type") for name, one in shims().items()} == {name: target.device for name, target in targets().items()}


def test_a_redirection_leads_to_the_targets_own_names() -> None:
    for name, one in shims().items():
        target = targets()[name]
        assert one.answer("device_string") in (target.device, "raises")
        assert one.answer("backend") in (target.collective, "raises")


def test_what_was_not_read_is_not_answered() -> None:
    assert shims()["kunlun"].answer("graphs") is None
