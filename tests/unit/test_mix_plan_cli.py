"""``sapper mix plan`` as a user meets it."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from sapper.cli import main
from sapper.mix.plan import MixPlan, read_plan, write_plan
from sapper.mix.profiles import HeldBytes, LayerCost, Profile, Timed, write_own
from support import ROOT

CLUSTER = """\
name = "two kinds"

[[group]]
name = "old"
chip = "a100-sxm-80gb"
nodes = 1
chips_per_node = 2

[[group]]
name = "new"
chip = "ascend-910b3"
nodes = 1
chips_per_node = 2

[[link]]
from = "old"
to = "new"
bandwidth = { value = "100 Gb/s", source = "switch configuration", grade = "measured-here" }
latency = "20 us"
"""
KINDS = ("embedding", "block", "head")
JOB = ("--seq", "512", "--global-batch", "16")


def plan(model: str, *line: str, lang: str = "en", columns: int = 200) -> Result:
    return CliRunner(env={"SAPPER_LANG": lang, "COLUMNS": str(columns)}).invoke(main.cli, ["mix", "plan", model, *line])


@dataclass(frozen=True)
class Made:
    """One plan with all that it can be written to."""

    folder: Path
    result: Result

    @property
    def cluster(self) -> str:
        return str(self.folder / "two.toml")

    @property
    def best(self) -> MixPlan:
        return read_plan(self.folder / "plan.json", supply={"old": 2, "new": 2})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("plan")
    (folder / "two.toml").write_text(CLUSTER, "utf-8")
    wanted = {"--out": "plan.json", "--trace": "trace.json", "--svg": "step.svg", "--page": "plan.html"}
    files = [text for flag, name in wanted.items() for text in (flag, str(folder / name))]
    result = plan("gpt2", "--on", str(folder / "two.toml"), *JOB, "--explain", *files)
    assert result.exit_code == 0, result.output
    return Made(folder, result)


def test_the_answer_says_how_to_cut_how_good_it_is_and_what_mixing_gains(made: Made) -> None:
    text, best = made.result.stdout, made.best
    assert best.expected is not None and best.expected.bound_s is not None
    assert text.splitlines()[0] == "gpt2 on two kinds: train, bf16, sequence 512, global batch 16"
    stages = re.findall(r"^(\d+\.\d+) +(old|new) ", text, re.MULTILINE)
    assert [group for _, group in stages] == [stage.group for one in best.pipelines for stage in one.stages]
    gap = best.expected.step_time.mid / best.expected.bound_s - 1
    assert f"within {100 * gap:.1f}% of the best possible" in text
    for word in ("80% interval", "tokens/s", "alone", "searched", "link      old - new: 12.5 GB/s per direction (measured-here"):
        assert word in text
    assert re.search(r"^source +old: \S", text, re.MULTILINE)


def test_the_plan_is_never_slower_than_a_group_alone(made: Made) -> None:
    expected = made.best.expected
    assert expected is not None
    assert set(expected.alone_s) == {"old", "new"}
    assert all(one is None or expected.step_time.mid <= one for one in expected.alone_s.values())
    assert expected.step_time.low < expected.step_time.mid < expected.step_time.high


def test_the_files_hold_the_plan_that_was_shown(made: Made) -> None:
    best = made.best
    seats = sum(one.chips for one in best.pipelines)
    events = json.loads((made.folder / "trace.json").read_text("utf-8"))["traceEvents"]
    assert len({event["tid"] for event in events if event["name"] == "thread_name"}) == seats
    passes = [event for event in events if event.get("cat") == "forward"]
    assert len(passes) == sum(one.copies * one.micro_batches * sum(stage.tp for stage in one.stages) for one in best.pipelines)
    assert ET.parse(made.folder / "step.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"
    english, chinese = ((made.folder / name).read_text("utf-8") for name in ("plan.html", "plan.zh.html"))
    assert best.digest[:16] in english and best.digest[:16] in chinese
    assert 'href="plan.zh.html"' in english and 'href="plan.html"' in chinese
    assert "<svg" in english and "http-equiv" not in english and "src=" not in english
    assert "该不该混训" in chinese and "Whether to mix" not in chinese
    assert made.result.stderr.count("wrote ") == 5


def test_other_plans_are_priced_by_the_same_costs(made: Made, tmp_path: Path) -> None:
    best, replace = made.best, msgspec.structs.replace
    whole = replace(best.pipelines[0].stages[0], group="new", first=0, last=14, replicas=1, tp=1)
    slow = replace(best.pipelines[0], stages=(whole,), copies=1, micro_batch=1, micro_batches=16)
    write_plan(tmp_path / "slow.json", replace(best, pipelines=(slow,)))
    others = ("--compare", str(tmp_path / "slow.json"), "--compare", str(made.folder / "plan.json"))
    result = plan("gpt2", "--on", made.cluster, *JOB, *others, "--format", "json")
    found = json.loads(result.stdout)

    one, same = found["compared"]
    assert one["slower"] > 0.1 and one["lacking_bytes"] is None
    assert same["slower"] == pytest.approx(0, abs=1e-9)
    assert sum(row["chips"] for row in found["stages"]) == sum(made.best.chips.values())


def test_listings_are_data(made: Made) -> None:
    result = plan("gpt2", "--on", made.cluster, *JOB, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))

    assert [row["group"] for row in rows] == [stage.group for one in made.best.pipelines for stage in one.stages]
    assert all(0 < float(row["busy"]) <= 1 and float(row["peak_bytes"]) <= float(row["capacity_bytes"]) for row in rows)


def test_stages_have_the_tensor_parallel_degrees_that_are_asked_for(made: Made) -> None:
    for degrees in ((2,), (1, 2)):
        line = [part for degree in degrees for part in ("--tp", str(degree))]
        result = plan("gpt2", "--on", made.cluster, *JOB, *line, "--format", "json")
        assert result.exit_code == 0, result.output
        assert {row["tp"] for row in json.loads(result.stdout)["stages"]} <= set(degrees)

    refused = plan("gpt2", "--on", made.cluster, *JOB, "--tp", "5")
    assert refused.exit_code == 2
    assert "group `old` has no tensor parallel degree of 5: its costs are known for 1, 2 [SP-MIX-019]" in refused.output


def test_chinese_has_no_english_sentence_and_fits_80_columns(made: Made) -> None:
    from sapper.cli._help import width_of

    result = plan("gpt2", "--on", made.cluster, *JOB, lang="zh", columns=80)
    assert "与最优相差不超过" in result.stdout
    assert not re.search(r"\b(within|faster|alone|searched|memory|pass)\b", result.stdout)
    assert max(width_of(line) for line in result.stdout.splitlines()) <= 80


def test_what_fits_nowhere_ends_with_1_and_says_how_much_is_missing(made: Made) -> None:
    result = plan("llama-3.1-405b", "--on", made.cluster, "--seq", "4096", "--global-batch", "8", "--out", str(made.folder / "none.json"))

    assert result.exit_code == 1
    assert "does not fit on two kinds" in result.stdout
    assert len(re.findall(r"`(?:old|new)`.* GiB", result.stdout)) == 2
    assert not (made.folder / "none.json").exists()


def test_a_sequence_is_no_longer_than_the_model_has_positions_for_unless_asked_and_then_it_is_said(made: Made) -> None:
    unasked = plan("bert-base-uncased", "--on", made.cluster, "--global-batch", "8")
    asked = plan("bert-base-uncased", "--on", made.cluster, "--global-batch", "8", "--seq", "1024")

    assert "sequence 512" in unasked.stdout and "sequence 1024" in asked.stdout
    assert "positions for 512 tokens" in asked.stderr and "positions" not in unasked.stderr


def refused(result: Result) -> str:
    assert result.exit_code == 2, result.output
    return result.stderr


def test_bad_input_is_refused_with_the_next_step(made: Made, tmp_path: Path) -> None:
    apart = tmp_path / "apart.toml"
    apart.write_text(CLUSTER[: CLUSTER.index("[[link]]")], "utf-8")
    slow = tmp_path / "unknown.toml"
    slow.write_text(re.sub("bandwidth = .*\n", "", CLUSTER), "utf-8")
    larger = tmp_path / "larger.toml"
    larger.write_text(CLUSTER.replace("nodes = 1", "nodes = 2"), "utf-8")
    cut = tmp_path / "cut.json"
    cut.write_bytes((made.folder / "plan.json").read_bytes()[:200])
    plan_file, on = str(made.folder / "plan.json"), ("--on", made.cluster)

    assert "no link joins new with old" in refused(plan("gpt2", "--on", str(apart), *JOB))
    assert "--assume link=" in refused(plan("gpt2", "--on", str(slow), *JOB))
    assert "SP-MIX-009" in refused(plan("gpt2", "--on", str(larger), *JOB, "--compare", plan_file))
    assert "SP-MIX-010" in refused(plan("opt-125m", *on, *JOB, "--compare", plan_file))
    assert "SP-MIX-011" in refused(plan("gpt2", *on, "--seq", "256", "--global-batch", "16", "--compare", plan_file))
    assert "SP-FILE-007" in refused(plan("gpt2", *on, *JOB, "--compare", str(cut)))
    assert "SP-FILE-0" in refused(plan("gpt2", *on, *JOB, "--compare", str(ROOT / "src/sapper/workloads/bundled/gpt2.json")))
    assert "SP-MIX-013" in refused(plan("t5-base", *on, *JOB))


def a_profile(path: Path, *, device: str, pass_s: float, **changes: object) -> str:
    """Of gpt2 with twelve blocks that take ``pass_s`` forward and twice that backward."""
    cost = LayerCost(forward_s=pass_s, backward_s=2 * pass_s, saved_bytes=1e6)
    profile = Profile(
        model="gpt2", device=device, seq_len=512, layers=("embedding", *["block"] * 12, "head"),
        boundary_bytes={"embedding": 1e6, "block": 1e6, "head": 0.0},
        timed=tuple(Timed(micro_batch=size, layers=dict.fromkeys(KINDS, cost)) for size in (1, 2)),
        held=(HeldBytes(params={"embedding": 40_000_000, "block": 7_000_000, "head": 0}, update_s=dict.fromkeys(KINDS, 1e-3)),),
        source="a stopwatch",
    )  # fmt: skip
    write_own(path, msgspec.structs.replace(profile, **changes))
    return str(path)


def test_measured_times_take_the_place_of_predicted_ones(made: Made, tmp_path: Path) -> None:
    fast = a_profile(tmp_path / "fast.json", device="a", pass_s=0.001)
    slow = a_profile(tmp_path / "slow.json", device="b", pass_s=0.004)
    line = ("gpt2", "--on", made.cluster, "--global-batch", "40", "--profile", f"old={fast}")
    found = json.loads(plan(*line, "--profile", f"new={slow}:b", "--format", "json").stdout)

    assert set(found["sources"].values()) == {"a stopwatch"}
    work = {"old": 0, "new": 0}
    for row in found["stages"]:
        work[row["group"]] += row["copies"] * row["replicas"] * row["micro_batches"] * row["micro_batch"] * (row["last"] - row["first"] + 1)
    assert found["planned"]["best"]["seq_len"] == 512
    assert work["old"] > 2 * work["new"]

    short = a_profile(tmp_path / "short.json", device="b", pass_s=0.004, seq_len=256)
    assert "SP-MIX-016" in refused(plan(*line))
    assert "SP-MIX-015" in refused(plan(*line, "--profile", f"new={slow}:c"))
    assert "SP-MIX-014" in refused(plan(*line, "--profile", "new"))
    assert "`seq_len` = 256" in refused(plan(*line, "--profile", f"new={short}"))
    assert "`layers` = 12" in refused(plan("gpt2-medium", *line[1:], "--profile", f"new={slow}"))
