"""Docstrings are told from other strings by the text alone, and never a string that is code from code."""

from __future__ import annotations

import ast

import pytest

from sapper.port import python, rule
from sapper.port.python.docstrings import spans
from sapper.port.source import Source

TEXT = '''\
# A file.
"""Of CUDA."""

def one(
    of: int,
) -> str:  # a comment
    r"""Asks `torch.cuda`

    and more."""
    return call(
        """torch.cuda kernel"""
    )

class Two:

    """GPU."""
    text = """
    def no_docstring():
        here
    """
'''


def test_docstrings_are_found_and_other_strings_are_not() -> None:
    found = [TEXT[start:stop].strip() for start, stop in spans(TEXT)]

    tree = ast.parse(TEXT)
    wanted = [tree, *(node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef)))]
    assert found == [ast.get_source_segment(TEXT, node.body[0]) for node in wanted]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    [
        'def f(a="""x"""):\n    """One."""\n',
        'x = {\n    f(1): g,\n    "k":\n    """cuda""",\n}\n',
        'if a:\n    """cuda"""\n',
        'print("a" + \n"""cuda""")\n',
        '"""never closed\n',
        '\'\'\'a\n"""\n\'\'\'\nx = """cuda"""\n',
    ],
)
def test_a_span_is_a_string_that_is_a_statement(text: str) -> None:
    try:
        alone = {ast.get_source_segment(text, node) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr)}
    except SyntaxError:
        alone = set()

    assert {text[start:stop].strip() for start, stop in spans(text)} <= alone


def test_code_beside_docstrings_and_comments_is_found_all_the_same() -> None:
    text = 'import torch\n\n\ndef f():\n    """cuda"""\n    # cuda\n    return torch.cuda.is_available()  # cuda\n'

    found = python.analyse(Source(path="train.py", language="python", text=text), rule.rules()).findings

    assert [one.place.line for one in found] == [7]
