"""calibrate: a user's own runs and probes, what they change, and that predict uses them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sapper.chips import catalogue
from sapper.chips.own import with_records
from sapper.evidence import Record
from sapper.predict.calibrate import calibrate
from sapper.predict.own import Own
from support import Run

PLAIN = "nvidia-h20-96gb"
"""No row that ships is of this chip."""
MODEL = {
    "name": "llama", "arch": "dense", "params_b": 8.03, "layers": 32, "hidden": 4096, "heads": 32, "kv_heads": 8, "ffn": 14336,
    "vocab": 128256, "seq_len": 4096,
}  # fmt: skip


def row(number: int, value: float, *, chip: str = PLAIN, micro_batch: int = 1) -> dict[str, Any]:
    """A run of eight chips, tokens per second and chip."""
    return {
        "id": f"run-{number}", "source": "own runs", "chip": chip, "chip_id": chip, "n_chips": 8, "model": MODEL, "global_batch": 64,
        "micro_batch": micro_batch, "parallel": {"tp": 1, "pp": 1, "dp": 8}, "precision": "bf16", "recompute": "full",
        "framework": "Megatron-LM", "metric": "tokens_per_s_per_chip", "value": value, "unit": "tokens/s/chip", "date": "2026-11-20",
    }  # fmt: skip


def runs(*values: float) -> list[Record]:
    found = []
    for number, value in enumerate(values):
        payload = row(number, value, micro_batch=2**number)
        found.append(
            Record(
                kind="training-run", metric=payload["metric"], value=value, unit=payload["unit"], chip=PLAIN, dtype="bf16",
                payload=payload, source="own runs", date="2026-11-20", grade="measured-here",
            )
        )
    return found


def test_runs_of_two_files_that_bear_one_name_are_two_runs() -> None:
    first, second = runs(1000.0, 900.0)
    alike = msgspec.structs.replace(second, payload={**second.payload, "id": first.payload["id"]})

    cases, refused = Own((first, alike)).questions("training", catalogue())

    assert refused == []
    assert len({case.row_id for case in cases}) == 2


def test_a_run_beyond_the_hardware_is_refused_with_its_name_and_reason_and_the_others_are_used() -> None:
    honest, fast, nowhere = runs(1000.0, 1_500_000.0, 900.0)
    nowhere = msgspec.structs.replace(nowhere, payload={**nowhere.payload, "n_chips": 0})

    cases, refused = Own((honest, fast, nowhere)).questions("training", catalogue())

    assert [case.measured for case in cases] == [1000.0]
    assert {(one.row_id or "").partition(" ")[0]: one.code for one in refused} == {"run-1": "SP-CLAIM-001", "run-2": "SP-ROW-003"}
    assert "times the dense peak" in next(one.text for one in refused if one.code == "SP-CLAIM-001")


def predicted() -> list[float]:
    """What the posterior that ships says of the three runs."""
    own = Own(tuple(runs(1.0, 1.0, 1.0)))
    cases, refused = own.questions("training", catalogue())
    assert refused == []
    return [answer[0] for answer in Own().predictor("training", catalogue()).predict(cases) if isinstance(answer, tuple)]


@pytest.mark.slow
def test_three_runs_are_enough_to_matter() -> None:
    slower = [0.6 * value for value in predicted()]

    found = calibrate(Own(), runs(*slower), catalogue())

    (line,) = found.calibrated
    assert (line.chip, line.kind, line.runs, found.refused) == (PLAIN, "training", 3, ())
    assert line.error_before == pytest.approx(1 / 0.6 - 1, rel=0.01)
    assert line.error_after is not None and line.error_after < 0.3 * line.error_before
    assert line.width_after < 0.8 * line.width_before
    assert any(one.after < one.before for one in found.moved)


@pytest.mark.slow
def test_runs_that_agree_leave_the_middle_and_narrow_the_range() -> None:
    found = calibrate(Own(), runs(*predicted()), catalogue())

    (line,) = found.calibrated
    assert line.error_before < 0.01 and line.error_after is not None and line.error_after < 0.03
    assert line.width_after < line.width_before


def probe(kind: str, value: float, unit: str, dtype: str | None = None, **conditions: Any) -> Record:
    return Record(
        kind=kind, metric="rate", value=value, unit=unit, chip=PLAIN, dtype=dtype, conditions=conditions,  # type: ignore[arg-type]
        source="probe", date="2026-11-20", grade="measured-here",
    )


def test_probes_take_the_place_of_the_catalogues_records() -> None:
    chip = catalogue().resolve(PLAIN)
    peak = chip.peak_flops_per_s["bf16"].number
    assert peak is not None
    small = probe("matmul", 0.1 * peak, "flop/s", "bf16", m=128, n=128, k=128)
    large = [probe("matmul", share * peak, "flop/s", "bf16", m=8192, n=8192, k=8192) for share in (0.5, 0.6, 0.7)]
    copy = probe("memory-copy", 6e11, "bytes/s", bytes=2**30)

    changed = with_records(chip, [small, *large, copy])

    own = {(one.metric, one.dtype): one for one in changed.measured if one.grade == "measured-here"}
    assert own[("matmul", "bf16")].fraction == pytest.approx(0.6)
    assert own[("memory_bandwidth", None)].value == 6e11
    assert [one for one in changed.measured if (one.metric, one.dtype) == ("matmul", "bf16")] == [own[("matmul", "bf16")]]


@pytest.mark.slow
def test_predict_uses_what_calibrate_kept(run_sapper: Run, tmp_path: Path) -> None:
    slower = [0.6 * value for value in predicted()]
    lines = [json.dumps(row(number, value, micro_batch=2**number)) for number, value in enumerate(slower)]
    (tmp_path / "results.jsonl").write_text("\n".join([*lines, '{"id": "broken"}']) + "\n", "utf-8")
    store = str(tmp_path / "own.db")
    plan = ("--plan", "tp=1,dp=8,recompute=full", "--global-batch", "64")
    question = ("predict", "train", "llama-3-8b", "--on", f"8x {PLAIN}", *plan, "--format", "json")

    done = run_sapper("calibrate", "--from", "results.jsonl", "--store", store)
    before, after = (
        json.loads(run_sapper(*question, "--store", value).stdout)[0]["estimate"]
        for value in ("none", store)
    )

    assert done.returncode == 1, done.stderr
    assert "results.jsonl:4" in done.stderr and "3 new records" in done.stderr
    assert after["step_time"]["mid"] > 1.3 * before["step_time"]["mid"]
    width = [estimate["step_time"]["high"] / estimate["step_time"]["low"] - 1.0 for estimate in (before, after)]
    assert width[1] < 0.8 * width[0]
    assert any("your own measurements" in used["fact"]["source"] for used in after["used"])


def test_a_dry_run_keeps_nothing(run_sapper: Run, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text(json.dumps(row(0, 1000.0)) + "\n", "utf-8")

    done = run_sapper("calibrate", "--from", "results.jsonl", "--store", str(tmp_path / "own.db"), "--dry-run")

    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "own.db").exists()
