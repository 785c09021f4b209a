"""Folders of proofs as the proofs themselves leave them, of a healthy device and of a sick one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from sapper.backends.checkup import Checkup, Family, Precision
from sapper.prove.blame.result import Evidence
from sapper.prove.change.edit import Edit, Setting, Size
from sapper.prove.change.result import FORMAT as CHANGE_FORMAT
from sapper.prove.change.result import VERSION as CHANGE_VERSION
from sapper.prove.change.result import EditResult, Smallest
from sapper.prove.change.result import Header as ChangeHeader
from sapper.prove.model.result import Coverage, Error, Finding, Layer, ModelResult, OpRecord
from sapper.prove.ops.result import FORMAT, VERSION, Asked, Header
from sapper.prove.repro.result import Repro
from sapper.prove.results import PARTS
from sapper.prove.speed.result import CopyRate, OpSpeed, Roofline, Speed, Timing
from sapper.prove.train.result import Departure, Row, TrainProof
from sapper.prove.verdict import CaseVerdict, Score

VERSIONS = {"torch": "2.13.0"}
SCRIPT = '"""GELU of papertiger is off."""\nimport torch\nassert torch.ones(1) < 0, "<&>"\n'


def ops(*cases: CaseVerdict, entries: int = 3, done: int = 3) -> str:
    header = Header(
        format=FORMAT, version=VERSION, sapper="0.1.0", asked=Asked(backend="papertiger"), versions=VERSIONS, kind="device", real=False,
        entries=entries, ops=3, left_out=("svd",), date="2026-11-20",
    )  # fmt: skip
    lines: list[Any] = [{"header": header}, *cases, *({"case": f"done/{at}", "entry": str(at)} for at in range(done))]
    return "".join(msgspec.json.encode(line).decode() + "\n" for line in lines)


def case(op: str, outcome: str = "ok", **more: Any) -> CaseVerdict:
    return CaseVerdict(case=f"opinfo/{op}/fp32/forward/{more.pop('at', 0)}", op=op, outcome=outcome, dtype="fp32", **more)  # type: ignore[arg-type]


def model(*, sick: bool) -> ModelResult:
    finding = Finding(
        op="aten::gelu", phase="forward", path="blocks.0", outcome="wrong", blame="kernel", ruling="prove.ruling.kernel",
        evidence=(Evidence(counter="decomposed", on="papertiger", code="prove.evidence.decomposed", outcome="ok", roundings_ratio=0.5),),
        ratio=4e3, count=2, repro="repros/gelu.py",
    )  # fmt: skip
    outcome = "wrong" if sick else "ok"
    layers = tuple(
        Layer(
            path=path, phase=phase, ops=3, worst="aten::gelu", ratio=4e3 if sick and path == "blocks.0" else 1.2,  # type: ignore[arg-type]
            accumulated=Error(
                label=path, outcome=outcome, error_l2=1e-3 if sick else 4e-7, allowed_l2=5e-7, ratio=2e3 if sick else 0.8,  # type: ignore[arg-type]
            ),
            amplification_ratio=1.1,
        )
        for phase, paths in (("forward", ("wte", "blocks.0", "head")), ("backward", ("head", "blocks.0", "wte")))
        for path in paths
    )  # fmt: skip
    return ModelResult(
        target="gpt.py:build", backend="papertiger", kind="device", real=False, dtype="fp32", seed=0, steps=1, method="full",
        outcome=outcome, blame="kernel" if sick else None, findings=(finding,) if sick else (), layers=layers,  # type: ignore[arg-type]
        errors=(Error(label="loss", outcome=outcome, error_l2=1e-7, allowed_l2=1e-7, ratio=1.0),),  # type: ignore[arg-type]
        ops=(OpRecord(index=1, op="aten::mm", phase="forward", path="head", outcome="ok", ratio=1.1),),
        coverage=Coverage(ops=40, judged=38, random=2), where="papertiger:0", versions=VERSIONS, sapper="0.1.0", date="2026-11-20",
    )  # fmt: skip


def train(*, sick: bool) -> TrainProof:
    first = Departure(step=2, phase="backward", thing="grad blocks.0.up.weight", manner="scaled", ratio=30.0, worst_ratio=90.0, scale=0.5)
    rows = tuple(
        Row(
            step=at, loss=7.0 - 0.1 * at + (1e-3 if sick and at > 2 else 1e-7), loss_truth=7.0 - 0.1 * at, loss_peer=7.0 - 0.1 * at + 2e-7,
            loss_allowed=1e-6 * (1 + at), forward_ratio=0.3, backward_ratio=30.0 if sick and at >= 2 else 0.4, optimizer_ratio=0.2,
            gradient="blocks.0.up.weight", gradient_norm=1.0, gradient_norm_truth=1.0, angle_rad=1e-6, angle_rms_rad=1e-6,
        )
        for at in range(6)
    )  # fmt: skip
    return TrainProof(
        format="sapper-prove-train", version=1, sapper="0.1.0", date="2026-11-20", target="gpt.py:build", digest="0", backend="papertiger",
        versions=VERSIONS, where="papertiger:0", path="eager", seed=0, dtype="fp32", optimizer="adamw", lr=1e-3, data=None, asked=6,
        members=5, outcome="wrong" if sick else "ok", blame="kernel" if sick else None, said=None, first=first if sick else None,
        departures=(first,) if sick else (), rows=rows, factors={}, peer_ratio=0.5, notes=(), covered={"loss": 6}, wall_s=1.0,
        reference_wall_s=1.0,
    )  # fmt: skip


def changes(*, sick: bool) -> str:
    edits = (Edit(family="batch", name="1", change="batch", args={"batch": 1}), Edit(family="length", name="17", change="seq"))
    header = ChangeHeader(
        format=CHANGE_FORMAT, version=CHANGE_VERSION, sapper="0.1.0", date="2026-11-20",
        setting=Setting(target="gpt.py:build", on="papertiger"), digest="0", versions=VERSIONS, edits=edits, left_out=("dtype:bf16",),
        dropout_off=0,
    )  # fmt: skip
    smallest = Smallest(size=Size(layers=1, seq=3), edit=edits[1], tries=4, repro=Repro(path="repros/gelu.py", lines=3, reproduced=True))
    results = [
        EditResult(id=edits[0].id, edit=edits[0], outcome="ok", where="papertiger:0"),
        EditResult(id=edits[1].id, edit=edits[1], outcome="crash", said="SIGSEGV", smallest=smallest)
        if sick else EditResult(id=edits[1].id, edit=edits[1], outcome="ok", where="papertiger:0"),
    ]  # fmt: skip
    return "".join(msgspec.json.encode(line).decode() + "\n" for line in ({"header": header}, *results))


def speed(*, sick: bool) -> Speed:
    def op(name: str, **more: Any) -> OpSpeed:
        fields: dict[str, Any] = {
            "id": f"forward:aten::{name}#0", "op": f"aten::{name}", "phase": "forward", "inputs": ("fp32[64,64]",),
            "outputs": ("fp32[64,64]",), "count": 2, "kind": "matmul", "flops": 5e5, "size_bytes": 5e4, "outcome": "ok", "judged": "now",
            "timing": Timing(median_s=1e-4, low_s=9e-5, high_s=1.1e-4, calls=10, repeats=9), "roof_s": 8e-5, "bound": "compute",
            "step_share": 0.5,
        }  # fmt: skip
        return OpSpeed(**fields | more)

    return Speed(
        format="sapper-prove-speed", version=1, sapper="0.1.0", date="2026-11-20", backend="papertiger", real=False, versions=VERSIONS,
        device="papertiger", target="gpt.py:build", dtype="fp32", seed=0, chip=None, conditions={"threads": "1"},
        measured=Roofline(
            peak_flops_per_s=1e10, memory_bytes_per_s=1e10, launch_s=1e-5, matmul=(512, 512, 512),
            copies=(CopyRate(size_bytes=2e6, rate_bytes_per_s=1e10),),
        ),
        catalogue=None, ops=(op("mm"), op("gelu", outcome="wrong" if sick else "ok")), step_s=1e-3,
    )  # fmt: skip


def checkup(*, sick: bool) -> Checkup:
    precision = Precision(families=(Family(family="matmul", dtype="fp32", bits=8 if sick else 24, accumulator_bits=24),))
    return Checkup(name="papertiger", state="passed", versions=VERSIONS, where="papertiger:0", precision=precision, tried="emulated")


def write(folder: Path, *, sick: bool, parts: tuple[str, ...] = PARTS) -> Path:
    """A folder with these parts; returns it."""
    bad = Score(label="value", outcome="wrong", ratio=4e3)
    cases = [case("nn.functional.gelu", "wrong", scores=(bad,), repro="repros/gelu.py") if sick else case("nn.functional.gelu"),
             case("mm"), case("svd_lowrank", "unsupported"), *([case("cumprod", "crash", said="SIGSEGV")] if sick else [])]  # fmt: skip
    contents: dict[str, tuple[str, Any]] = {
        "doctor": ("doctor.json", [checkup(sick=sick)]), "model": ("model.json", model(sick=sick)),
        "train": ("train.json", train(sick=sick)), "speed": ("speed.json", speed(sick=sick)),
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for part in parts:
        if part == "ops":
            (folder / "ops.jsonl").write_text(ops(*cases), "utf-8")
        elif part == "change":
            (folder / "change.jsonl").write_text(changes(sick=sick), "utf-8")
        else:
            name, value = contents[part]
            (folder / name).write_bytes(msgspec.json.encode(value))
    if sick:
        (folder / "repros").mkdir(exist_ok=True)
        (folder / "repros" / "gelu.py").write_text(SCRIPT, "utf-8")
    return folder
