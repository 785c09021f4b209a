from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

import sapper
from sapper import messages
from sapper.cli import _help, explain, main, output
from sapper.cli._proof import running
from sapper.errors import BadValue, InvariantError
from support import Run, environment


@pytest.mark.parametrize(("kept", "said"), [("proof", "kept in proof; the same command goes on"), (None, "the same command starts anew")])
def test_a_proof_that_is_stopped_says_what_is_left_of_it(kept: str | None, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), running(kept=kept):
        raise KeyboardInterrupt

    assert said in capsys.readouterr().err


def invoke(*line: str, **env: str) -> Result:
    return CliRunner(env=env).invoke(main.cli, list(line))


def failing(error: BaseException) -> Any:
    def callback(**_: object) -> None:
        raise error

    return callback


def test_help_lists_every_verb_with_what_it_does() -> None:
    page = invoke("--help").stdout
    for name in main.verbs():
        assert f"  {name}  " in page
        assert messages.text(f"cli.help.{name}", "en") in " ".join(page.split())
    assert "--lang" in page and "--debug" in page and "--version" in page


def test_help_is_chinese_where_the_locale_is() -> None:
    page = invoke("--help", SAPPER_LANG="zh").stdout
    assert "用法：" in page and "命令：" in page and "选项：" in page
    assert "Options" not in page and "Show this message" not in page and "Print the" not in page


def test_every_help_page_is_whole_in_both_languages() -> None:
    for path, command in commands():
        for lang in messages.LANGUAGES:
            page = invoke(*path, "--help", "--lang", lang)
            assert page.exit_code == 0, path
            for parameter in command.params:
                if isinstance(parameter, click.Option):
                    assert parameter.opts[0] in page.stdout, (path, parameter.opts)
                    assert parameter.help, f"{path} {parameter.opts} has no help"


def test_every_help_text_is_in_the_catalogue() -> None:
    """So that it is in both languages."""
    faults = []
    for path, command in commands():
        if not hasattr(command, "code_of_help"):
            faults.append(" ".join(path))
        faults += [
            f"{' '.join(path)} {parameter.opts[0]}"
            for parameter in command.params
            if isinstance(parameter, click.Option) and not hasattr(parameter, "code_of_help")
        ]
    assert faults == []


