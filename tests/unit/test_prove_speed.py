"""What a speed run says, and what evidence it leaves: all that needs no PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import proof_kit
import pytest

from sapper.chips import catalogue
from sapper.chips.limits import limits_of
from sapper.predict.own import Own
from sapper.predict.single import op_time
from sapper.prove.model.result import OpRecord
from sapper.prove.speed import expect
from sapper.prove.speed.known import known_verdicts
from sapper.prove.speed.records import records_of
from sapper.prove.speed.result import CopyRate, OpSpeed, Roofline, Speed, Timing, as_json
from sapper.workloads.op import Op

CHIP = "nvidia-h20-96gb"
ROOFLINE = Roofline(
    peak_flops_per_s=1e14, memory_bytes_per_s=3e12, launch_s=5e-6, matmul=(8192, 8192, 8192),
    copies=(CopyRate(size_bytes=2e6, rate_bytes_per_s=6e12), CopyRate(size_bytes=2e9, rate_bytes_per_s=3e12)),
)  # fmt: skip


def op(**changes: Any) -> OpSpeed:
    """A product of 8192 cubed at 80 TFLOP/s, apart from ``changes``."""
    size = 8192
    flops = 2.0 * size**3
    fields: dict[str, Any] = {
        "id": "forward:aten::mm#1", "op": "aten::mm", "phase": "forward", "inputs": ("bf16[8192,8192]", "bf16[8192,8192]"),
        "outputs": ("bf16[8192,8192]",), "count": 3, "kind": "matmul", "flops": flops, "size_bytes": 6.0 * size**2,
        "sizes": {"m": size, "n": size, "k": size, "groups": 1}, "outcome": "ok", "judged": "now", "roof_s": flops / 1e14,
        "timing": Timing(median_s=flops / 8e13, low_s=flops / 8.1e13, high_s=flops / 7.9e13, calls=4, repeats=9),
    }  # fmt: skip
    return OpSpeed(**fields | changes)


def speed(*ops: OpSpeed, **changes: Any) -> Speed:
    fields: dict[str, Any] = {
        "format": "sapper-prove-speed", "version": 1, "sapper": "0.1.0", "date": "2026-11-20", "backend": "cuda", "real": True,
        "versions": {"torch": "2.13.0"}, "device": "H20", "target": "gpt.py:build", "dtype": "bf16", "seed": 0, "chip": CHIP,
        "conditions": {"threads": "1", "load": "0.10"}, "measured": ROOFLINE, "catalogue": None, "ops": ops,
    }  # fmt: skip
    return Speed(**fields | changes)


def test_a_fast_wrong_kernel_is_red() -> None:
    fast = op(timing=Timing(median_s=1e-9, low_s=1e-9, high_s=1e-9, calls=1, repeats=3))

    assert msgspec.structs.replace(fast, outcome="ok").colour == "green"
    assert msgspec.structs.replace(fast, outcome="wrong").colour == "red"
    assert msgspec.structs.replace(fast, outcome="skipped").colour == "grey"
    assert speed(msgspec.structs.replace(fast, outcome="wrong")).findings


def test_the_file_says_what_follows_from_its_figures_and_reads_back() -> None:
    found = speed(op())

    plain = as_json(found)

    assert plain["ops"][0]["flops_per_s"] == pytest.approx(8e13) and plain["ops"][0]["colour"] == "green"
    assert plain["ops"][0]["roof_share"] == pytest.approx(0.8)
    assert msgspec.convert(plain, Speed) == found


def test_a_right_but_slow_kernel_is_amber() -> None:
    assert op(roof_s=0.4 * op().timing.median_s).colour == "amber"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("flops", "size_bytes", "bound"), [(1e12, 1e6, "compute"), (1e9, 1e9, "memory"), (1e3, 4e3, "launch")]
)  # fmt: skip
def test_the_limit_is_the_one_that_takes_longest(flops: float, size_bytes: float, bound: str) -> None:
    found, least_s = expect.limit_of(ROOFLINE, flops=flops, size_bytes=size_bytes)

    assert (found, least_s) == (bound, max(ROOFLINE.limits_s(flops=flops, size_bytes=size_bytes).values()))


def test_an_op_that_fits_a_cache_is_held_against_the_copy_that_does() -> None:
    assert ROOFLINE.bandwidth_at(1e6) == 6e12
    assert ROOFLINE.bandwidth_at(1e9) == 3e12
    assert ROOFLINE.bandwidth_at(1e12) == 3e12


def test_a_product_is_evidence_and_a_wrong_one_is_a_failure_without_a_rate() -> None:
    records, refused = records_of(speed(op(), op(id="x", outcome="wrong")))

    products = [record for record in records if "op" in record.conditions]
    assert refused == []
    assert [(one.status, one.value is not None) for one in products] == [("ok", True), ("failed", False)]
    assert products[0].value == pytest.approx(8e13) and products[0].conditions["m"] == 8192
    assert {record.kind for record in records} == {"matmul", "memory-copy", "launch"}
    assert all(record.grade == "measured-here" and record.chip == CHIP for record in records)


def test_what_the_chip_cannot_have_done_is_refused() -> None:
    chip = catalogue().resolve(CHIP)
    impossible = Timing(median_s=op().flops / 1e15, low_s=op().flops / 1e15, high_s=op().flops / 1e15, calls=1, repeats=3)

    records, refused = records_of(speed(op(timing=impossible)), limits_of(chip))

    assert [error.code for error in refused] == ["SP-EVID-040"]
    assert all("op" not in record.conditions for record in records)


def test_predictions_of_a_chip_are_better_grounded_after_a_run() -> None:
    """No row that ships is of this chip, so its constants were derived from others'."""
    known = catalogue()
    before = Own().fitted("training", known)
    after = Own(tuple(records_of(speed(op()))[0])).fitted("training", known)

    assert before.grounds(CHIP, purpose="training", stack="fsdp")[0] == "derived"
    assert after.grounds(CHIP, purpose="training", stack="fsdp")[0] == "measured-here"


