from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from sapper.cli.main import cli


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        cli.main(list(words))
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_show_prints_links_with_grade_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "clusters", "show", "64x ascend-910b3", "--lang", "en")

    assert code == 0
    assert "64x huawei-ascend-910b3: 64 chips" in out
    line = next(line for line in out.splitlines() if "196 GB/s" in line)
    assert line.split("196 GB/s")[1].split()[0] == "C"
    assert "full mesh" in out and "8 x 8" in out
    assert "E assumed" in out and err == ""


def test_show_takes_words_without_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "clusters", "show", "8x", "h100-sxm-80gb", "--lang", "en")[0] == 0


def test_show_names_what_is_unknown_and_how_to_fill_it(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = run(capsys, "clusters", "show", "64x mtt-s4000", "--lang", "en")

    assert "unknown" in out and "not in the catalogue" in out
    assert "--assume" in err and "network between nodes" in err


def test_show_speaks_chinese(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = run(capsys, "clusters", "show", "64x \u6469\u5c14\u7ebf\u7a0b S4000", "--lang", "zh")

    assert "\u672a\u77e5" in out and "\u76ee\u5f55\u4e2d\u6ca1\u6709" in out
    assert "\u7b49\u7ea7" in out and "\u672a\u77e5" in err


def test_show_json_has_every_value_with_its_evidence(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "clusters", "show", "64x mtt-s4000", "--assume", "topology=switch", "--format", "json")
    found = json.loads(out)
    values = {(value["level"], value["field"]): value for value in found["values"]}

    assert code == 0
    assert (found["chips"], found["groups"][0]["nodes"]) == (64, 8)
    assert values["scale-up", "bandwidth"]["value"] == 120e9 and values["scale-up", "bandwidth"]["unit"] == "bytes/s"
    assert values["scale-up", "topology"]["value"] == "switch"
    assert found["unknown"] == ["moore-mtt-s4000.scale-out.bandwidth"]


def test_show_csv_has_raw_values(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "clusters", "show", "8x h100-sxm-80gb + 8x ascend-910b3", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(out)))

    assert {row["group"] for row in rows} == {"nvidia-h100-sxm-80gb", "huawei-ascend-910b3"}
    trunk = next(row for row in rows if row["level"] == "link")
    assert (trunk["to"], trunk["value"]) == ("huawei-ascend-910b3", "")


def test_show_says_which_assumption_changed_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, err = run(capsys, "clusters", "show", "64x ascend-910b3", "--assume", "scale_out=400Gb/s", "--lang", "en")

    assert "--assume scale_out=400Gb/s" in err and "50 GB/s" not in out


@pytest.mark.parametrize(
    "words",
    [
        ("show", "64x nosuchchip"), ("show", "13x h100-sxm-80gb"), ("show", "8x 910b3", "--assume", "x"), ("show", ""),
        ("show", "none.toml"), ("check", "none.toml"),
    ],
)
def test_what_cannot_be_answered_leaves_with_two(capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    code, out, err = run(capsys, "clusters", *words)

    assert (code, out) == (2, "")
    assert "[SP-" in err and "Traceback" not in err


def test_check_explains_each_fault(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text("[[group]]\nchip = 'h100-sxm-80gb'\nnodes = 0\n[group.scale_out]\nbandwith = '1 GB/s'\n", "utf-8")
    code, out, err = run(capsys, "clusters", "check", str(path), "--lang", "en")

    assert code == 1
    assert f"{path}:3: `group[0].nodes` is `0`" in out and f"{path}:5: unknown field `group[0].scale_out.bandwith`" in out
    assert "`bandwidth`" in out and "2 fault(s)" in err
    assert [fault["line"] for fault in json.loads(run(capsys, "clusters", "check", str(path), "--format", "json")[1])] == [3, 5]


def test_check_of_a_good_file_leaves_with_zero(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "examples" / "clusters" / "mixed.toml"
    code, out, err = run(capsys, "clusters", "check", str(path), "--lang", "en")

    assert (code, out) == (0, "")
    assert "no fault" in err
