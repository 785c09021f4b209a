"""The dry run without PyTorch: what a program asks of its surroundings, how processes are watched, how the result is judged."""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sapper.errors import SapperError
from sapper.port.dryrun import result, stacks
from sapper.port.dryrun.inside import lines
from sapper.port.dryrun.run import Record
from sapper.port.dryrun.session import Session, Touch, Unit
from sapper.port.finding import Finding, Place
from support import ROOT, Run


def program(folder: Path, text: str, name: str = "program.py") -> str:
    (folder / name).write_text(textwrap.dedent(text), "utf-8")
    return name


def tried(run_sapper: Run, *arguments: str) -> tuple[int, dict[str, Any], str]:
    done = run_sapper("port", "try", "--json", *arguments)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout), done.stderr


def touches(trial: dict[str, Any]) -> set[tuple[str, str, str, int]]:
    """Symbol, outcome, path and line of the user's own touches."""
    found = (one["touch"] for one in trial["own"])
    return {(one["symbol"], one["outcome"], one["path"], one["line"]) for one in found}


@pytest.mark.slow
def test_environment_commands_and_children_are_watched_and_nothing_on_the_chip_is_void(run_sapper: Run, tmp_path: Path) -> None:
    child = program(tmp_path, 'import os\nos.environ["NCCL_DEBUG"] = "INFO"\n', "child.py")
    name = program(
        tmp_path,
        f"""
        import multiprocessing
        import os
        import subprocess
        import sys

        def work():
            return os.getenv("CUDA_HOME")

        if __name__ == "__main__":
            dict(os.environ)
            os.environ.get("CUDA_VISIBLE_DEVICES", "0")
            try:
                subprocess.run(["nvidia-smi", "-L"])
            except FileNotFoundError:
                pass
            for how in ("fork", "spawn"):
                process = multiprocessing.get_context(how).Process(target=work)
                process.start()
                process.join()
            subprocess.run([sys.executable, "{child}"], env={{"PATH": os.environ["PATH"]}}, check=True)
            print("the program's own words")
        """,
    )
    code, trial, said = tried(run_sapper, "--", "python", name)
    assert code == 1 and trial["verdict"] == "void" and trial["real_chip"] is False and trial["chip_share"] is None
    assert touches(trial) == {
        ("CUDA_HOME", "ignored", name, 8),
        ("CUDA_VISIBLE_DEVICES", "ignored", name, 12),
        ("nvidia-smi", "fails", name, 14),
        ("NCCL_DEBUG", "ignored", child, 2),
    }
    home = next(one for one in trial["own"] if one["touch"]["symbol"] == "CUDA_HOME")
    assert (home["processes"], home["touch"]["count"], home["touch"]["function"]) == (2, 2, "work")
    assert "the program's own words" in said and trial["unwatched"] == []


@pytest.mark.slow
def test_a_program_that_touches_nothing_and_computes_nothing_proves_nothing(run_sapper: Run, tmp_path: Path) -> None:
    done = run_sapper("port", "try", "--no-scan", "--", "python", program(tmp_path, "print(sum(range(10)))"))
    assert done.returncode == 2
    assert "45" in done.stdout and "VOID: nothing ran on the chip" in done.stdout and "No real chip was there" in done.stdout


@pytest.mark.slow
def test_findings_of_the_scan_are_reached_or_not_and_packages_have_their_verdict(run_sapper: Run, tmp_path: Path) -> None:
    name = program(
        tmp_path,
        """
        def used():
            import pynvml

        def unused():
            import torch
            return torch.cuda.is_available()

        device = "npu"
        if device == "cuda":
            raise SystemExit(3)
        try:
            used()
        except ImportError:
            pass
        """,
    )
    code, trial, _ = tried(run_sapper, "--", "python", name)
    assert code == 1 and trial["exit_code"] == 0
    assert ('"cuda"', "silent", name, 10) in touches(trial)
    assert {one["touch"]["symbol"] for one in trial["own"]} >= {"pynvml"}
    coverage = {one["finding"]["place"]["line"]: one["coverage"] for one in trial["scan"]}
    assert coverage[7] == "unreached"


@pytest.mark.slow
def test_a_program_that_does_not_end_is_ended_with_its_processes_and_judged(run_sapper: Run, tmp_path: Path) -> None:
    name = program(
        tmp_path,
        """
        import multiprocessing
        import os
        import signal
        import time

        def worker():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.environ["NCCL_DEBUG"] = "INFO"
            with open("worker", "w") as file:
                file.write(str(os.getpid()))
            time.sleep(600)

        if __name__ == "__main__":
            multiprocessing.get_context("spawn").Process(target=worker, daemon=True).start()
            time.sleep(600)
        """,
    )
    code, trial, _ = tried(run_sapper, "--timeout", "6", "--", "python", name)
    assert (code, trial["verdict"], trial["overran"], trial["limit_s"]) == (1, "void", True, 6)
    assert touches(trial) == {("NCCL_DEBUG", "ignored", name, 9)}
    worker = Path(f"/proc/{(tmp_path / 'worker').read_text('utf-8')}/status")
    assert not worker.exists() or "zombie" in worker.read_text("utf-8")


