"""What all tests share: English output, no settings of the tester's own, and the rule for tests that need PyTorch."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import settings

from support import ROOT, Run, environment


def _has(package: str) -> bool:
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


HAS_TORCH = all(map(_has, ("torch", "transformers")))
if not _has("torch"):
    sys.modules["torch"] = None  # type: ignore[assignment]  # or the folder of that name beside this file would be a package
# No deadline: machines differ. On CI the same examples every time, so that a red run is the change's own fault.
settings.register_profile("sapper", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("sapper")

# What a shell's background and nohup ignore, all that the tests start would ignore too; what is handled here is not handed on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
for number in (signal.SIGHUP, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda number, frame: None)

NO_TORCH = "tests/torch NOT RUN: PyTorch and Transformers are not installed (scripts/install_torch.py says why)"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    return True if not HAS_TORCH and collection_path == ROOT / "tests" / "torch" else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not HAS_TORCH and item.get_closest_marker("torch"):
            item.add_marker(pytest.mark.skip(reason=NO_TORCH))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not HAS_TORCH:
        terminalreporter.write_line(NO_TORCH, yellow=True, bold=True)


@pytest.fixture(autouse=True)
def _neutral_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """English, a fixed width, and none of the tester's own settings and data."""
    for name in [name for name in os.environ if name.startswith("SAPPER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SAPPER_LANG", "en")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path_factory.getbasetemp() / "no-data"))
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture
def run_sapper(tmp_path: Path) -> Run:
    """Runs ``sapper`` as a user would, in a process of its own and an empty folder."""

    def run(*arguments: str, cwd: Path | None = None, code: Sequence[str] = (), **env: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, *(code or ("-m", "sapper")), *arguments]
        done = subprocess.run(line, cwd=cwd or tmp_path, env=environment(**env), capture_output=True, timeout=120, check=False)
        out, err = (raw.decode("utf-8", "replace") for raw in (done.stdout, done.stderr))
        return subprocess.CompletedProcess(line, done.returncode, out, err)

    return run
