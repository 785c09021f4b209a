"""``sapper prove ops``: what each illness of a stack is called, and that nothing is lost when something dies."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from sapper.backends.base import Executed  # noqa: E402
from sapper.backends.computation import Computation  # noqa: E402
from sapper.backends.stacks.papertiger import Papertiger  # noqa: E402
from sapper.errors import BadFile  # noqa: E402
from sapper.prove.call import Call  # noqa: E402
from sapper.prove.ops import draws, opinfo, result  # noqa: E402
from sapper.prove.ops.cases import drafts_of  # noqa: E402
from sapper.prove.ops.edges import edges  # noqa: E402
from sapper.prove.ops.entry import Entry  # noqa: E402
from sapper.prove.ops.examine import Case, Ran, Runner, flushing_said, zeroed  # noqa: E402
from sapper.prove.ops.sample import Sample  # noqa: E402
from sapper.prove.ops.upstream import config_of  # noqa: E402
from sapper.prove.verdict import CaseVerdict, Score  # noqa: E402
from support import Run, environment  # noqa: E402

HERE = Path(__file__).parent
SICK = {
    "sin": "crash", "asin": "crash", "cos": "hang", "sinh": "crash", "cosh": "unsupported", "tanh": "wrong",
    "log1p": "stateful", "neg": "void", "floor": "fallback",
}  # fmt: skip
"""Op -> what its illness is called; see sick/sick.py."""
WELL = ("ceil", "mul", "sum", "softmax", "empty_like", "normal", "nn.functional.dropout", "index_select", "sort")


WAIT_S = 300.0


ROOM_BYTES = 2000
"""That a journal may still grow by: a few lines."""


def started(
    arguments: Sequence[str], tmp_path: Path, path: Path, *, least: int | None, room: int | None = None, **surroundings: str
) -> subprocess.Popen[bytes]:
    """The command, running, once its journal has some lines; ``least`` None: once it has begun.

    No file of it can grow beyond ``room`` bytes.
    """
    line = [sys.executable, "-m", "sapper", "prove", "ops", *arguments]
    surroundings["SAPPER_BACKENDS"] = str(HERE / "sick")
    with (tmp_path / "said").open("wb") as said:
        run = subprocess.Popen(line, cwd=tmp_path, env=environment(**surroundings), stdout=said, stderr=said)
    if room is not None:
        resource.prlimit(run.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    if least is None:
        return run
    end = time.monotonic() + WAIT_S
    while len(lines(path)) < least and run.poll() is None and time.monotonic() < end:
        time.sleep(0.02)
    return run


def lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text("utf-8") if path.exists() else ""
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


# ---- one case --------------------------------------------------------------------------------------------------------


def verdicts(op: str, dtype: str = "fp32", phase: str = "forward", *, detail: str | None = None) -> dict[str, CaseVerdict]:
    """The verdicts on all cases of an op, in this process."""
    sys.path.insert(0, str(HERE / "sick"))
    import sick

    entry = Entry(op=op, dtype=dtype, phase=phase)  # type: ignore[arg-type]
    found = {}
    for draft in drafts_of(entry, most=4, seed=0, with_edges=True, values_too=False, calls=Path()):
        case = draft.make()
        if isinstance(case, Case):
            runner = Runner(case, sick.open(detail))
            case = runner.judged(runner.run())
        if case is not None:
            found[draft.id.rpartition("/")[2]] = case
    return found


def outcomes(op: str, **options: Any) -> set[str]:
    return {one.outcome for one in verdicts(op, **options).values()}


@pytest.mark.slow
def test_what_one_run_shows():
    assert "nan" in outcomes("sqrt")
    assert "imprecise" in outcomes("sigmoid")
    assert outcomes("erf") == {"memory"}
    assert outcomes("normal") == {"ok"}
    assert "wrong" in outcomes("bernoulli")
    assert outcomes("cosh") == {"unsupported"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("op", "dtype", "phase"),
    [
        ("add", "fp32", "forward"), ("add", "bf16", "forward"), ("nn.functional.layer_norm", "fp32", "backward"),
        ("nn.functional.scaled_dot_product_attention", "fp16", "forward"), ("linalg.svd", "fp32", "backward"),
        ("topk", "int64", "forward"), ("multinomial", "fp32", "forward"), ("nn.functional.dropout", "fp32", "forward"),
        ("_foreach_add", "fp32", "forward"), ("bitwise_and", "int64", "forward"), ("arange", "fp32", "forward"),
        ("new_empty", "fp32", "forward"), ("__getitem__", "fp32", "backward"),
    ],
)  # fmt: skip
def test_the_cpu_is_not_accused(op: str, dtype: str, phase: str):
    found = verdicts(op, dtype, phase)

    assert len(found) >= 2
    assert {name: one for name, one in found.items() if one.outcome not in ("ok", "legal")} == {}


def test_a_device_that_a_sample_names_is_the_one_under_test():
    sample = Sample.of("to", lambda one, where: one.to(where), args=(torch.ones(2), "cpu"), kwargs={})

    assert sample.run([torch.ones(2, device="meta")])[0].device.type == "meta"


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_attention_is_random_only_where_it_drops(dropout: float):
    attention = torch.nn.functional.scaled_dot_product_attention
    sample = Sample.of("attention", attention, args=[torch.randn(1, 2, 3, 4)] * 3, kwargs={"dropout_p": dropout})

    assert sample.rehearsed().random == (dropout > 0)


@pytest.mark.parametrize("kept", ["same", "fewer"])
def test_values_that_are_dropped_together_count_as_one(kept: str):
    """dropout3d keeps or drops 64 values at once."""
    torch.manual_seed(0)
    x = torch.randn(4, 6, 4, 4, 4)
    share = 0.5 if kept == "same" else 0.1

    def dropped(share: float) -> list[torch.Tensor]:
        return [torch.nn.functional.dropout3d(x, share, training=True)]

    found = [
        draws.compare(lambda: dropped(share), reference=lambda: dropped(0.5), labels=["value"])[0].outcome
        for _ in range(20)
    ]  # fmt: skip
    assert set(found) == {"ok" if kept == "same" else "wrong"}


@pytest.mark.parametrize(("rare_share", "outcome"), [(0.1, "ok"), (0.6, "wrong")])
def test_one_outcome_all_the_time_accuses_only_where_the_reference_has_others_often(rare_share: float, outcome: str):
    generator = torch.Generator().manual_seed(0)

    def drawn() -> list[torch.Tensor]:
        return [(torch.rand(1, generator=generator) < rare_share).float()]

    (found,) = draws.compare(lambda: [torch.zeros(1)], reference=drawn, labels=["value"])

    assert found.outcome == outcome


def test_values_that_never_change_on_either_side_are_no_stuck_generator():
    """What a random op gives without randomness, a result of arithmetic, may differ in its last bit."""
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    other = torch.nextafter(x, torch.full_like(x, 9.0))

    (found,) = draws.compare(lambda: [other], reference=lambda: [x], labels=["value"])

    assert found.outcome == "ok"


@pytest.mark.parametrize(("dtype", "huge"), [(torch.float32, True), (torch.float16, False), (torch.bfloat16, False)])
def test_huge_logits_are_a_case_where_their_dtype_has_them(dtype: torch.dtype, huge: bool):
    name = "nn.functional.linear_cross_entropy.chunked_none"
    sample = Sample.of(name, torch.matmul, args=[torch.ones(2, 3, dtype=dtype), torch.ones(3, 4, dtype=dtype)], kwargs={})

    assert ("huge" in dict(edges(name, [sample]))) is huge


class Claims:
    """A stack that says that its device ran one kernel; ``host``: it was the CPU."""

    def __init__(self, *, host: bool) -> None:
        self.host = host

    def prepare(self, computation: Any) -> Any:
        self.computation = computation
        return self

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        outputs = self.computation(tensors)
        return outputs if self.host else [torch.nextafter(one, torch.ones_like(one)) for one in outputs]

    def executed(self) -> Executed:
        return Executed(where="npu:0", ops=1)


@pytest.mark.parametrize(
    ("name", "scale", "host", "outcome"),
    [
        ("exp", 1.0, True, "fallback"), ("exp", 1.0, False, "ok"), ("neg", 1.0, True, "ok"),
        # what went in, and ones: any stack gives these bits
        ("sin", 1e-20, True, "ok"), ("tanh", 1e-41, True, "ok"), ("erf", 1e4, True, "ok"),
    ],
)  # fmt: skip
def test_the_cpus_own_bits_are_a_fallback_whatever_the_stack_says(name: str, scale: float, host: bool, outcome: str):
    x = torch.randn(512, generator=torch.Generator().manual_seed(0)) * scale
    call = Call.of(getattr(torch.ops.aten, name).default, (x,))
    case = Case(id="a", op=call.op, dtype="fp32", phase="forward", computation=call.computation())
    runner = Runner(case, Claims(host=host))

    assert runner.judged(runner.run()).outcome == outcome


def test_a_denormal_result_that_comes_out_as_zero_is_legal_and_said():
    got, truth = torch.tensor([0.0, 1.0]), torch.tensor([1e-40, 1.0], dtype=torch.float64)

    assert zeroed(got, truth)
    assert flushing_said(Score(label="value", outcome="ok"), got, truth=truth).reason == "prove.reason.zeroed"
    chosen = Score(label="value", outcome="legal", reason="prove.reason.winner")  # an earlier reason stays
    assert flushing_said(chosen, got, truth=truth) == chosen
    assert not zeroed(got, torch.tensor([1e-47, 1.0], dtype=torch.float64))  # no number of fp32
    assert not zeroed(truth.float(), truth) and not zeroed(got, torch.tensor([0.0, 1.0], dtype=torch.float64))


@pytest.mark.slow
def test_what_raises_on_the_cpu_as_well_accuses_nobody():
    assert verdicts("nn.functional.max_unpool3d", phase="backward")["transposed"].outcome in ("skipped", "ok")


@pytest.mark.slow
def test_edges_have_what_the_database_lacks():
    assert {"offset", "tiny", "huge", "denormal", "zeros", "nan", "inf", "masked", "empty", "scalar", "strided"} <= set(verdicts("var"))
    assert "repeated-index" in verdicts("index_put")
    assert "negative-index" in verdicts("take")
    assert "beyond-int32" in verdicts("sum", "int64")
    assert not {"nan", "huge", "denormal"} & set(verdicts("linalg.eigh"))
    assert "nan" in verdicts("fft.rfft") and not {"inf", "masked"} & set(verdicts("fft.rfft"))
    assert not {"negative-index", "repeated-index"} & set(verdicts("nn.functional.ctc_loss"))


@pytest.mark.slow
def test_the_list_takes_in_the_whole_database():
    entries = opinfo.entries(("fp32",), ("forward",))

    assert len(entries) > 650
    assert {"add", "bitwise_and", "_foreach_add", "view_as_real"} <= {one.op for one in entries}
    assert len({one.id for one in entries}) == len(entries)


# ---- the file --------------------------------------------------------------------------------------------------------


def header(**more: Any) -> dict[str, Any]:
    asked = {"backend": "npu"}
    return {
        "format": result.FORMAT, "version": 1, "sapper": "0", "asked": asked, "versions": {}, "kind": "device", "real": True, "entries": 1,
        "ops": 1, "left_out": [], "date": "2026-01-01", **more,
    }  # fmt: skip


def test_a_stack_that_equals_the_cpu_everywhere_has_proved_nothing(tmp_path: Path):
    path = tmp_path / "ops.jsonl"
    cases = [{"case": f"opinfo/add/fp32/forward/{n}", "op": "add", "outcome": "ok", "equals_peer": True} for n in range(30)]
    path.write_text("\n".join(json.dumps(line) for line in [{"header": header()}, *cases]) + "\n{torn", "utf-8")
    found = result.read(path)

    assert found.suspected_fallback and set(found.counts()) == {"void"}


def test_the_last_line_of_a_case_counts_and_a_suspect_is_not_accused(tmp_path: Path):
    path = tmp_path / "ops.jsonl"
    cases = [
        {"case": "a/0", "op": "a", "outcome": "wrong", "suspect": "values"},
        {"case": "b/0", "op": "b", "outcome": "crash", "suspect": "died"},
        {"case": "a/0", "op": "a", "outcome": "stateful"},
    ]  # fmt: skip
    path.write_text("\n".join(json.dumps(line) for line in [{"header": header()}, *cases]) + "\n", "utf-8")
    found = result.read(path)

    assert (found.counts(), found.pending, found.finished) == (Counter(stateful=1), ("b/0",), False)


@pytest.mark.parametrize("text", ["", "{}\n", '{"header": {"format": "other"}}\n', "no json\n"])
def test_another_file_is_refused(text: str, tmp_path: Path):
    path = tmp_path / "ops.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(BadFile, match="SP-OPS-006"):
        result.read(path)


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_illness_has_its_name_and_health_too(tmp_path: Path):
    arguments = ["--on", "sick", "--ops", ",".join((*SICK, *WELL)), "--forward-only", "--samples", "2", "--limit", "5s", "--repros", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "sapper", "prove", "ops", *arguments, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=environment(SAPPER_BACKENDS=str(HERE / "sick")), timeout=WAIT_S,
    )  # fmt: skip
    ops = result.read(tmp_path / "proof" / "ops.jsonl")
    found = {op: {one.outcome for one in ops.verdicts if one.op == op} for op in (*SICK, *WELL)}

    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["finished"] and ops.finished
    assert {op: outcome for op, outcome in SICK.items() if outcome not in found[op]} == {}
    assert {op: of for op, of in found.items() if op in WELL and of != {"ok"}} == {}
    assert found["sin"] == {"ok", "crash", "fallback"}  # the larger sample has the bits of the CPU, which is what computes there
    assert any("unexpected rank" in (one.said or "") for one in ops.verdicts if one.op == "sinh")
    assert "  wrong: tanh" in done.stderr


@pytest.mark.slow
def test_whatever_ends_it_nothing_is_lost_or_done_twice(run_sapper: Run, tmp_path: Path):
    """Ctrl-C, a file that can grow no more, and a death that leaves no time to say anything; then to its end."""
    arguments = ["--on", "sick", "--ops", "ceil,mul,sum,round", "--forward-only", "--samples", "4", "--workers", "1", "--out", "here"]
    path = tmp_path / "here" / "ops.jsonl"
    counts, said, codes = [0], [], []
    for end in ("interrupt", "full", "kill"):
        room = path.stat().st_size + ROOM_BYTES if end == "full" else None
        run = started(arguments, tmp_path, path, least=counts[-1] + 8 if room is None else None, room=room, SLOW_OPS="0.02")
        if room is None:
            run.send_signal(signal.SIGINT if end == "interrupt" else signal.SIGKILL)
        codes.append(run.wait(timeout=WAIT_S))
        said.append((tmp_path / "said").read_text("utf-8"))
        counts.append(len(lines(path)))
    done = run_sapper("prove", "ops", *arguments, SAPPER_BACKENDS=str(HERE / "sick"))
    cases = Counter(line["case"] for line in lines(path) if "outcome" in line)

    assert codes == [130, 2, -signal.SIGKILL], said
    assert "here/ops.jsonl, and the same command goes on" in said[0] and "SP-RUN-003" in said[1]
    assert sorted(set(counts)) == counts and counts[-1] < len(lines(path))
    assert all("going on: " in text for text in (*said[1:], done.stderr))
    assert (done.returncode, set(cases.values())) == (0, {1})
    assert result.read(path).finished


@pytest.mark.slow
def test_a_worker_that_somebody_kills_costs_nothing(tmp_path: Path):
    arguments = ["--on", "sick", "--ops", "ceil,mul", "--forward-only", "--samples", "4", "--workers", "1"]
    path = tmp_path / "proof" / "ops.jsonl"
    run = started(arguments, tmp_path, path, least=5, SLOW_OPS="0.05")
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text("ascii").split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)

    assert children
    assert run.wait(timeout=WAIT_S) == 0
    assert set(result.read(path).counts()) == {"ok"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--on", "nothing"), "SP-BACK-001"), (("--on", "sick:absent"), "SP-OPS-001"), (("--on", "sick", "--dtype", "fp3"), "SP-OPS-004"),
        (("--on", "sick", "--forward-only", "--backward"), "SP-OPS-005"), (("--on", "sick", "--ops", "no_such_op"), "SP-OPS-002"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_what_cannot_be_asked_is_refused(arguments: tuple[str, ...], code: str, run_sapper: Run):
    done = run_sapper("prove", "ops", *arguments, SAPPER_BACKENDS=str(HERE / "sick"))

    assert (done.returncode, code in done.stderr) == (2, True), done.stderr


# ---- elsewhere -------------------------------------------------------------------------------------------------------


def test_the_configuration_for_pytorchs_own_tests_says_what_is_left_out_and_why(tmp_path: Path):
    path = tmp_path / "ops.jsonl"
    cases = [
        {"case": "opinfo/add/fp32/forward/0", "op": "add", "dtype": "fp32", "outcome": "ok"},
        {"case": "opinfo/tanh/fp32/forward/0", "op": "tanh", "dtype": "fp32", "outcome": "ok"},
        {"case": "opinfo/tanh/bf16/forward/0", "op": "tanh", "dtype": "bf16", "outcome": "crash", "said": "SIGSEGV\n..."},
        {"case": "opinfo/exp/fp32/backward/0", "op": "exp", "dtype": "fp32", "phase": "backward", "outcome": "wrong"},
        {"case": "opinfo/exp/fp32/forward/0", "op": "exp", "dtype": "fp32", "outcome": "ok"},
        {"case": "opinfo/cosh/fp32/forward/0", "op": "cosh", "dtype": "fp32", "outcome": "unsupported", "said": "no kernel"},
    ]
    path.write_text("\n".join(json.dumps(line) for line in [{"header": header()}, *cases]) + "\n", "utf-8")
    made: dict[str, Any] = {}
    exec(compile(config_of(result.read(path)), "config.py", "exec"), made)

    class Base:
        @classmethod
        def set_test_configs(cls, **configs: Any) -> None:
            cls.configs = configs

    made["apply"](Base)
    overrides = Base.configs["op_overrides"]

    assert Base.configs["op_allowlist"] == ["add", "exp", "tanh"]
    assert made["LEFT_OUT"] == {"cosh": "unsupported in 1 of 1 cases: no kernel"}
    assert made["OVERRIDES"]["tanh"] == [("bfloat16", None, "forward: crash in 1 of 1 cases: SIGSEGV")]
    assert [(one.cls_name, one.dtypes) for one in overrides["exp"]] == [("TestBwdGradients", (torch.float32,))]


SIGMOID_5_PERCENT_OFF = """
device = "papertiger"
[summary]
en = "a sigmoid that is off"
zh = "偏离的 sigmoid"
[[fault]]
kind = "bias"
op = "aten::sigmoid"
amount = 0.05
"""


@pytest.mark.slow
def test_a_gradient_that_pytorch_takes_apart_for_a_plug_in_is_accused_only_of_more_than_its_roundings(run_sapper: Run, tmp_path: Path):
    """Honest kernels round each of the steps of mish's gradient to bf16; near its root that is 34 times what one rounding leaves."""
    (tmp_path / "lying.toml").write_text(SIGMOID_5_PERCENT_OFF, "utf-8")
    asked = ["--ops", "nn.functional.mish", "--dtype", "bf16", "--samples", "12", "--seed", "3", "--no-edges", "--repros", "0"]
    honest = run_sapper("prove", "ops", "--on", "papertiger", *asked, "--out", "honest")
    lying = run_sapper("prove", "ops", "--on", "papertiger:lying.toml", *asked, "--out", "lying")

    assert honest.returncode == 0, honest.stdout + honest.stderr
    assert result.read(tmp_path / "honest" / "ops.jsonl").counts() == {"ok": 6}
    assert lying.returncode == 1 and result.read(tmp_path / "lying" / "ops.jsonl").counts().keys() & {"imprecise", "wrong"}


