"""Words are found in one pass over a text, the same by the automaton of the extra ``port`` and by the identifiers of the text."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapper.port import vocabulary
from sapper.port.vocabulary import Vocabulary

WORDS = ("cuda", ".cu\"", ".to(0", "gpu", "nvidia-smi", "k2", "-l", "_int_mm", "torch.load", "cud", "uda")
PIECES = st.sampled_from([*WORDS, " ", "\n", "x", "_", ".", "cu", "da", "é", "中文", "\U0001f600", "\ud800", "(0)", "import torch"])


def both() -> list[Vocabulary]:
    pytest.importorskip("ahocorasick_rs")
    with mock.patch.object(vocabulary, "_automata", None):
        by_identifiers = Vocabulary(WORDS)
    return [Vocabulary(WORDS), by_identifiers]


@given(st.lists(PIECES, max_size=30).map("".join))
def test_what_is_found_is_what_looking_for_each_word_finds(text: str) -> None:
    places = sorted((word, at) for word in WORDS for at in range(len(text)) if text.startswith(word, at))
    with mock.patch.object(vocabulary, "_automata", None):
        words = Vocabulary(WORDS)
        assert words.said(text.encode("utf-8", "surrogatepass")) == {word for word, _at in places}
        assert sorted(words.places(text)) == places


@given(st.lists(PIECES, max_size=30).map("".join))
def test_an_automaton_finds_the_same(text: str) -> None:
    automaton, identifiers = both()
    assert automaton.said(text.encode("utf-8", "surrogatepass")) == identifiers.said(text.encode("utf-8", "surrogatepass"))
    assert sorted(automaton.places(text)) == sorted(identifiers.places(text))
