"""A fault of an emulated chip that never fired is said, so that nobody takes it for one that was missed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import torch
from sapper.backends.papertiger import firings
from sapper.backends.papertiger.arithmetic import Call, execute
from sapper.backends.papertiger.core import Chip
from sapper.backends.papertiger.personality import Fault, Personality
from support import Run

ATEN = torch.ops.aten


@pytest.mark.parametrize(("fault", "found"), [
    (Fault(kind="bias", op="aten::abs"), None),
    (Fault(kind="bias", op="aten::abs", shape=(7777, 3)), False),
    (Fault(kind="bias", op="aten::abs", call=3), False),
    (Fault(kind="wrong-constant", op="aten::abs"), True),
    (Fault(kind="missed-nan", op="aten::abs"), None),
    (Fault(kind="integer-overflow", op="aten::abs"), True),
    (Fault(kind="ignored-strides", op="aten::abs"), True),
    (Fault(kind="tile-edge", op="aten::abs", amount=2), True),
    (Fault(kind="tile-edge", op="aten::abs", amount=3), None),
    (Fault(kind="stale-output", op="aten::abs"), None),
    (Fault(kind="stale-output", op="aten::abs", amount=3), True),
    (Fault(kind="cancellation", op="aten::abs"), True),
    (Fault(kind="silent-fallback", op="aten::abs"), None),
])  # fmt: skip
def test_a_fault_counts_as_fired_where_it_changed_something(fault: Fault, found: bool | None, tmp_path: Path) -> None:
    """``found``: whether launches met one that never fired; None: it did."""
    chip = Chip()
    chip.take_on(Personality(device="papertiger", faults=(fault,)))

    with firings.kept_in(tmp_path / "marks", anew=True):
        for numbers in ([1.0, -2.0, 3.0, -4.0], [5.0, -6.0, 7.0, -8.0]):
            chip.launch(Call(ATEN.abs.default, [torch.tensor(numbers)], {}), execute)

    told = [(at, met) for at, _, met in firings.silent((fault,), tmp_path / "marks")]
    assert told == ([] if found is None else [(0, found)])


def test_marks_of_another_run_or_another_fault_are_none_of_this_one(tmp_path: Path) -> None:
    fault, other = Fault(kind="bias", op="aten::abs"), Fault(kind="bias", op="aten::abs", amount=0.5)
    with firings.kept_in(tmp_path, anew=False):
        firings.leave("fired", 0, fault)

    assert [one for _, one, _ in firings.silent((other,), tmp_path)] == [other]
    assert not list(firings.silent((fault,), tmp_path))
    with firings.kept_in(tmp_path, anew=True):
        pass
    assert [one for _, one, _ in firings.silent((fault,), tmp_path)] == [fault]


def test_a_run_that_kept_no_account_of_faults_says_so(run_sapper: Run, tmp_path: Path) -> None:
    personality = tmp_path / "chip.toml"
    personality.write_text('[[fault]]\nkind = "bias"\nop = "aten::abs"\n')
    arguments = ["prove", "ops", "--on", f"papertiger:{personality}", "--ops", "abs", "--forward-only", "--samples", "1", "--no-edges"]
    ended = [*arguments, "--repros", "0", "--workers", "1", "--out", str(tmp_path / "run")]

    assert "note:" not in run_sapper(*ended).stderr
    shutil.rmtree(tmp_path / "run" / "firings")  # as a version left it that kept none
    again = run_sapper(*ended)

    assert "is not known" in again.stderr and "never fired:" not in again.stderr


def test_prove_ops_says_which_faults_never_fired_and_counts_those_that_ended_a_worker(run_sapper: Run, tmp_path: Path) -> None:
    personality = tmp_path / "chip.toml"
    faults = [("crash", "ceil", ""), ("bias", "floor", "shape = [7777, 3]"), ("wrong-constant", "abs", "")]
    personality.write_text("".join(f'[[fault]]\nkind = "{kind}"\nop = "aten::{op}"\n{more}\n' for kind, op, more in faults))
    arguments = ["--ops", "ceil,floor,abs", "--forward-only", "--samples", "1", "--no-edges", "--repros", "0", "--workers", "1"]

    ran = run_sapper("prove", "ops", "--on", f"papertiger:{personality}", *arguments, "--out", str(tmp_path / "run"))

    notes = [line for line in ran.stderr.splitlines() if "never fired" in line]
    assert [note.partition(")")[0] for note in notes] == ["note: fault[1] (bias, aten::floor", "note: fault[2] (wrong-constant, aten::abs"]
    assert "no launch fitted" in notes[0] and "changes nothing" in notes[1]
