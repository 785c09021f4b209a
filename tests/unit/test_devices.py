"""Devices of PyTorch by name, and plug-ins that break; with a PyTorch of a few lines, so that none need be installed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sapper.backends import find, names, trial
from sapper.backends.base import Missing
from sapper.backends.devices import device_types
from sapper.errors import SapperError

TORCH = """
__version__ = "9.9.0"
class Result:
    device = type("D", (), {"type": "mychip"})
    def mul(self, factor): return self
    def sum(self): return self
    def cpu(self): return 12.0
def device(name):
    if "mychip" not in loaded: raise RuntimeError("no such device: " + name)
    return name
def tensor(values, device): return Result()
loaded = []
mychip = type("M", (), {"get_device_name": staticmethod(lambda index: "My Chip")})
"""


@pytest.fixture(autouse=True)
def torch_of_few_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake" / "torch").mkdir(parents=True)
    (tmp_path / "fake" / "torch" / "__init__.py").write_text(TORCH, "utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "fake"), str(tmp_path)]))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("sapper.backends.stacks.torch.without_torch", lambda: None)
    trial.try_device.cache_clear()


def missing(tmp_path: Path, plugin: str) -> Missing | None:
    module = f"torch_mychip_{abs(hash(plugin))}"
    (tmp_path / f"{module}.py").write_text(plugin, "utf-8")
    return find(f"torch:mychip@{module}").missing()


def test_a_device_that_computes_is_not_missing(tmp_path: Path) -> None:
    assert missing(tmp_path, "import torch\n__version__ = '1.2'\ntorch.loaded.append('mychip')\nprint('hello')\n") is None
    module = next(tmp_path.glob("torch_mychip_*.py")).stem
    assert find(f"torch:mychip@{module}").versions() == {"torch": "9.9.0", module: "1.2", "device": "My Chip"}


@pytest.mark.parametrize(
    ("plugin", "said"),
    [
        ("raise ImportError('libhccl.so: cannot open shared object file')", "ImportError: libhccl.so"),
        ("import os; os.abort()", "ended by SIGABRT"),
        ("import ctypes; ctypes.string_at(0)", "ended by SIGSEGV"),
        ("import os; os._exit(3)", "ended with 3"),
        ("import sys; sys.exit('no driver')", "no driver"),
    ],
)
def test_a_plug_in_that_breaks_is_reported_and_breaks_nothing(plugin: str, said: str, tmp_path: Path) -> None:
    found = missing(tmp_path, plugin)
    assert found is not None and said in found.problem
    assert "torch_mychip" in found.problem and "TORCH_DEVICE_BACKEND_AUTOLOAD=0" in found.problem


def test_a_plug_in_without_a_device_and_one_that_is_not_there(tmp_path: Path) -> None:
    found = missing(tmp_path, "")
    assert found is not None and "no such device" in found.problem
    absent = find("torch:mychip@torch_nowhere").missing()
    assert absent is not None and "torch_nowhere" in absent.problem
    ascend = find("npu:1").missing()
    assert ascend is not None and ascend.remedy == "pip install torch-npu" and "torch_npu" in ascend.problem


def test_a_plug_in_that_does_not_answer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "LIMIT_S", 0.6)
    found = missing(tmp_path, "import time; time.sleep(60)")
    assert found is not None and "no answer within 0.6 s" in found.problem


def test_every_device_type_is_a_backend_by_its_own_name() -> None:
    assert set(device_types()) <= set(names())
    assert {"cuda", "npu", "musa", "mlu", "gcu", "xpu", "hpu", "mps", "cpu", "xla"} <= set(names())
    backend = find("npu:1")
    assert (backend.name, backend.kind) == ("npu:1", "device")
    assert find("torch:cuda").name == "torch:cuda"


@pytest.mark.parametrize("detail", ["NPU", "npu:one", "npu@", "torch_npu/x"])
def test_a_detail_that_means_nothing_is_refused(detail: str) -> None:
    with pytest.raises(SapperError) as raised:
        find(f"torch:{detail}")
    assert raised.value.code == "SP-DEVICE-001"