@pytest.mark.slow
def test_the_sitecustomize_that_ours_hides_runs_all_the_same(run_sapper: Run, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    program(tmp_path / "site", "import builtins\nbuiltins.hidden = 'it ran'\n", "sitecustomize.py")
    name = program(tmp_path, "print(hidden)")
    path = os.pathsep.join([str(ROOT / "src"), str(tmp_path / "site")])
    done = run_sapper("port", "try", "--no-scan", "--", "python", name, PYTHONPATH=path)
    assert "it ran" in done.stdout


@pytest.mark.slow
def test_mistakes_are_told_with_a_next_step(run_sapper: Run) -> None:
    done = run_sapper("port", "try", "--as", "tpu", "--", "python", "x.py")
    assert done.returncode == 2 and "SP-TRY-003" in done.stderr and "->" in done.stderr
    assert run_sapper("port", "try", "--", "no-such-program").returncode == 2
    assert "SP-TRY-004" in run_sapper("port", "try", "--root", "nowhere", "--", "python").stderr
    with pytest.raises(SapperError) as error:
        stacks.stack_for("ascend", personality="no-such")
    assert error.value.code == "SP-TIGER-001"


def test_every_target_that_can_be_played_has_a_stack_and_its_shim_answers_by_the_tables() -> None:
    made = {name: stacks.stack_for(name) for name in stacks.playable()}
    assert "tpu" not in made and made["ascend"].native and made["rocm"].as_cuda and not made["xpu"].native
    assert made["ascend"].answers["torch.cuda.is_available"] == "shim"
    assert made["musa"].answers["torch.cuda.is_available"] == "not"
    assert "flash_attn" in stacks.packages()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('device.type == "cuda"', ["cuda"]),
        ('"cuda" in device', ["cuda"]),
        ('name in ("cpu", "cuda:0")', ["cuda:0"]),
        ('device.startswith("cuda")', ["cuda"]),
        ('backend != "nccl"', ["nccl"]),
        ('title == "cuda is fast"', []),
        ('print("cuda")', []),
    ],
)
def test_comparisons_with_the_name_of_cuda(line: str, expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text(f"{line}\n", "utf-8")
    assert [one.literal for found in lines._comparisons(str(path)).values() for one in found] == expected


# ---- judging -------------------------------------------------------------------------------------------------------------


def session() -> Session:
    return Session(folder="f", root="r", stack=stacks.stack_for("ascend"), shim=False, strict=False)


def touch(symbol: str = "torch.cuda.synchronize", outcome: str = "fails", line: int = 3, **fields: Any) -> Touch:
    given = {"kind": "api", "symbol": symbol, "outcome": outcome, "path": "a.py", "line": line, "end_line": line, "function": "f"}
    return msgspec.convert({**given, **fields}, Touch)


def finding(line: int) -> Finding:
    return Finding(code="SP-PORT-101", place=Place("a.py", line, 0, line, 9), symbol="torch.cuda.is_available", excerpt="")


def judged(*touches: Touch, launched: int = 5, exit_code: int = 0, findings: list[Finding] | None = None) -> result.Trial:
    unit = Unit(process=1, parent=0, command=("python",), on_chip={"mm": launched} if launched else {}, on_host={"add": 5}, ended=True)
    record = Record(exit_code, touches=list(touches), units={"1": unit}, reached={("a.py", 7)})
    return result.judged(record, session(), command=["python"], findings=findings)


def test_the_verdict_and_the_exit_code() -> None:
    assert (judged().verdict, result.exit_code(judged())) == ("clean", 0)
    assert judged().chip_share == 0.5
    assert (judged(touch()).verdict, result.exit_code(judged(touch()))) == ("touched", 1)
    assert (judged(launched=0).verdict, result.exit_code(judged(launched=0))) == ("void", 2)
    assert (judged(exit_code=1).verdict, result.exit_code(judged(exit_code=1))) == ("unfinished", 2)
    assert result.exit_code(judged(touch(), launched=0)) == 1
    assert result.exit_code(judged(touch(outcome="works"))) == 0


def test_what_a_package_does_counts_only_where_it_would_have_failed() -> None:
    assert result.exit_code(judged(touch(owner="somelib", outcome="silent"))) == 0
    assert result.exit_code(judged(touch(owner="somelib"))) == 1


def test_touches_are_laid_beside_findings() -> None:
    carried = touch("torch.Tensor.to", line=5, kind="device", literal=False)
    found = judged(touch(line=3), touch(line=4), carried, findings=[finding(3), finding(7), finding(9)])
    assert [one.coverage for one in found.scan or ()] == ["confirmed", "reached", "unreached"]
    by_line = {one.touch.line: one for one in found.own}
    assert (by_line[3].beyond_scan, by_line[4].beyond_scan, by_line[5].beyond_scan, by_line[5].carried) == (False, True, False, True)
    assert found.own[0].touch.line == 4  # a fault of the scan comes first


def test_a_name_that_is_read_to_be_called_counts_once_and_processes_are_summed() -> None:
    found = judged(touch(outcome="carries", process=1), touch(process=1, count=3), touch(process=2, count=4))
    assert [(one.touch.outcome, one.touch.count, one.processes) for one in found.own] == [("fails", 7, 2)]


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.parametrize("stack", ["gcu", "iluvatar"])
def test_a_program_that_captures_a_graph_goes_on(stack: str, run_sapper: Run, tmp_path: Path) -> None:
    name = program(
        tmp_path,
        """
        import torch

        x = torch.ones(2).cuda()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = x * 2
        graph.replay()
        print("sum", float(y.sum()))
        """,
    )
    _, trial, said = tried(run_sapper, "--as", stack, "--", "python", name)

    assert trial["exit_code"] == 0 and "sum 4.0" in said and [one["key"] for one in trial["remarks"]] == ["graph"]
    assert {"torch.cuda.CUDAGraph", "torch.cuda.graph"} <= {symbol for symbol, *_ in touches(trial)}
