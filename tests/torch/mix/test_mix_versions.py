"""Two environments with unlike builds of PyTorch train one job together, and see the losses of one device."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import Any

import pytest

import torch
from support import ROOT

OTHER = os.environ.get("SAPPER_OTHER_PYTHON")
"""The interpreter of another environment with another PyTorch."""
SCRIPT = ROOT / "examples" / "mix" / "islands.py"
LIMIT_S = 240.0


def version_of(python: str) -> str:
    run = subprocess.run([python, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True, timeout=LIMIT_S)
    return run.stdout.strip()


def started(python: str, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [python, str(SCRIPT), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=LIMIT_S)
    lines = [line for line in out.splitlines() if line.startswith("{")]
    assert process.returncode == 0 and lines, err
    return dict(json.loads(lines[-1]))


@pytest.mark.slow
@pytest.mark.skipif(OTHER is None, reason="SAPPER_OTHER_PYTHON names no second environment")
def test_two_builds_of_pytorch_train_one_job() -> None:
    assert OTHER is not None
    other = version_of(OTHER)
    if other in {"", torch.__version__}:
        pytest.skip(f"the other environment has PyTorch {other or 'missing'}")
    with socket.create_server(("127.0.0.1", 0)) as server:
        meet = f"127.0.0.1:{server.getsockname()[1]}"
    processes = [started(sys.executable, "--reference"), started(sys.executable, "new", "--meet", meet)]
    try:
        processes += [started(OTHER, "old", "--place", place, "--meet", meet) for place in ("0", "1")]
        truth, *found = [answer(one) for one in processes]
    finally:
        for one in processes:
            one.kill()
            one.communicate()
    assert [one["torch"] for one in found] == [torch.__version__, other, other]
    for one in found:
        assert max(abs(a - b) for a, b in zip(one["losses"], truth["losses"], strict=True)) <= 1e-12
