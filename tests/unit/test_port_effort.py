"""The effort of a port: from counts to an interval, and from history to a fit."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest
from port_kit import finding, judged, outcome, rule

from sapper.port import effort
from sapper.port.effort import Errors, Model, Pair, estimate
from sapper.port.rule import Class
from support import ROOT


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit_effort", ROOT / "scripts" / "fit_effort.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fit_effort"] = module
    spec.loader.exec_module(module)
    return module


FIT = script()
EXACT = Errors(low_log=-0.5, high_log=0.5, median_abs_log=0.2, coverage_share=0.8)


def model(rate: float = 2.0) -> Model:
    rates = dict.fromkeys((*effort.GROUPS, "file"), rate) | {"port": 4.0}
    return Model(rates=rates, files_ratio=1.5, lines=EXACT, files=EXACT, pairs=40, repositories=12, most_findings=100)


def pair(repository: str, findings: int, *, lines: int, files: int = 2) -> Pair:
    return Pair(
        repository=repository, before="a", after=f"{findings}", date="2026-01-01", source="https://example.org", in_tests=0, files=files,
        counts={"device": findings}, files_with_findings=2, lines=lines, new_lines=0, new_files=0, naming_files=2,
        naming_files_of_all=4,
    )  # fmt: skip


def test_every_class_of_rules_is_in_one_group() -> None:
    grouped = [klass for classes in effort.GROUPS.values() for klass in classes]
    assert sorted(grouped) == sorted(get_args(Class))


def test_more_findings_take_more_lines_and_the_interval_holds_its_middle() -> None:
    few, many = (estimate({"device": count}, 3, by=model()) for count in (5, 50))
    assert (few.lines.mid, many.lines.mid) == (20, 110)
    assert few.lines.low < few.lines.mid < few.lines.high < many.lines.high
    assert few.files.mid == 4
    assert (few.extrapolated, estimate({"device": 101}, 3, by=model()).extrapolated) == (False, True)


def test_nothing_to_change_is_no_work() -> None:
    nothing = estimate({}, 0, by=model())
    assert (nothing.lines.low, nothing.lines.high, nothing.files.high) == (0, 0, 0)


def test_kernels_are_left_out() -> None:
    files = [judged(finding(path=path)) for path in ("a.py", "b.py")]
    kernel = judged(finding("SP-PORT-901", path="k.cu"), of=rule("SP-PORT-901", klass="kernel"))
    without, beside = (outcome(*found).summary.by_target[0] for found in (files, [*files, kernel]))
    assert (without.verdicts["unknown"], beside.verdicts["unknown"]) == (2, 3)
    assert beside.effort == without.effort == estimate({"device": 2}, 2)


def test_the_fit_finds_the_rate_that_made_the_history() -> None:
    history = [pair(f"r{index % 8}", index + 5, lines=3 * (index + 5) + 6) for index in range(40)]
    fitted, *_ = FIT.fitted(history)
    assert effort.predicted_lines(fitted.rates, {"device": 20}, 2) == pytest.approx(66, rel=0.05)
    assert fitted.lines.median_abs_log < 0.05


def test_one_odd_port_moves_the_fit_little() -> None:
    history = [pair(f"r{index % 8}", index + 5, lines=3 * (index + 5)) for index in range(40)]
    odd, *_ = FIT.fitted([*history, pair("r9", 10, lines=100_000)])
    plain, *_ = FIT.fitted(history)
    assert effort.predicted_lines(odd.rates, {"device": 20}, 2) == pytest.approx(
        effort.predicted_lines(plain.rates, {"device": 20}, 2), rel=0.25
    )


def test_the_model_that_ships_is_that_of_the_pairs_that_ship() -> None:
    pairs, fit = effort.pairs(), effort.model()
    assert (fit.pairs, fit.repositories) == (len(pairs), len({one.repository for one in pairs}))
    assert FIT.same(FIT.msgspec.to_builtins(FIT.fitted(pairs)[0]), FIT.msgspec.to_builtins(fit))
    assert 0.7 <= fit.lines.coverage_share <= 0.95


def test_ports_are_found_in_a_history_and_measured(tmp_path: Path) -> None:
    repo = tmp_path / "some+project"

    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(repo), *identity, *arguments], check=True, capture_output=True)

    repo.mkdir()
    git("init", "-q")
    lines = ["import torch", *(f"x{index} = torch.cuda.is_available()" for index in range(5))]
    (repo / "train.py").write_text("\n".join(lines) + "\n", "utf-8")
    git("add", "-A")
    git("commit", "-qm", "Start")
    (repo / "train.py").write_text("\n".join(["import torch", *("x = torch.accelerator.is_available()" for _ in range(5))]) + "\n", "utf-8")
    git("commit", "-qam", "Support Ascend NPU")
    (found,) = FIT.collected(tmp_path, None)
    assert (found.repository, found.counts, found.lines, found.files, found.files_with_findings) == ("some/project", {"device": 5}, 5, 1, 1)
    assert FIT.collected(tmp_path, [found]) == [found]
