from __future__ import annotations

import ast
import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from sapper.cli import main
from sapper.evidence import Store
from sapper.evidence.probe_file import check_of
from sapper.evidence.record import Record
from sapper.probe import probe_source
from sapper.probe.emit import ORDER
from support import environment

SOURCE = probe_source()


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The emitted file, in a folder without Sapper."""
    path = tmp_path_factory.mktemp("probe") / "probe.py"
    assert CliRunner().invoke(main.cli, ["probe", "--emit", str(path)]).exit_code == 0
    return path


def line(probe: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-I", str(probe), *arguments]


def run(probe: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(line(probe, *arguments), cwd=probe.parent, env=environment(**env), capture_output=True, timeout=300, check=False)
    out, err = (raw.decode("utf-8") for raw in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


def test_the_file_is_of_an_old_python_and_needs_the_standard_library_alone() -> None:
    tree = ast.parse(SOURCE, feature_version=(3, 8))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) == set()
    newer = r"\.removeprefix\(|\.removesuffix\(|strict=|math\.lcm|zoneinfo|@cache\b|datetime\.UTC"
    assert re.findall(newer, SOURCE) == []


def test_no_two_parts_define_one_name() -> None:
    names = [node.name for node in ast.parse(SOURCE).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    for node in ast.parse(SOURCE).body:
        targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        names += [name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    assert sorted(names) == sorted(set(names))


def test_every_part_is_in_the_file() -> None:
    folder = Path(sys.modules["sapper.probe.parts"].__file__ or "").parent
    assert set(ORDER) == {path.stem for path in folder.glob("*.py")} - {"__init__", "phrases"}


def test_standard_output_is_a_place_too(probe: Path) -> None:
    assert CliRunner().invoke(main.cli, ["probe", "--emit", "-"]).stdout_bytes == probe.read_bytes()


def test_without_pytorch_it_says_what_to_install(probe: Path) -> None:
    code = "import runpy, sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, str(probe), "--device", "cpu"], capture_output=True, text=True, check=False,
                          env=environment())
    assert done.returncode == 2 and "PyTorch cannot be imported" in done.stderr and "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def loaded(probe: Path) -> ModuleType:
    """The emitted file as a module, so that PyTorch is imported once for many lines."""
    spec = importlib.util.spec_from_file_location("emitted_probe", probe)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("npu", "torch_npu"), ("musa", "torch_musa"), ("mlu", "torch_mlu"), ("gcu", "torch_gcu"), ("hpu", "habana_frameworks.torch.core"),
        ("xla", "torch_xla"), ("xpu", "xpu-smi"), ("cuda", "nvidia-smi"), ("cuda:3", "nvidia-smi"), ("foo", "--plugin"),
    ],
)
def test_a_machine_without_the_device_says_what_to_install(
    device: str, said: str, loaded: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    name = device.partition(":")[0]
    if hasattr(torch, name) and getattr(torch, name).is_available():
        pytest.skip(f"there is a {name} here")
    out = tmp_path / "none.jsonl"
    for lang, words in (("en", said), ("zh", "\u8bf7")):
        monkeypatch.setenv("SAPPER_LANG", lang)
        assert loaded.main(["--device", device, "--out", str(out)]) == 2
        said_now = capsys.readouterr().err
        assert words in said_now and said in said_now and "Traceback" not in said_now
    assert not out.exists()


@pytest.fixture(scope="module")
def results(probe: Path) -> Path:
    """What a short run on the processor wrote."""
    path = probe.parent / "results.jsonl"
    sections = ["--only", "launch", "--only", "memory", "--only", "matmul"]
    done = run(probe, "--device", "cpu", "--budget", "8s", "--threads", "1", *sections, "--out", str(path), "--chip", "our-cpu")
    assert done.returncode == 0, done.stderr
    return path


def imported(path: Path, folder: Path, *flags: str) -> tuple[dict[str, Any], list[Record]]:
    """The report of an import into a store of its own, and the records there."""
    store = str(folder / "evidence.db")
    done = CliRunner().invoke(main.cli, ["evidence", "import", str(path), "--store", store, "--format", "json", *flags])
    with Store.open(store) as opened:
        return json.loads(done.stdout)[0], opened.records()


@pytest.mark.torch
@pytest.mark.slow
def test_results_of_the_processor_become_evidence(results: Path, tmp_path: Path) -> None:
    report, records = imported(results, tmp_path)
    lines = [json.loads(text) for text in results.read_text("utf-8").splitlines()]
    assert (lines[0]["type"], lines[-1]["type"]) == ("header", "end")
    assert report["refused"] == [] and report["added"] == len(lines) - 2 == lines[-1]["results"]
    kinds = {record.kind for record in records}
    assert kinds == {"matmul", "memory-copy", "memory-read", "launch"}
    assert {record.dtype for record in records if record.kind == "matmul"} == {"bf16", "fp16", "fp32", "tf32", "int8", "fp8"}
    assert [record.status for record in records if record.dtype == "tf32"] == ["unsupported"]
    for record in records:
        assert (record.chip, record.grade, record.source) == ("our-cpu", "measured-here", "sapper probe")
        assert record.stack is not None and record.stack.startswith("torch ") and record.conditions["threads"] == 1
    for record in records:
        if record.low is not None and record.high is not None and record.value is not None:
            assert record.low <= record.value <= record.high
    listed = CliRunner().invoke(main.cli, ["evidence", "list", "--store", str(tmp_path / "evidence.db")])
    assert "256x256x256" in listed.stdout and "unsupported" in listed.stdout


@pytest.mark.torch
@pytest.mark.slow
def test_collectives_run_over_processes(probe: Path, tmp_path: Path) -> None:
    path = tmp_path / "collectives.jsonl"
    flags = ["--only", "collectives", "--processes", "2", "--threads", "1", "--budget", "3s", "--out", str(path), "--chip", "our-cpu"]
    done = run(probe, "--device", "cpu", *flags)
    assert done.returncode == 0, done.stderr
    report, records = imported(path, tmp_path)
    assert report["refused"] == []
    [reduction] = [record for record in records if record.kind == "all-reduce" and record.conditions["message_bytes"] == 2**20]
    assert reduction.conditions["devices"] == 2 and reduction.conditions["backend"] == "gloo"
    assert reduction.status == "ok" and reduction.unit == "s"


@pytest.mark.torch
@pytest.mark.slow
def test_attention_clocks_and_training_on_a_small_scale(
    loaded: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    small = {
        "ATTENTION_HEADS": 2, "ATTENTION_LENGTHS": (32,), "ATTENTION_CACHES": ((2, 64),), "CLOCK_SIZES": (64,), "CLOCK_WINDOW_S": 3.0,
        "CLOCK_PAUSE_S": 0.1, "STEP_SIZES": ((64, 2),), "STEP_SEQ_LEN": 32, "STEP_VOCAB": 128,
    }
    for name, value in small.items():
        monkeypatch.setattr(loaded, name, value)
    path = tmp_path / "small.jsonl"
    sections = ["--only", "attention", "--only", "clocks", "--only", "training"]
    line = ["--device", "cpu", "--budget", "60s", "--threads", "1", *sections, "--out", str(path), "--chip", "our-cpu"]
    threads = torch.get_num_threads()
    try:
        assert loaded.main(line) == 0
    finally:
        torch.set_num_threads(threads)
    report, records = imported(path, tmp_path)
    assert report["refused"] == []
    passes = {(item.conditions["pass"], item.metric) for item in records if item.kind == "attention" and item.status == "ok"}
    assert passes == {("forward", "rate"), ("forward+backward", "rate"), ("decode", "bandwidth")}
    clock = {item.conditions["what"]: item.value for item in records if item.kind == "clock"}
    assert clock["sustained over burst"] == pytest.approx(clock["sustained"] / clock["burst"])
    assert {item.dtype for item in records if item.kind == "training-step" and item.value} == {"bf16", "fp32"}


@pytest.mark.torch
@pytest.mark.slow
def test_what_was_left_out_is_named(results: Path) -> None:
    last = json.loads(results.read_text("utf-8").splitlines()[-1])
    assert any(re.fullmatch(r"matmul \w+ 16384x16384x16384: (time|memory)", what) for what in last["left_out"])


@pytest.mark.torch
@pytest.mark.slow
def test_an_interrupted_run_keeps_what_it_had(probe: Path, tmp_path: Path) -> None:
    path = tmp_path / "killed.jsonl"
    child = subprocess.Popen(line(probe, "--device", "cpu", "--budget", "60s", "--threads", "1", "--out", str(path)), env=environment(),
                             stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while (not path.exists() or path.read_bytes().count(b"\n") < 4) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=20)
    report, records = imported(path, tmp_path)
    assert len(records) >= 2 and report["refused"] == []
    assert [item["code"] for item in report["warnings"]] == ["SP-EVID-053", "SP-EVID-052"]


@pytest.mark.torch
@pytest.mark.slow
def test_results_of_before_are_never_overwritten(results: Path, loaded: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    before = results.read_bytes()
    assert loaded.main(["--device", "cpu", "--out", str(results)]) == 2
    assert "--out" in capsys.readouterr().err and results.read_bytes() == before


def test_a_budget_that_is_no_time(loaded: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    for budget in ("soon", "-3s", "0", "nan", "1d"):
        assert loaded.main(["--device", "cpu", f"--budget={budget}"]) == 2
        assert "90s" in capsys.readouterr().err
    assert [loaded.seconds_of(text) for text in ("90", "90s", "1.5m", "1h")] == [90, 90, 90, 3600]


HEADER = {
    "type": "header", "note": "a quiet machine", "date": "2025-05-01", "device": "NVIDIA A100-SXM4-80GB", "stack": "torch 2.8.0",
    "memory_bytes": 8.4e10,
}
RESULT = {
    "type": "result", "kind": "matmul", "metric": "rate", "unit": "flop/s", "dtype": "bf16", "value": 2.5e14,
    "conditions": {"m": 4096, "n": 4096, "k": 4096},
}


def chained(folder: Path, objects: Sequence[dict[str, Any]], name: str = "x.jsonl") -> Path:
    """A file as the probe writes it."""
    path, check, lines = folder / name, "", []
    for seq, fields in enumerate(objects):
        text = json.dumps({"sapper_probe": 1, "seq": seq, **fields})[:-1]
        check = check_of(check, text)
        lines.append(f'{text}, "check": "{check}"}}\n')
    path.write_text("".join(lines), "utf-8")
    return path


def whole(folder: Path) -> list[str]:
    results = [{**RESULT, "value": 2e14 + number} for number in range(4)]
    return chained(folder, [HEADER, *results, {"type": "end"}]).read_text("utf-8").splitlines(keepends=True)


def test_the_chip_is_guessed_from_the_device_where_that_is_one(tmp_path: Path) -> None:
    report, records = imported(chained(tmp_path, [HEADER, RESULT, {"type": "end"}]), tmp_path)
    assert [item["code"] for item in report["warnings"]] == ["SP-EVID-054"]
    assert records[0].note == "a quiet machine"
    assert (records[0].chip, records[0].device) == ("nvidia-a100-sxm-80gb", "NVIDIA A100-SXM4-80GB")
    several = chained(tmp_path, [{**HEADER, "device": "A100"}, RESULT, {"type": "end"}], "several.jsonl")
    assert imported(several, tmp_path)[0]["warnings"][0]["code"] == "SP-EVID-053"
    named = imported(several, tmp_path, "--chip", "A100-SXM4-80GB")
    assert named[0]["warnings"] == [] and {record.chip for record in named[1]} == {"nvidia-a100-sxm-80gb", None}


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        (lambda lines: [*lines[:2], lines[2].replace("200000000000001", "300000000000001"), *lines[3:]], [(3, "SP-EVID-050")]),
        (lambda lines: [*lines[:2], *lines[3:]], [(3, "SP-EVID-051")]),
        (lambda lines: [*lines[:4], lines[4][:40]], [(5, "SP-FILE-007")]),
        (lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], [(3, "SP-EVID-051"), (4, "SP-EVID-051"), (5, "SP-EVID-051")]),
        (lambda lines: [*lines[:2], lines[2].rsplit(", \"check\"", 1)[0] + "}\n", *lines[3:]], [(3, "SP-EVID-050"), (4, "SP-EVID-050")]),
        (lambda lines: [*lines[:2], "garbage\n", *lines[3:]], [(3, "SP-FILE-007"), (4, "SP-EVID-050")]),
    ],
    ids=["edited", "dropped", "cut", "exchanged", "unchecked", "garbage"],
)
def test_a_line_that_is_not_as_the_probe_wrote_it_is_refused(change: Any, refused: list[tuple[int, str]], tmp_path: Path) -> None:
    path = tmp_path / "changed.jsonl"
    path.write_text("".join(change(whole(tmp_path))), "utf-8")
    report, records = imported(path, tmp_path)
    assert [(item["line"], item["code"]) for item in report["refused"]] == refused
    assert len(records) == report["records"] >= 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda text: text.replace("A100-SXM4", "A800-SXM4"), "SP-EVID-057"),
        (lambda text: text.replace('"sapper_probe": 1', '"sapper_probe": 9'), "SP-EVID-056"),
    ],
)
def test_a_changed_first_line_makes_the_file_worthless(change: Any, code: str, tmp_path: Path) -> None:
    lines = whole(tmp_path)
    path = tmp_path / "changed.jsonl"
    path.write_text("".join([change(lines[0]), *lines[1:]]), "utf-8")
    done = CliRunner().invoke(main.cli, ["evidence", "import", str(path), "--store", str(tmp_path / "x.db")])
    assert done.exit_code == 2 and code in done.stderr


def test_a_run_of_the_processor_is_no_evidence_of_a_chip(tmp_path: Path) -> None:
    header = {**HEADER, "device": "AMD EPYC", "circumstances": {"torch_device": "cpu"}}
    path = chained(tmp_path, [header, RESULT, {"type": "end"}])
    store = tmp_path / "x.db"
    done = CliRunner().invoke(main.cli, ["evidence", "import", str(path), "--chip", "l4", "--store", str(store)])
    assert done.exit_code == 2 and "SP-EVID-058" in done.stderr and "--device cuda" in done.stderr
    assert not store.exists()
    assert imported(path, tmp_path, "--chip", "our-cpu")[0]["refused"] == []


def test_the_clock_of_the_machine_can_be_put_right(tmp_path: Path) -> None:
    path = chained(tmp_path, [{**HEADER, "date": "2099-01-01"}, RESULT, {"type": "end"}])
    assert [item["code"] for item in imported(path, tmp_path)[0]["refused"]] == ["SP-EVID-037"]
    assert imported(path, tmp_path, "--date", "2025-05-04")[1][0].date == "2025-05-04"
