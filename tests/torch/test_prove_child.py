"""Counter-runs in children of a worker, and where there can be none."""

from __future__ import annotations

import os

import pytest

import torch
from sapper.prove.child import in_child, setup


def test_a_child_answers_raises_or_ends_alone() -> None:
    assert in_child(lambda: {"pid": os.getpid()})["value"]["pid"] != os.getpid()
    assert in_child(lambda: 1 // 0) == {"raised": "ZeroDivisionError: integer division or modulo by zero"}
    assert in_child(lambda: os.kill(os.getpid(), 11)) == {"signal": "SIGSEGV"}
    assert setup({}) == {"forks": True}


def test_where_a_child_cannot_use_the_device_it_runs_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "_is_in_bad_fork", lambda: True)  # as CUDA says in the child of a process that has used it

    assert in_child(lambda: {"pid": os.getpid()}) == {"value": {"pid": os.getpid()}}
    assert setup({}) == {"forks": False}