UPSTREAM = """
import torch
from sapper.backends import find
find("papertiger").device()
import config
config.apply()
from torch.testing._internal.common_device_type import instantiate_device_type_tests, ops
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_utils import TestCase, run_tests

class TestOps(TestCase):
    @ops([op for op in op_db if op.name in ("ceil", "mul", "floor")], allowed_dtypes=(torch.float32,))
    def test_forward(self, device, dtype, op):
        for sample in op.sample_inputs(device, dtype):
            assert op(sample.input, *sample.args, **sample.kwargs).device.type != "cpu"

instantiate_device_type_tests(TestOps, globals(), only_for="privateuse1", allow_mps=False)
if __name__ == "__main__":
    run_tests()
"""


@pytest.mark.slow
def test_pytorchs_own_tests_run_by_it_on_a_plug_in(run_sapper: Run, tmp_path: Path):
    pytest.importorskip("expecttest")
    arguments = ["--on", "papertiger", "--ops", "ceil,mul", "--forward-only", "--samples", "2", "--no-edges"]
    done = run_sapper("prove", "ops", *arguments, "--emit-pytorch-config", "config.py")
    assert done.returncode == 0, done.stderr
    (tmp_path / "upstream.py").write_text(UPSTREAM, "utf-8")
    plain = environment(CI="")  # where it is set, PyTorch's runner wants a package that writes XML
    upstream = [sys.executable, "upstream.py", "-v"]
    ran = subprocess.run(upstream, cwd=tmp_path, env=plain, capture_output=True, text=True, check=False, timeout=WAIT_S)

    assert ran.returncode == 0, ran.stderr
    assert sorted(set(re.findall(r"test_forward_(\w+?)_", ran.stderr))) == ["ceil", "mul"]


