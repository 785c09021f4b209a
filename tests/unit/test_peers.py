"""The peers' figures: well-formed, recomputable from the kept answers, and the only source of what the pages quote."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from support import ROOT

PEERS = ROOT / "benchmarks" / "peers"
RESULTS = json.loads((PEERS / "results.json").read_text("utf-8"))
FIGURES = RESULTS["figures"]
ADAPTER = """
import sys
sys.path.insert(0, {folder!r})
from protocol import NotAnswered, need, serve
def answer(row):
    print("a peer that prints")
    need(row, "model.layers")
    if row["id"] == "big":
        raise ValueError("would not fit in 80 GB")
    return {{"step_time_s": 2.0 * row["model"]["layers"]}}
serve(answer, reasons={{"would not fit": "memory"}})
"""


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The scripts' modules, which find each other by being in one folder."""
    import importlib

    names = ("row_sets", "environments", "asking", "questions", "scoring", "table", "own_points", "sapper_side", "keeping", "run")
    monkeypatch.syspath_prepend(str(PEERS))
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        sys.modules.pop(name, None)


def named(figure: dict[str, object]) -> str:
    return "{peer} {row_set} {view} {variant} {quantity}".format(**figure)


@pytest.mark.parametrize("figure", FIGURES, ids=named)
def test_every_row_is_accounted_for(figure: dict) -> None:
    of_set = RESULTS["row_sets"][figure["row_set"]]
    assert figure["asked"] == of_set["rows"] - (of_set["flagged"] if figure["view"] == "unflagged" else 0)
    assert figure["answered"] + sum(figure["not_answered"].values()) == figure["asked"]
    assert sum(chip["asked"] for chip in figure["by_chip"].values()) == figure["asked"]
    assert figure["both_answered"] == figure["sapper_on_both"]["answered"] == figure["peer_on_both"]["answered"]


@pytest.mark.parametrize("figure", FIGURES, ids=named)
def test_every_figure_says_whose_it_is_and_under_which_conditions(figure: dict) -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", figure["date"])
    assert all(figure[name] for name in ("peer", "version", "licence", "url", "conditions", "cpu_s_per_answer"))
    assert figure["answered"] and 0 < figure["median_abs"] <= figure["max_abs"]


def test_the_machine_and_the_rows_are_described() -> None:
    assert {"cores", "python", "load_1min"} <= RESULTS["machine"].keys()
    assert {figure["row_set"] for figure in RESULTS["sapper"]} == RESULTS["row_sets"].keys()


@pytest.mark.slow
def test_the_rows_are_those_that_ship(modules: dict[str, ModuleType]) -> None:
    run, sets = modules["run"], modules["row_sets"].ROW_SETS
    assert {name: run.described(name, sets[name].rows())["ids_sha256"] for name in sets} == {
        name: one["ids_sha256"] for name, one in RESULTS["row_sets"].items()
    }


@pytest.mark.slow
def test_the_figures_follow_from_the_kept_answers(modules: dict[str, ModuleType]) -> None:
    keeping, run, sets = modules["keeping"], modules["run"], modules["row_sets"].ROW_SETS
    again = run.results(keeping.kept_answers().values(), {name: sets[name].rows() for name in sets}, keeping.kept_said())
    again = json.loads(json.dumps(again))

    assert again["figures"] == FIGURES
    assert again["sapper"] == RESULTS["sapper"]


def test_the_pages_quote_the_results(modules: dict[str, ModuleType]) -> None:
    """``python benchmarks/peers/table.py`` puts them there."""
    table = modules["table"]
    texts = {page: (ROOT / "docs" / page).read_text("utf-8") for page in table.PAGES}
    assert [page for page, lang in table.PAGES.items() if table.table(RESULTS, lang=lang) not in texts[page]] == []
    (own,) = (one for one in RESULTS["own_points"] if one["what"] == "step time")
    for page in ("peers.md", "peers.zh.md"):
        assert f"{100 * own['mean_abs']:.2f}%" in texts[page] and f"{100 * own['max_abs']:.2f}%" in texts[page]


def test_no_peer_brings_pytorch_or_a_path_of_the_machine() -> None:
    for pins in sorted((PEERS / "requirements").glob("*.txt")):
        packages = [line.split("==")[0].lower() for line in pins.read_text("utf-8").splitlines() if not line.startswith("#")]
        assert not [name for name in packages if name.startswith(("torch", "nvidia-cu", "triton"))]
    assert "/tmp" not in (PEERS / "results.json").read_text("utf-8")


def test_an_adapter_answers_refuses_and_sorts_the_peers_errors(tmp_path: Path) -> None:
    script = tmp_path / "adapter.py"
    script.write_text(ADAPTER.format(folder=str(PEERS)), "utf-8")
    rows = [{"id": "fine", "model": {"layers": 3}}, {"id": "silent", "model": {}}, {"id": "big", "model": {"layers": 9}}]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    done = subprocess.run([sys.executable, script], input=text, capture_output=True, text=True, check=True)
    start, fine, silent, big = map(json.loads, done.stdout.splitlines())
    assert start["start_cpu_s"] > 0
    assert (fine["id"], fine["step_time_s"]) == ("fine", 6.0) and fine["cpu_s"] >= 0
    assert (silent["reason"], silent["detail"]) == ("the row does not state what the peer needs", "model.layers")
    assert (big["reason"], big["detail"]) == ("memory", "ValueError: would not fit in 80 GB")


def test_the_readme_quotes_the_latest_speed() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text("utf-8")
    latest = max((ROOT / "benchmarks" / "results").glob("predict_speed_*.json"))
    speed = json.loads(latest.read_text("utf-8"))
    assert f"`results/{latest.name}`" in text and speed["date"] in text
    assert f"{speed['sapper']['training']['large']['plans']:,} legal plans" in text
    missing = [name for name, ratio in speed["ratios"].items() if ratio >= 1 and f"| {ratio:.0f} |" not in text]
    assert missing == []
