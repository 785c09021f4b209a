"""Doctor: stacks that compute, that compute something else, that die, hang, or are not there."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

import torch
from sapper.backends import Backend, Executed, find, precision
from sapper.backends.checkup import Checkup, Family, Precision
from sapper.backends.computation import Computation
from sapper.backends.doctor import checkups, tried_on
from sapper.cli.main import cli

STACK = """
import os, time
from sapper.backends import Backend, Executed, Missing

class Stack(Backend):
    kind = "device"
    name = {name!r}
    def missing(self):
        {missing}
    def versions(self):
        return {{"stack": "1.0"}}
    def prepare(self, computation):
        {prepare}
        return Run(computation)

class Run:
    def __init__(self, computation):
        self.computation = computation
    def __call__(self, tensors):
        return [{result} for one in self.computation(tensors)]
    def executed(self):
        return Executed(where="chip:0", ops=1)

def open(detail):
    return Stack()
"""
STACKS = {
    "good": {},
    "wrong-sign": {"result": "-one"},
    "dies": {"prepare": "os.abort()"},
    "dies-early": {"missing": "os._exit(7)"},
    "hangs": {"prepare": "time.sleep(600)"},
    "raises": {"prepare": "raise RuntimeError('no such kernel')"},
    "absent": {"missing": "return Missing(problem='no driver', remedy='install-driver')"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("stacks")
    for name, parts in STACKS.items():
        text = STACK.format(name=name, **{"missing": "return None", "prepare": "pass", "result": "one", **parts})
        (made / f"{name.replace('-', '_')}.py").write_text(textwrap.dedent(text), "utf-8")
    return made


@pytest.mark.slow
def test_each_stack_is_checked_whatever_the_others_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAPPER_BACKENDS", str(folder))
    asked = [name for name in STACKS if name != "raises"]
    found = {one.name: one for one in checkups(asked, with_precision=False, limit_s=15)}
    assert {name: one.state for name, one in found.items()} == {
        "good": "passed", "wrong-sign": "wrong", "dies": "crash", "dies-early": "crash", "hangs": "hang", "absent": "missing",
    }  # fmt: skip
    assert found["good"].where == "chip:0" and found["good"].tried is None and found["good"].findings() == 0
    assert "grad of input 0" in (found["wrong-sign"].problem or "")
    assert "SIGABRT" in (found["dies"].problem or "")
    assert "exit 7" in (found["dies-early"].problem or "")
    assert (found["absent"].problem, found["absent"].remedy) == ("no driver", "install-driver")


@pytest.mark.slow
def test_the_verb_prints_what_mends_a_stack_and_ends_with_what_it_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAPPER_BACKENDS", str(folder))
    with pytest.raises(SystemExit) as left:
        cli.main(["doctor", "absent", "--json"])
    assert left.value.code == 2
    assert json.loads(capsys.readouterr().out)[0]["remedy"] == "install-driver"
    with pytest.raises(SystemExit) as left:
        cli.main(["doctor", "raises", "--quick"])
    assert left.value.code == 1
    assert "no such kernel" in capsys.readouterr().out


def test_a_stack_that_nobody_knows_is_refused_before_anything_runs(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["doctor", "inductr"])
    assert left.value.code == 2
    assert "inductor" in capsys.readouterr().err


class Emulated(Backend):
    """A chip whose inputs are rounded, whose sums are narrow, and so on, by a function of each op."""

    name = "emulated"
    kind = "device"

    def __init__(self, mode: torch.utils._python_dispatch.TorchDispatchMode | None = None) -> None:
        self.mode = mode

    def missing(self) -> None:
        return None

    def versions(self) -> dict[str, str]:
        return {}

    def prepare(self, computation: Computation) -> Emulated:
        self.computation = computation
        return self

    def __call__(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        if self.mode is None:
            return self.computation(tensors)
        with self.mode:
            return self.computation(tensors)

    def executed(self) -> Executed | None:
        return None


class Altered(torch.utils._python_dispatch.TorchDispatchMode):
    """Some ops by another function."""

    def __init__(self, **others: object) -> None:
        super().__init__()
        self.others = others

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return self.others.get(func.overloadpacket.__name__, func)(*args, **(kwargs or {}))  # type: ignore[operator]


def rounded(x: torch.Tensor, bits: int) -> torch.Tensor:
    """fp32 to so many significant bits; other dtypes as they are."""
    if x.dtype != torch.float32:
        return x
    mantissa, exponent = torch.frexp(x.double())
    return torch.ldexp(torch.round(mantissa * 2**bits) / 2**bits, exponent).to(x.dtype)


def families(found: Precision, family: str) -> dict[str, Family]:
    return {one.dtype: one for one in found.families if one.family == family}


def test_pytorch_on_a_cpu_is_as_precise_as_its_dtypes() -> None:
    found = precision.measure(Emulated())
    assert found.downgrades() == [] and found.narrow() == [] and found.hides_nan == ()
    assert {dtype: one.bits for dtype, one in families(found, "matmul").items()} == {"fp32": 24, "bf16": 8, "fp16": 11}
    assert {one.accumulator_bits for one in families(found, "matmul").values()} == {24}
    assert found.rounding == {"bf16": "nearest-even", "fp16": "nearest-even"}
    assert found.overflow == {"fp16": "infinity"}
    assert set(found.subnormals.values()) == {"kept"}


@pytest.mark.parametrize(("bits", "name"), [(8, "bf16"), (11, "tf32")])
def test_fp32_matmuls_that_run_in_less_are_named(bits: int, name: str) -> None:
    found = precision.measure(Emulated(Altered(mm=lambda x, y: rounded(x, bits) @ rounded(y, bits))))
    assert [(one.family, one.dtype, one.bits, runs_as) for one, runs_as in found.downgrades()] == [("matmul", "fp32", bits, name)]


def test_one_rounded_side_of_a_matmul_is_seen() -> None:
    found = precision.measure(Emulated(Altered(mm=lambda x, y: x @ rounded(y, 8))))
    assert [runs_as for _, runs_as in found.downgrades()] == ["bf16"]


def test_a_sum_in_fp16_is_narrow() -> None:
    def narrow(x: torch.Tensor, dims: list[int], keepdim: bool = False, **others: object) -> torch.Tensor:
        total = torch.zeros_like(x[..., 0])
        for one in x.unbind(-1):
            total = total + one
        return total

    found = precision.measure(Emulated(Altered(sum=narrow)))
    assert {(one.family, one.dtype, one.accumulator_bits) for one in found.narrow()} == {("sum", "bf16", 8), ("sum", "fp16", 11)}


def test_hidden_nan_flushed_subnormals_and_truncated_casts_are_told() -> None:
    def flush(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        product = x * y
        return torch.where(product.abs() < torch.finfo(x.dtype).smallest_normal, torch.zeros_like(product), product)

    def cast(x: torch.Tensor, **others: object) -> torch.Tensor:
        if others.get("dtype") == torch.bfloat16 and x.dtype == torch.float32:
            return (x.view(torch.int32) & ~0xFFFF).view(torch.float32).to(torch.bfloat16)
        return torch.ops.aten._to_copy(x, **others)

    found = precision.measure(Emulated(Altered(mul=flush, _to_copy=cast, relu=lambda x: x.nan_to_num(0).clamp_min(0))))
    assert found.hides_nan == ("fp32 relu", "bf16 relu", "fp16 relu")
    assert {name for name, state in found.subnormals.items() if state == "flushed"} == {f"{name} multiply" for name in precision.DTYPES}
    assert found.rounding["bf16"] == "toward-zero"


def test_a_dtype_that_a_stack_lacks_is_not_measured_and_says_why() -> None:
    def lacks(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if x.dtype == torch.bfloat16:
            raise RuntimeError("no bf16 here")
        return x * y

    found = precision.measure(Emulated(Altered(mul=lacks)))
    assert found.unmeasured == {"bf16 all": "no bf16 here"}
    assert families(found, "matmul").keys() == {"fp32", "fp16"}


def test_what_runs_on_no_real_device_of_ours_is_marked() -> None:
    assert tried_on("onnxruntime:noopt") == "x86-64"
    assert tried_on("onnxruntime:cuda") is None
    assert tried_on("npu") is None
    assert tried_on("torch:npu:1") is None
    assert tried_on("torch:cpu") == tried_on("torch") == "x86-64"
    assert tried_on("papertiger:honest-fp32") == "emulated"


def test_a_result_without_evidence_counts_as_a_finding() -> None:
    assert Checkup(name="silent", state="passed").findings() == 1
    assert Checkup(name="absent", state="missing").findings() == 0
    assert Checkup(name="falls-back", state="passed", where="chip:0", fallbacks=("aten::sort",)).findings() == 1


@pytest.mark.slow
def test_the_stack_under_inductor_is_as_precise_as_its_dtypes() -> None:
    """Of the capture alone: compiling the probes takes half a minute of C++."""
    found = precision.measure(find("inductor:eager"))
    assert found.downgrades() == [] and found.unmeasured == {}