def test_predict_says_what_one_op_takes_on_a_chip() -> None:
    chip = catalogue().resolve(CHIP)
    size = 8192
    product = Op(
        name="mm", kind="matmul", flops=2.0 * size**3, input_bytes=6.0 * size**2, output_bytes=0.0, m=size, n=size, k=size
    )  # fmt: skip

    found = op_time(product, chip, "bf16")

    assert found is not None and found.low < found.mid < found.high
    peak = chip.peak_flops_per_s["bf16"].number
    assert peak is not None and product.flops / peak < found.mid < 3 * product.flops / peak
    tiny = op_time(msgspec.structs.replace(product, flops=2.0 * 8**3, input_bytes=384.0, m=8, n=8, k=8), chip, "bf16")
    assert tiny is not None and tiny.mid > 1e-6  # its launch
    assert op_time(product, chip, "fp64") is None


def test_what_a_proof_in_the_folder_has_judged_is_known(tmp_path: Path) -> None:
    folder = proof_kit.write(tmp_path, sick=True, parts=("model",))
    wrong = OpRecord(index=2, op="aten::gelu", phase="forward", path="blocks.0", outcome="wrong", call="aten::gelu#1")
    right = OpRecord(index=3, op="aten::mm", phase="forward", path="head", outcome="ok", call="aten::mm#1")
    model = msgspec.structs.replace(proof_kit.model(sick=True), ops=(wrong, right, msgspec.structs.replace(wrong, outcome="ok")))
    (folder / "model.json").write_bytes(msgspec.json.encode(model))

    assert known_verdicts(folder, "papertiger") == {"aten::gelu#1": ("wrong", "model"), "aten::mm#1": ("ok", "model")}
    assert known_verdicts(folder, "cuda") == {}
    assert known_verdicts(tmp_path / "none", "cuda") == {}
