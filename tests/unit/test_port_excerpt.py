"""Configuration is searched on the lines that hold a word of a rule, with the same findings as everywhere."""

from __future__ import annotations

from unittest import mock

import pytest

from sapper.port import rule, text
from sapper.port.languages import language_of
from sapper.port.source import Source
from sapper.port.text.excerpt import Words, whole
from sapper.port.text.one_line import in_one_line
from sapper.port.vocabulary import Vocabulary

EXAMPLES = [
    (one.code, example.path, example.before)
    for one in rule.rules().values()
    for example in one.examples
    if one.match.patterns and language_of(example.path) not in (None, "python", "cuda", "cpp", "notebook")
]


def test_an_excerpt_holds_the_lines_with_a_word_and_knows_where_they_stand() -> None:
    said = "one: 1\nDevice: CUDA\n\nthree: 3\nlast: cuda"

    excerpt = Words(said, Vocabulary(["cuda", "nccl"])).lines_with(["cuda", "nccl"])

    assert excerpt.text == "Device: CUDA\nlast: cuda"
    assert [said[excerpt.offset(at)] for at in range(len(excerpt.text))] == list(excerpt.text)
    assert whole(said).offset(7) == 7


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        (r"^[ \t]*a[^\n]*(?=[ \t]*\r?$)", True),
        (r"(?<![\w.])a.{0,3}(?P<symbol>b|c)(?i:d)", True),
        (r"a\sb", False),
        (r"a[^b]c", False),
        (r"a(?:x|[\s]y)", False),
        (r"a\nb", False),
        (r"(a)\1", False),
        (r"a[^\s]+\w\d", True),
    ],
)
def test_an_expression_is_known_to_stay_in_a_line(pattern: str, wanted: bool) -> None:
    assert in_one_line(pattern) is wanted


def test_examples_among_other_lines_give_the_same_as_when_every_line_is_searched() -> None:
    assert EXAMPLES
    for code, path, before in EXAMPLES:
        language = language_of(path)
        assert language is not None
        source = Source(path=path, language=language, text=f"first: 1\n\n{before}\n- last\n")
        found = text.find(source, rule.rules())
        with mock.patch.object(text, "_ready", lambda pattern, ready=text._ready: (ready(pattern)[0], False)):
            everywhere = text.find(source, rule.rules())
        assert found == everywhere, code


def test_a_long_quotation_is_read_in_one_way() -> None:
    words = "Well. " * 5000
    source = Source(path="a.json", language="config", text=f'{{"x": "{words}\n"device": "cuda:0"}}\n')

    assert [one.place.line for one in text.find(source, rule.rules())] == [2]