@pytest.mark.slow
def test_a_ray_cluster_runs_the_same_and_survives_its_workers(tmp_path: Path):
    pytest.importorskip("ray")
    arguments = ["--on", "sick", "--ops", "ceil,mul,sum", "--forward-only", "--samples", "2", "--no-edges"]
    arguments += ["--ray", "local", "--workers", "2"]
    path = tmp_path / "proof" / "ops.jsonl"
    run = started(arguments, tmp_path, path, least=1, SLOW_OPS="0.5")
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if process.read_bytes().startswith(b"ray::_Held"):
                os.kill(int(process.parent.name), signal.SIGKILL)
                break

    assert run.wait(timeout=WAIT_S) == 0
    assert result.read(path).finished and set(result.read(path).counts()) == {"ok"}


def looked_at(fn: Any, tensors: tuple[torch.Tensor, ...], got: Sequence[torch.Tensor]) -> CaseVerdict:
    """What becomes of a case whose device gave ``got``."""
    labels = tuple(f"value {at}" for at in range(len(got)))
    computation = Computation(name="one", fn=fn, tensors=tensors, labels=labels)
    case = Case(id="one", op="one", dtype="fp32", phase="forward", computation=computation)
    return Runner(case, Papertiger(None)).judged(Ran(outputs=list(got)))