def commands() -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command with its path."""
    context = click.Context(main.cli, info_name="sapper")
    found: list[tuple[tuple[str, ...], click.Command]] = []
    stack = [((name,), main.cli.get_command(context, name)) for name in main.verbs()]
    while stack:
        path, command = stack.pop()
        assert command is not None
        found.append((path, command))
        stack += [((*path, name), sub) for name, sub in getattr(command, "commands", {}).items()]
    return sorted(found, key=lambda item: item[0])


def test_listings_have_the_three_formats() -> None:
    for path, command in commands():
        options = {flag: parameter for parameter in command.params for flag in parameter.opts}
        if path[-1] in ("list", "explain", "compare"):
            assert "--format" in options, path
        if "--format" in options and path != ("port", "scan"):  # findings, which have the formats of linters
            assert list(options["--format"].type.choices) == ["table", "json", "csv"], path  # type: ignore[attr-defined]


def test_the_version_is_that_of_the_package() -> None:
    assert invoke("--version").stdout == f"sapper {sapper.__version__}\n"


@pytest.mark.parametrize("line", [["--lang", "zh", "explain"], ["explain", "--lang=zh"], ["explain", "SP-CLI-005", "--lang", "zh"]])
def test_lang_may_stand_anywhere(line: list[str]) -> None:
    result = invoke(*line)
    assert result.exit_code == 0
    assert "没有代码为" in result.stdout


def test_the_language_of_one_line_does_not_leak_into_the_next() -> None:
    assert "含义" in invoke("explain", "--lang", "zh").stdout
    assert "Meaning" in invoke("explain").stdout
    assert "Print the traceback" in invoke("explain", "--help").stdout


@pytest.mark.parametrize(
    ("line", "english", "chinese"),
    [
        (["explian"], "did you mean `explain`", "是否应为 `explain`"),
        (["nonsense"], "No such command 'nonsense'", "没有命令 'nonsense'"),
        (["explain", "--foramt", "json"], "did you mean `--format`", "是否应为 `--format`"),
        (["explain", "--format", "yaml"], "`--format`: 'yaml' is not one of", "'yaml' 不在可选值"),
        (["explain", "--format"], "requires an argument", "需要一个值"),
        (["explain", "a", "b"], "unexpected extra argument (b)", "多余的参数：b"),
        (["explain", "--debug=1"], "does not take a value", "不接受值"),
        (["--lang", "fr", "explain"], "'fr' is not one of", "'fr' 不在可选值"),
        (["explain", "SP-CLI-999"], "no message has the code `SP-CLI-999`", "没有代码为 `SP-CLI-999` 的消息"),
    ],
)
def test_a_wrong_line_is_answered_with_what_to_do_and_two(line: list[str], english: str, chinese: str) -> None:
    for lang, said in (("en", english), ("zh", chinese)):
        result = invoke(*line, SAPPER_LANG=lang)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert said in result.stderr
        assert "\n  -> " in result.stderr


def test_no_verb_shows_the_help_and_is_two() -> None:
    result = invoke()
    assert result.exit_code == 2 and result.stdout == "" and "Commands:" in result.stderr


def test_a_fault_of_ours_is_one_line_that_names_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain.command, "callback", failing(ZeroDivisionError("float division by zero")))
    plain, debug = invoke("explain"), invoke("explain", "--debug")
    assert plain.exit_code == debug.exit_code == 2
    assert "ZeroDivisionError: float division by zero [SP-CLI-001]" in plain.stderr and "--debug" in plain.stderr
    assert "Traceback" not in plain.stderr and "Traceback" in debug.stderr
    assert "内部出错" in invoke("explain", "--lang", "zh").stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BadValue("SP-UNIT-004", where="--tokens", text="0", dimension="count", example="1T"), "--tokens: `0`"),
        (InvariantError("SP-CLI-001", kind="mfu", text="1.2"), "[SP-CLI-001]"),
        (OSError(28, "No space left on device", "out/x"), "out/x: the system refused: No space left on device"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError"),
        (MemoryError(), "MemoryError"),
        (KeyError("gone"), "KeyError: 'gone'"),
    ],
)
def test_no_error_ends_in_a_traceback(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain.command, "callback", failing(error))
    result = invoke("explain")
    assert result.exit_code == 2 and said in result.stderr and "Traceback" not in result.stderr


def test_control_characters_of_a_name_do_not_reach_the_terminal() -> None:
    result = invoke("explain", "\x1b[2Jgone")
    assert result.exit_code == 2 and "\x1b" not in result.stderr and "\\x1b[2Jgone" in result.stderr


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (1, 1), (True, 0)])
def test_a_verb_returns_one_for_findings(returned: object, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain.command, "callback", lambda **_: returned)
    assert invoke("explain").exit_code == code


SLOW_VERB = """
import time
from sapper.cli import explain, main
explain.command.callback = lambda **_: (print("ready", flush=True), time.sleep(60))
main.main()
"""


def test_ctrl_c_is_one_line_and_130(tmp_path: Path) -> None:
    line = [sys.executable, "-c", SLOW_VERB, "explain"]
    # A shell's background jobs ignore SIGINT and hand that down, and so may whatever runs the tests.
    child = subprocess.Popen(
        line, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdout is not None and child.stdout.readline() == "ready\n"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)
    assert (child.returncode, err.strip()) == (130, "interrupted")


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "sapper", "explain"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    err = child.stderr.read()
    child.stderr.close()
    assert (child.wait(timeout=20), err) == (141, b"")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk"])
def test_no_terminal_is_too_poor_to_print_on(encoding: str, run_sapper: Run) -> None:
    table = run_sapper("explain", "--lang", "zh", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert table.returncode == 0 and table.stderr == ""
    data = run_sapper("explain", "SP-CLI-005", "--lang", "zh", "--format", "json", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert json.loads(data.stdout)["zh"] == messages.text("SP-CLI-005", "zh", code="{code}")


def test_posix_locale_prints_english(run_sapper: Run) -> None:
    result = run_sapper("--help", SAPPER_LANG="", LC_ALL="C", LANG="zh_CN.UTF-8")
    assert result.returncode == 0 and result.stdout.startswith("Usage:")


ROWS = [
    {"name": "智铠100", "peak_flops_per_s": 2.0e14, "fits": True, "tags": ["a", "b,c"], "extra": {"x": 1}},
    {"name": "H\x1b[31m20", "peak_flops_per_s": None, "fits": None, "tags": [], "extra": None},
]
COLUMNS = [
    output.Column("name", "cli.explain.code"),
    output.Column("peak_flops_per_s", "cli.explain.text", "right", lambda value: f"{value / 1e12:.0f} T"),
    output.Column("fits", "cli.explain.text"),
    output.Column("tags", "cli.explain.text"),
]


def test_a_table_says_unknown_and_keeps_wide_characters_in_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit(ROWS, COLUMNS, fmt="table", title="Chips")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Chips"
    row = next(line for line in lines if "智铠100" in line)
    heading = next(line for line in lines if "Code" in line)
    assert _help.width_of(row[: row.index("200 T")]) + 5 == heading.index("Meaning") + 7
    assert "unknown" in lines[-1] and "yes" in row
    assert "H\\x1b[31m20" in lines[-1]
    assert "\x1b" not in "".join(lines)


def test_json_and_csv_have_raw_values(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit(ROWS, COLUMNS, fmt="json")
    assert json.loads(capsys.readouterr().out) == ROWS
    output.emit(ROWS, COLUMNS, fmt="csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows[0] == {"name": "智铠100", "peak_flops_per_s": "200000000000000.0", "fits": "true", "tags": '["a","b,c"]'}
    assert rows[1] == {"name": "H\x1b[31m20", "peak_flops_per_s": "", "fits": "", "tags": "[]"}


def test_an_empty_listing_is_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit([], COLUMNS, fmt="json")
    assert json.loads(capsys.readouterr().out) == []


def test_talk_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.talk("cli.interrupted")
    assert capsys.readouterr() == ("", "interrupted\n")


def test_explain_prints_meaning_and_next_step() -> None:
    result = invoke("explain", "[sp-cli-005]")
    assert result.stdout.splitlines()[0] == "SP-CLI-005: no message has the code `<code>`"
    assert "What to do: near codes: <near>" in result.stdout


def test_explain_lists_every_code() -> None:
    rows = json.loads(invoke("explain", "--format", "json").stdout)
    assert [row["code"] for row in rows] == [code for code in messages.codes() if code.startswith("SP-")]


def test_wrapping_knows_how_wide_characters_are() -> None:
    lines = _help.wrap("在拿到芯片之前，预测训练的时间、显存和费用。 Then English words follow, as words.", 20)
    assert max(_help.width_of(line) for line in lines) <= 20
    assert not any(line[0] in "，。、" for line in lines)
    assert "".join(lines).replace(" ", "") == "在拿到芯片之前，预测训练的时间、显存和费用。ThenEnglishwordsfollow,aswords."


HEAVY = """
import sys
from sapper.cli.main import cli
cli.main(["--help"], standalone_mode=False)
print(sorted(sys.modules), file=sys.stderr)
"""


def test_help_imports_nothing_heavy(run_sapper: Run) -> None:
    result = run_sapper(code=("-c", HEAVY))
    loaded = set(json.loads(result.stderr.replace("'", '"')))
    assert loaded & {"numpy", "rich", "msgspec", "jinja2", "matplotlib", "sqlalchemy", "torch", "transformers"} == set()
    assert {name for name in loaded if name.startswith("sapper.")} <= {
        "sapper.cli", "sapper.cli.main", "sapper.cli._help", "sapper.errors", "sapper.messages",
    }


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "matplotlib"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
from sapper.cli.main import main
main()
"""
BASE_LINES = [
    ["--help"],
    ["explain", "SP-CLI-001"],
    ["chips", "list"],
    ["models", "list"],
    ["clusters", "show", "8x nvidia-h20-96gb"],
    ["predict", "train", "qwen2.5-7b", "--on", "64x nvidia-a100-sxm-80gb", "--tokens", "1T"],
]


@pytest.mark.slow
@pytest.mark.parametrize("line", BASE_LINES, ids=" ".join)
def test_the_base_install_is_enough(line: list[str], run_sapper: Run) -> None:
    result = run_sapper(*line, code=("-c", BLOCKED))
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_python_dash_m_is_the_command(run_sapper: Run) -> None:
    assert run_sapper("--version").stdout == f"sapper {sapper.__version__}\n"
    assert os.path.basename(main.__file__) == "main.py"
