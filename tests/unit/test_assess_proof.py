"""``sapper assess --proof CHIP=DIR``: what a proof says of a chip, and what it must not say."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import msgspec
import proof_kit
import pytest
from click.testing import CliRunner, Result

from assess_examples import assessment
from sapper.assess.assessment import Assessment, Option
from sapper.assess.proof import Proven
from sapper.assess.proof_checks import proof_line, with_proofs
from sapper.cli import main
from sapper.dossier.proof.condense import proven
from sapper.dossier.proofs import section
from sapper.dossier.risklist import headings
from sapper.prove.results import PARTS

ASK = ("assess", "gpt2-medium", "--train-tokens", "1B", "--reference", "8x a100-sxm-80gb", "--on", "8x h20,8x h100-sxm-80gb")
QUICK = ("--plan", "tp=1,pp=1,dp=8", "--pages", "none", "--lang", "en")


def on_device(folder: Path, *, sick: bool, parts: tuple[str, ...] = PARTS, device: str = "npu", where: str = "npu:0") -> Path:
    """A folder of the kit as a stack of that name leaves it that runs on no emulation."""
    proof_kit.write(folder, sick=sick, parts=parts)
    for path in folder.glob("*.json*"):
        text = path.read_text("utf-8").replace("papertiger:0", where).replace("papertiger", device)
        path.write_text(text.replace('"real":false', '"real":true').replace('"tried":"emulated"', '"tried":"npu"'), "utf-8")
    return folder


def joined(*proofs: Proven) -> Assessment:
    given = assessment()
    return with_proofs(given, proofs, chips=[option.chip.id for option in given.options])


def of_chip(found: Assessment, chip: str) -> Option:
    return next(option for option in found.options if option.chip.id == chip)


def answer(option: Option) -> str:
    return next(check.outcome for check in option.checks if check.code == "proven")


def proof_risk_codes(option: Option) -> list[tuple[str, str]]:
    return [(risk.code, risk.severity) for risk in option.risks if risk.code.startswith("proof-")]


def test_a_red_proof_fails_the_chip_and_names_blame_first_and_what_was_not_covered(tmp_path: Path) -> None:
    option = assessment().options[1]
    found = joined(proven(on_device(tmp_path, sick=True), chip=option.chip.id))
    proof, joint = found.proofs[0], of_chip(found, option.chip.id)

    assert (proof.verdict, proof.blame, proof.standing) == ("red", "kernel", "device")
    assert proof.guilty[0].op == "aten::gelu" and proof.guilty[0].outcome == "wrong"
    assert proof.train is not None and (proof.train.steps_inside, proof.train.steps_asked) == (2, 6)
    assert proof.survival is not None and proof.survival.outcomes == {"ok": 1, "crash": 1}
    assert proof.speed is not None and proof.speed.roof_share == pytest.approx(0.8)
    assert answer(joint) == "fail"
    assert proof_risk_codes(joint) == [("proof-red", "high"), ("proof-incomplete", "medium")]
    assert joint.estimate == option.estimate and joint.ratios == option.ratios  # no figure moves
    assert proof_line(proof, "en").startswith(f"proof {option.chip.id}: red, fault: the chip's kernel; ")
    for lang, blamed in (("en", "the chip's kernel"), ("zh", "\u82af\u7247\u5185\u6838")):
        places = next(heading for heading in headings(found, lang) if heading.code == "proof-red").places
        assert blamed in places[0].detail
        page = section(found, lang)["each"][0]
        assert blamed in page["lead"] and len(page["gaps"]) == len(proof.not_covered) > 0


def test_a_green_proof_passes_and_chips_without_one_are_unknown(tmp_path: Path) -> None:
    chip = assessment().options[1].chip.id
    found = joined(proven(on_device(tmp_path, sick=False), chip=chip))
    others = [option for option in found.options if option.chip.id != chip]

    assert answer(of_chip(found, chip)) == "pass"
    assert others and {answer(option) for option in others} == {"unknown"}
    assert found.not_proven == tuple(dict.fromkeys(option.chip.id for option in others))
    rows = section(found, "en")["overview"].rows
    assert [row[1].kind for row in rows] == ["pass"] + ["unknown"] * len(found.not_proven)
    assert {row[2].text for row in rows[1:]} == {"not proven here"}


@pytest.mark.parametrize(
    ("device", "where", "standing"), [("papertiger", "papertiger:0", "emulated"), ("cpu", "cpu", "host"), ("inductor", "cpu", "host")]
)
@pytest.mark.parametrize("sick", [True, False])
def test_an_emulated_chip_and_the_host_are_no_evidence(tmp_path: Path, device: str, where: str, standing: str, sick: bool) -> None:
    chip = assessment().options[1].chip.id
    found = joined(proven(on_device(tmp_path, sick=sick, device=device, where=where), chip=chip))
    option = of_chip(found, chip)

    assert found.proofs[0].standing == standing
    assert answer(option) == "unknown"
    assert proof_risk_codes(option) == [("proof-elsewhere", "medium")]
    assert "unknown, no evidence" in proof_line(found.proofs[0], "en")


def test_a_device_that_says_it_is_another_chip_is_no_evidence(tmp_path: Path) -> None:
    folder = on_device(tmp_path, sick=False)
    model = json.loads((folder / "model.json").read_text("utf-8"))
    (folder / "model.json").write_text(json.dumps(model | {"versions": {"device": "NVIDIA H20"}}), "utf-8")

    assert proven(folder, chip="nvidia-h20-96gb").standing == "device"
    other = proven(folder, chip="nvidia-a100-sxm-80gb")
    assert (other.standing, other.other_chip) == ("other", "nvidia-h20-96gb")


def test_speed_alone_or_a_damaged_part_passes_nothing(tmp_path: Path) -> None:
    chip = assessment().options[1].chip.id
    alone = proven(on_device(tmp_path / "alone", sick=False, parts=("speed",)), chip=chip)
    damaged = on_device(tmp_path / "damaged", sick=False)
    (damaged / "train.json").write_text("{", "utf-8")
    torn = proven(damaged, chip=chip)

    assert (alone.verdict, torn.verdict) == ("green", "green") and torn.unreadable == ("train",)
    assert answer(of_chip(joined(alone), chip)) == answer(of_chip(joined(torn), chip)) == "unknown"


def invoke(*line: str) -> Result:
    return CliRunner().invoke(main.cli, list(line))


def test_the_command_says_it_in_terminal_csv_and_json(tmp_path: Path) -> None:
    folder = on_device(tmp_path / "run", sick=True)
    plain = invoke(*ASK, *QUICK, "--out", str(tmp_path / "plain"), "--format", "csv")
    asked = invoke(*ASK, *QUICK, "--proof", f"h20={folder}", "--out", str(tmp_path / "out"))
    table = list(csv.DictReader(io.StringIO(plain.stdout)))
    (written,) = (tmp_path / "out").glob("*.json")
    found = msgspec.json.decode(written.read_bytes(), type=Assessment)
    lines = asked.stdout.splitlines()

    assert {row["proven"] for row in table} == {"unknown"}
    assert asked.exit_code == 0 and len(lines) <= 24 and max(map(len, lines)) <= 100
    assert any(line.startswith(f"proof {found.proofs[0].chip}: red, fault: the chip's kernel") for line in lines)
    assert any(line.startswith("not proven here: ") and "(unknown)" in line for line in lines)
    assert found.proofs[0].not_covered[0].keys() == {"en", "zh"}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (["h20"], "SP-ASSESS-030"), (["ascend-910b3=DIR"], "SP-ASSESS-031"), (["h20=DIR", "h20=DIR"], "SP-ASSESS-032"),
        (["h20=nowhere"], "SP-REPORT-001"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_before_anything_is_written(tmp_path: Path, given: list[str], code: str) -> None:
    folder = proof_kit.write(tmp_path / "run", sick=False, parts=("model",))
    flags = [part for one in given for part in ("--proof", one.replace("DIR", str(folder)))]
    result = invoke(*ASK, *QUICK, *flags, "--out", str(tmp_path / "out"))

    assert result.exit_code == 2 and not os.path.exists(tmp_path / "out")
    assert code in str(getattr(result.exception, "code", "")) + result.stderr
    if code == "SP-ASSESS-031":
        assert "h20" in str(result.exception) + result.stderr and "a100" in str(result.exception) + result.stderr