UNDEFINED = ("skipped", "prove.ops.reason.undefined")
POLYNOMIALS = (
    "legendre_polynomial_p", "laguerre_polynomial_l", "chebyshev_polynomial_u", "chebyshev_polynomial_w", "shifted_chebyshev_polynomial_t",
    "shifted_chebyshev_polynomial_u", "shifted_chebyshev_polynomial_w",
)  # fmt: skip
"""That PyTorch 2.13's CPU kernels do not make NaN of NaN: they never enter the loop that writes."""


def test_a_reference_that_leaves_its_result_unwritten_accuses_nobody() -> None:
    x, degree, nan = torch.tensor([torch.nan]), torch.tensor([8.0]), torch.tensor([torch.nan])
    verdicts = [
        looked_at(fn, tensors, [nan])
        for polynomial in (getattr(torch.special, name) for name in POLYNOMIALS)
        for fn, tensors in ((lambda x, n, of=polynomial: (of(x, n),), (x, degree)), (lambda x, of=polynomial: (of(x, 8),), (x,)))
    ]
    # Now and then what the memory held is the device's own answer: a green that lacks evidence here.
    by_chance = ("void", "prove.ops.reason.no_evidence")
    found = [(one.outcome, one.reason) for one in verdicts]
    assert set(found) <= {UNDEFINED, by_chance} and found.count(UNDEFINED) > len(found) // 2
    nobody = torch.zeros(0, dtype=torch.int64)
    for loss in (
        lambda x: (torch.nn.functional.multi_margin_loss(x, nobody),),  # of an empty batch
        lambda x: (torch.nn.functional.multilabel_margin_loss(x, nobody.view(0, 5)),),
    ):
        verdict = looked_at(loss, (torch.zeros(0, 5),), [torch.full_like(loss(torch.zeros(0, 5))[0], 5.0)])
        assert (verdict.outcome, verdict.reason) in (UNDEFINED, by_chance)


def test_a_sum_that_cancels_is_no_unwritten_result() -> None:
    """The CPU's fp32 and fp64 have no digit in common here, and the device is wrong all the same."""
    sums = torch.tensor([1e8, 1.0, -1e8])
    for fn, tensor in (
        (lambda x: (x.sum(),), sums), (lambda x: (x.var(),), torch.tensor([1e8, 1e8 + 8, 1e8 + 16])),
        (lambda x: (1 - x.cos(),), torch.tensor([1e-4])), (lambda x: (x @ torch.ones(3, 1, dtype=x.dtype),), sums.view(1, 3)),
    ):  # fmt: skip
        verdict = looked_at(fn, (tensor,), [torch.full_like(fn(tensor)[0], torch.nan)])
        assert (verdict.outcome, verdict.reason) != UNDEFINED and verdict.outcome == "nan"


def test_an_unwritten_result_excuses_no_other_output_and_no_other_place() -> None:
    x = torch.tensor([torch.nan, 0.5])
    legendre = torch.special.legendre_polynomial_p
    right = legendre(x, 8).where(~x.isnan(), torch.nan)

    def fn(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x * 3, legendre(x, 8)

    wrong_output = looked_at(fn, (x,), [x * 7, right])
    wrong_place = looked_at(fn, (x,), [x * 3, right * 1.5])
    wrong_everywhere = looked_at(fn, (x,), [x * 7, right * torch.nan])
    covered_in_part = looked_at(fn, (x,), [x * 3, right])

    assert [one.outcome for one in wrong_output.scores] == ["wrong", "skipped"] and wrong_output.outcome == "wrong"
    assert [one.outcome for one in wrong_place.scores] == ["ok", "wrong"] and wrong_place.outcome == "wrong"
    assert [one.outcome for one in wrong_everywhere.scores] == ["wrong", "nan"]
    assert [one.outcome for one in covered_in_part.scores] == ["ok", "skipped"]
    assert (covered_in_part.outcome, covered_in_part.reason) == UNDEFINED


def test_a_device_that_loses_nan_is_accused_where_the_reference_has_it() -> None:
    """Compilers make NaN of this polynomial's unwritten result, which is right."""
    verdict = looked_at(lambda x: (torch.special.hermite_polynomial_h(x, 8),), (torch.tensor([torch.nan]),), [torch.zeros(1)])
    assert verdict.outcome == "nan"
