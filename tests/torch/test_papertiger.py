"""Papertiger: that the honest chip is a whole device and right, and that each kind of fault shows as it is described."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import msgspec  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from sapper.backends import evidence, find, papertiger  # noqa: E402
from sapper.backends.computation import Computation, with_gradients  # noqa: E402
from sapper.backends.on_device import DeviceRun  # noqa: E402
from sapper.backends.papertiger.precision import rounded  # noqa: E402
from sapper.errors import BadFile, SapperError  # noqa: E402
from support import ROOT, environment  # noqa: E402

Tensor = torch.Tensor


def install(**fields: object) -> str:
    return papertiger.install(papertiger.Personality(**fields))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def honest() -> Iterator[None]:
    install()
    torch.manual_seed(0)
    yield
    install()


def values(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape).to(dtype)


def chip(one: Tensor) -> Tensor:
    return one.to("papertiger")


def error(got: Tensor, truth: Tensor) -> float:
    """Relative error in the L2 norm."""
    return float((got.cpu().double() - truth.double()).norm() / truth.double().norm())


# ---- a device like any other ------------------------------------------------------------------------------------------


def test_it_is_an_accelerator_of_pytorch() -> None:
    assert torch.accelerator.current_accelerator() == torch.device("papertiger")
    assert torch.papertiger.is_available() and torch.papertiger.device_count() == 1
    torch.accelerator.synchronize()
    made = torch.ones(2, 3, device="papertiger")
    assert (type(made), str(made.device)) == (Tensor, "papertiger:0")
    assert "device='papertiger:0'" in repr(made)
    assert made.sum().item() == 6.0


def test_views_share_memory_and_in_place_ops_write_through() -> None:
    base = chip(torch.zeros(4, 6))
    base.t()[1:3].add_(1)
    base[0, 0] = 5
    expected = torch.zeros(4, 6)
    expected.t()[1:3].add_(1)
    expected[0, 0] = 5
    assert torch.equal(base.cpu(), expected)
    assert base.view(-1).data_ptr() == base.data_ptr()


def test_conjugates_and_complex_parts() -> None:
    z = torch.randn(3, 4, dtype=torch.complex64)
    assert torch.allclose((chip(z).conj() * 2).cpu(), z.conj() * 2)
    assert torch.allclose(torch.fft.hfft(chip(z)).cpu(), torch.fft.hfft(z), atol=1e-5)
    assert torch.equal(chip(z).imag.cpu(), z.imag)


def test_tensors_of_two_devices_are_refused() -> None:
    with pytest.raises(RuntimeError, match="same device"):
        chip(values(3)) + values(3)
    assert (chip(torch.ones(2)) * torch.tensor(2.0)).cpu().tolist() == [2.0, 2.0]
    given, lengths = (torch.zeros(4, 1, 3).log_softmax(-1), torch.ones(1, 2, dtype=torch.int64)), (torch.tensor([4]), torch.tensor([2]))
    loss, _ = torch.ops.aten._ctc_loss.Tensor(*map(chip, given), *lengths)
    assert torch.equal(loss.cpu(), torch.ops.aten._ctc_loss.Tensor(*given, *lengths)[0])


def test_random_numbers_follow_the_chips_own_seed() -> None:
    def draw() -> list[Tensor]:
        torch.papertiger.manual_seed(7)
        dropped = F.dropout(torch.ones(64, device="papertiger"))
        return [torch.randn(5, device="papertiger").cpu(), dropped.cpu(), torch.randperm(9, device="papertiger").cpu()]

    torch.manual_seed(1)
    host = torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(draw(), draw(), strict=True))
    assert torch.equal(torch.get_rng_state(), host)


def test_a_state_is_saved_and_loaded(tmp_path: Path) -> None:
    net = torch.nn.Linear(3, 2).to("papertiger")
    torch.save(net.state_dict(), tmp_path / "net.pt")
    for place in ("papertiger", "cpu"):
        loaded = torch.load(tmp_path / "net.pt", map_location=place)
        assert loaded["weight"].device.type == place
        assert torch.equal(loaded["weight"].cpu(), net.weight.detach().cpu())


def test_tied_weights_stay_tied_and_only_where_the_chip_is_concerned() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    net[1].weight = net[0].weight
    net.to("papertiger")
    assert net[0].weight is net[1].weight and net[0].weight.device.type == "papertiger"
    net.cpu()
    assert net[0].weight is net[1].weight
    assert not torch.__future__.get_swap_module_params_on_conversion()


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_training_follows_the_cpu(optimizer: type) -> None:
    def train(device: str) -> list[float]:
        torch.manual_seed(3)
        net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.GELU(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 1))
        x, y = values(16, 6), values(16, 1)
        net.to(device)
        steps = optimizer(net.parameters(), lr=1e-2)
        losses = []
        for _ in range(5):
            steps.zero_grad()
            loss = F.mse_loss(net(x.to(device)), y.to(device))
            loss.backward()
            steps.step()
            losses.append(loss.item())
        return losses

    assert train("papertiger") == pytest.approx(train("cpu"), rel=1e-4)


def test_autocast_runs_products_in_the_lower_dtype_and_sums_in_fp32() -> None:
    x, w = chip(values(4, 8)), chip(values(8, 8))
    with torch.autocast("papertiger", dtype=torch.bfloat16):
        product = x @ w
        assert (product.dtype, product.softmax(-1).dtype, (x + x).dtype) == (torch.bfloat16, torch.float32, torch.float32)
    assert (x @ w).dtype == torch.float32


CASES: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "linear": (F.linear, ((9, 300), (7, 300), (7,))),
    "bmm": (torch.bmm, ((2, 5, 70), (2, 70, 6))),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, padding=1, stride=2), ((2, 16, 9, 9), (5, 16, 3, 3), (5,))),
    "conv1d grouped": (lambda x, w: F.conv1d(x, w, groups=2), ((2, 8, 9), (6, 4, 3))),
    "conv transposed": (F.conv_transpose2d, ((2, 12, 5, 5), (12, 4, 3, 3))),
    "softmax": (lambda x: x.softmax(-1), ((6, 50),)),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (40,), w, b), ((6, 40), (40,), (40,))),
    "batch_norm": (lambda x: F.batch_norm(x, None, None, training=True), ((6, 4, 5),)),
    "group_norm": (lambda x: F.group_norm(x, 2), ((3, 4, 5),)),
    "gelu": (F.gelu, ((6, 50),)),
    "attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), ((1, 2, 7, 8),) * 3),
    "sum": (lambda x: x.sum((0, 2)), ((30, 3, 40),)),
    "mean": (lambda x: x.mean(), ((30, 33),)),
    "lstm cell": (lambda x, h, c, w, u: torch.lstm_cell(x, (h, c), w, u)[0], ((3, 5), (3, 4), (3, 4), (16, 5), (16, 4))),
    "gru cell": (lambda x, h, w, u: torch.gru_cell(x, h, w, u), ((3, 5), (3, 4), (12, 5), (12, 4))),
}


@pytest.mark.parametrize("name", CASES)
def test_the_honest_chip_is_right_forward_and_backward_and_not_the_cpus_bits(name: str) -> None:
    fn, shapes = CASES[name]
    forward = Computation(name=name, fn=lambda *t: (fn(*t),), tensors=tuple(values(*shape) for shape in shapes), labels=("value",))
    both = with_gradients(forward, wrt=range(len(shapes)), cotangents=[torch.randn_like(forward()[0])])
    run = find("papertiger").prepare(both)
    got = run(both.tensors)
    peer, truth = both(), both([one.double() for one in both.tensors])
    assert [one.dtype for one in got] == [torch.float32] * len(truth)
    for mine, right in zip(got, truth, strict=True):
        assert float((mine.double() - right).norm()) <= 1e-6 * float(right.norm()) + 1e-7
    assert not all(torch.equal(mine, one) for mine, one in zip(got, peer, strict=True))
    executed = run.executed()
    assert executed is not None and executed.where == "papertiger:0" and (executed.ops or 0) >= 1


def test_the_gradient_of_a_value_that_leaves_the_chip_is_taken_from_where_it_went() -> None:
    away = Computation(name="away", fn=lambda x: ((2 * x).cpu(),), tensors=(torch.ones(2),), labels=("value",))
    _, grad = with_gradients(away, wrt=[0], cotangents=[torch.ones(2)])([chip(torch.ones(2)), chip(torch.ones(2))])
    assert grad.device.type == "papertiger" and grad.tolist() == [2.0, 2.0]


@pytest.mark.parametrize("kind", [torch.nn.BatchNorm2d, lambda channels: torch.nn.InstanceNorm2d(channels, track_running_stats=True)])
def test_running_statistics_of_norms_are_kept(kind: Callable[[int], torch.nn.Module]) -> None:
    host = kind(4)
    device = kind(4).to("papertiger")
    given = values(3, 4, 5, 5)
    host(given)
    device(chip(given))
    torch.testing.assert_close(device.running_mean.cpu(), host.running_mean)
    torch.testing.assert_close(device.running_var.cpu(), host.running_var)


def test_the_parts_of_synchronized_batch_norm_make_batch_norm() -> None:
    norm = torch.nn.BatchNorm2d(3)
    given = values(8, 3, 2, 2)
    x = given.clone().requires_grad_()
    torch.nn.init.normal_(norm.weight)
    right = norm(x)
    cotangent = torch.randn_like(right)
    right.backward(cotangent)
    halves = [chip(half) for half in given.chunk(2)]
    stats = [torch.batch_norm_stats(half, norm.eps) for half in halves]
    running = [chip(torch.zeros(3)), chip(torch.ones(3))]
    counts = chip(torch.tensor([16.0, 16.0]))
    gathered = [torch.stack(each) for each in zip(*stats, strict=True)]
    mean, inverse = torch.batch_norm_gather_stats_with_counts(halves[0], *gathered, *running, 0.1, norm.eps, counts)
    weight, bias = chip(norm.weight.detach()), chip(norm.bias.detach())
    grads = [chip(half) for half in cotangent.chunk(2)]
    parts = [torch.batch_norm_backward_reduce(g, h, mean, inverse, weight, True, True, True) for g, h in zip(grads, halves, strict=True)]
    total, product, of_weight, of_bias = (sum(each[1:], each[0]) for each in zip(*parts, strict=True))
    whole = [torch.batch_norm_elemt(half, weight, bias, mean, inverse, norm.eps).cpu() for half in halves]
    backward = [
        torch.batch_norm_backward_elemt(g, h, mean, inverse, weight, total, product, counts.int()).cpu()
        for g, h in zip(grads, halves, strict=True)
    ]
    torch.testing.assert_close(torch.cat(whole), right.detach())
    torch.testing.assert_close(torch.cat(backward), x.grad)
    torch.testing.assert_close((of_weight.cpu(), of_bias.cpu()), (norm.weight.grad, norm.bias.grad))
    torch.testing.assert_close((running[0].cpu(), running[1].cpu()), (norm.running_mean, norm.running_var))
    assert [one.dtype for one in torch.batch_norm_stats(halves[0].bfloat16(), norm.eps)] == [torch.float32] * 2


def test_a_storage_is_freed_and_taken_again_under_its_tensor() -> None:
    tensor = chip(values(16))
    kept = tensor.cpu()
    storage, before = tensor.untyped_storage(), torch.papertiger.memory_allocated()
    storage.resize_(0)
    assert (storage.size(), before - torch.papertiger.memory_allocated()) == (0, 64)
    storage.resize_(64)
    assert (storage.nbytes(), torch.papertiger.memory_allocated()) == (64, before)
    assert torch.equal(tensor.cpu(), kept)
    with pytest.raises(NotImplementedError, match="cannot grow"):
        storage.resize_(65)


def test_it_counts_what_it_executes() -> None:
    counters = papertiger.chip().counters
    counters.reset()
    x = chip(values(3, 3))
    x @ x
    x.t().reshape(3, 3)[0]
    assert counters.launched["aten::mm"] == 1
    assert not any("view" in name or "transpose" in name for name in counters.launched)
    assert counters.copied_in == 1


# ---- precision --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "bits"), [("bf16", 8), ("tf32", 11), ("hf32", 12), ("fp16", 11), ("fp8_e4m3", 4), ("fp8_e5m2", 3)])
def test_formats_keep_their_bits(form: str, bits: int) -> None:
    at_the_edge = torch.tensor([1 + 2.0 ** (1 - bits), 1 + 2.0**-bits, -(1 + 3 * 2.0**-bits), float("nan")], dtype=torch.float64)
    found = rounded(at_the_edge, form).tolist()  # type: ignore[arg-type]
    assert found[:3] == [1 + 2.0 ** (1 - bits), 1.0, -(1 + 2 * 2.0 ** (1 - bits))]  # kept; a tie to even; a tie to even
    assert found[3] != found[3]
    cut = rounded(at_the_edge, form, truncate=True).tolist()  # type: ignore[arg-type]
    assert cut[:3] == [1 + 2.0 ** (1 - bits), 1.0, -(1 + 2.0 ** (1 - bits))]


def test_products_run_in_the_precision_of_the_personality() -> None:
    a, b = values(32, 256), values(256, 32)
    truth = a.double() @ b.double()
    reached = {}
    for form in ("fp32", "tf32", "bf16", "fp8_e4m3"):
        install(precision=papertiger.personality.Precision(matmul_input=form))
        reached[form] = error(chip(a) @ chip(b), truth)
    assert reached["fp32"] < 1e-6 < reached["tf32"] < 1e-3 < reached["bf16"] < 1e-2 < reached["fp8_e4m3"] < 0.1


def test_denormals_are_flushed_and_overflow_saturates_where_the_personality_says_so() -> None:
    tiny = torch.tensor([1e-40, 1.0])
    assert float((chip(tiny) * 1).cpu()[0]) > 0
    install(precision=papertiger.personality.Precision(flush_denormals=True, overflow="saturate", nan="zero"))
    assert (chip(tiny) * 1).cpu().tolist() == [0.0, 1.0]
    assert (chip(torch.tensor([6e4], dtype=torch.float16)) * 4).item() == 65504.0
    assert (chip(torch.tensor([float("inf")])) * 0).item() == 0.0
    assert chip(torch.tensor([1e6, float("inf")])).half().cpu().tolist() == [65504.0, float("inf")]
    install(precision=papertiger.personality.Precision(rounding="toward-zero"))
    assert chip(torch.tensor([1.0 + 1.9 * 2.0**-8])).bfloat16().item() == 1.0


def test_max_and_its_like_keep_the_number_where_the_personality_says_so() -> None:
    nan = float("nan")
    x, y = chip(torch.tensor([[nan, 1.0], [nan, nan]])), chip(torch.tensor([[2.0, nan], [0.5, nan]]))
    install(precision=papertiger.personality.Precision(nan="number"))
    kept = {"maximum": torch.maximum(x, y), "minimum": torch.minimum(x, y), "relu": x.relu(), "clamp": x.clamp(-1, 0.25)}
    lines = {name: one.nan_to_num(-9).cpu().tolist() for name, one in kept.items()}
    assert lines == {
        "maximum": [[2.0, 1.0], [0.5, -9.0]], "minimum": [[2.0, 1.0], [0.5, -9.0]], "relu": [[0.0, 1.0], [0.0, 0.0]],
        "clamp": [[-1.0, 0.25], [-1.0, -1.0]],
    }  # fmt: skip
    assert x.amax(1).nan_to_num(-9).cpu().tolist() == [1.0, -9.0] and x.amin().item() == 1.0


# ---- what a chip lacks ------------------------------------------------------------------------------------------------


def test_absent_ops_and_dtypes_raise_and_the_backend_calls_them_unsupported() -> None:
    from sapper.backends.base import Unsupported

    install(absent=papertiger.personality.Absent(ops=("aten::cumsum",), dtypes=("float64",)))
    with pytest.raises(NotImplementedError, match=r"Could not run 'aten::cumsum.*papertiger"):
        chip(values(3)).cumsum(0)
    with pytest.raises(RuntimeError, match="float64 is not supported"):
        chip(values(3)).double()
    backend = find("papertiger")
    backend.personality = papertiger.chip().personality  # type: ignore[attr-defined]
    asked = Computation(name="x", fn=lambda x: (x.cumsum(0),), tensors=(values(3),), labels=("value",))
    with pytest.raises(Unsupported, match="cumsum"):
        backend.prepare(asked)(asked.tensors)


def test_memory_has_a_limit_and_is_given_back() -> None:
    before = torch.papertiger.memory_allocated()
    install(memory=papertiger.personality.Memory(capacity_bytes=before + 2**20))
    kept = torch.zeros(2**17, device="papertiger")
    with pytest.raises(torch.OutOfMemoryError, match="PAPERTIGER out of memory"):
        torch.zeros(2**19, device="papertiger")
    assert torch.papertiger.memory_allocated() - before == 2**19
    del kept
    assert torch.papertiger.memory_allocated() == before


# ---- faults -----------------------------------------------------------------------------------------------------------


def faulty(kind: str, **fields: object) -> None:
    install(faults=(papertiger.Fault(kind=kind, **fields),), seed=1)  # type: ignore[arg-type]


def gradient(x: Tensor) -> Tensor:
    leaf = x.detach().clone().requires_grad_()
    (leaf * leaf).sum().backward()
    assert leaf.grad is not None
    return leaf.grad


A, B = torch.linspace(-3, 3, 40 * 40).reshape(40, 40), torch.linspace(2, -1, 40 * 40).reshape(40, 40).t().contiguous()
FAULTS: list[tuple[str, dict[str, object], Callable[[], Tensor], float, float]] = [
    ("wrong-kernel", {"op": "aten::mm"}, lambda: chip(A) @ chip(B), 0.01, 10),
    ("narrow-accumulation", {"op": "aten::mm"}, lambda: chip(A) @ chip(B), 1e-4, 0.1),
    ("narrow-accumulation", {"op": "aten::_softmax"}, lambda: chip(A).softmax(-1), 1e-4, 0.1),
    ("low-precision-input", {"op": "aten::mm"}, lambda: chip(A) @ chip(B), 1e-4, 0.1),
    ("wrong-constant", {"op": "aten::gelu"}, lambda: F.gelu(chip(A)), 1e-6, 1e-3),
    ("wrong-constant", {"op": "aten::native_layer_norm", "amount": 0.1}, lambda: F.layer_norm(chip(A), (40,)), 1e-2, 10),
    ("cancellation", {"op": "aten::native_layer_norm"}, lambda: F.layer_norm(chip(A) + 3e4, (40,)), 0.01, 1e9),
    ("cancellation", {"op": "aten::var"}, lambda: (chip(A) + 3e4).var(), 0.01, 1e9),
    ("cancellation", {"op": "aten::native_group_norm"}, lambda: F.group_norm(chip(A) + 3e4, 4), 0.01, 1e9),
    ("cancellation", {"op": "aten::native_batch_norm"}, lambda: F.batch_norm(chip(A) + 3e4, None, None, training=True), 0.01, 1e9),
    ("tile-edge", {"op": "aten::mm"}, lambda: chip(A) @ chip(B), 1e-3, 1),
    ("dropped-tail", {"op": "aten::sum", "amount": 16}, lambda: chip(A).sum(-1), 0.05, 10),
    ("lost-gradient", {"op": "aten::mul"}, lambda: gradient(chip(A)), 0.4, 1.1),
    ("scaled-gradient", {"op": "aten::mul"}, lambda: gradient(chip(A)), 0.1, 0.9),
    ("flush-denormals", {"op": "aten::mul"}, lambda: chip(A) * 1e-39, 0.9, 1.1),
    ("wrong-rounding", {"op": "aten::mm", "dtype": ("bfloat16",)}, lambda: chip(A.bfloat16()) @ chip(B.bfloat16()), 1e-3, 0.1),
    ("wrong-rounding", {"op": "aten::_fft_r2c"}, lambda: torch.view_as_real(torch.fft.rfft(chip(A))), 1e-9, 1e-6),
    ("swapped-arguments", {"op": "aten::sub"}, lambda: chip(A) - chip(B), 1.9, 2.1),
    ("ignored-strides", {"op": "aten::mul"}, lambda: chip(A).t() * 2, 0.1, 10),
    ("bad-element", {"op": "aten::mm"}, lambda: chip(A) @ chip(B), 0.01, 0.1),
    ("bias", {"op": "aten::mm"}, lambda: chip(A) @ chip(B), 9e-4, 1.1e-3),
    ("nondeterminism", {"op": "aten::mm"}, lambda: chip(A) @ chip(B), 1e-5, 1e-2),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "fields", "run", "low", "high"), FAULTS, ids=lambda one: one if isinstance(one, str) else None)
def test_a_fault_of_the_arithmetic_shows(kind: str, fields: dict[str, object], run: Callable[[], Tensor], low: float, high: float) -> None:
    right = run().cpu()
    faulty(kind, **fields)
    assert low < error(run(), right) < high
    faulty(kind, **(fields | {"op": "aten::nothing"}))
    assert torch.equal(run().cpu(), right)


def test_a_missed_nan_and_a_saturated_infinity() -> None:
    x = torch.tensor([float("nan"), 1.0])
    faulty("missed-nan", op="aten::add")
    assert (chip(x) + 1).cpu().tolist() == [1.0, 2.0]
    faulty("saturation")
    assert (chip(torch.tensor([6e4], dtype=torch.float16)) + 6e4).item() == 65504.0


def test_integers_overflow_and_empty_sums_are_not_written() -> None:
    faulty("integer-overflow")
    assert (chip(torch.tensor([2**31 + 1])) + 0).item() == 1 - 2**31
    faulty("uninitialised", op="aten::mm")
    assert float((chip(torch.ones(2, 0)) @ chip(torch.ones(0, 2))).cpu()[0, 0]) != 0


def test_a_cached_graph_keeps_its_first_attributes_and_a_cached_output_its_values() -> None:
    faulty("stale-attributes", op="aten::leaky_relu")
    x = chip(-torch.ones(3))
    assert [F.leaky_relu(x, slope).cpu()[0].item() for slope in (0.5, 0.25)] == [-0.5, -0.5]
    assert F.leaky_relu(chip(-torch.ones(4)), 0.25).cpu()[0].item() == -0.25
    faulty("stale-output", op="aten::mul")
    assert [(x * factor).cpu()[0].item() for factor in (2.0, 3.0, 4.0)] == [-2.0, -2.0, -4.0]


def test_a_workspace_that_is_not_cleared_harms_what_comes_after() -> None:
    a, b = chip(torch.ones(3, 3)), chip(torch.ones(5, 5))
    faulty("leftover", op="aten::mm")
    assert [float((one @ one).cpu()[0, 0]) for one in (a, b)] == [3.0, 8.0]
    faulty("leftover", op="aten::mm")
    assert float((b @ b).cpu()[0, 0]) == 5.0


def test_a_silent_fallback_gives_the_cpus_bits_and_is_not_counted() -> None:
    x = values(6, 300)
    faulty("silent-fallback", op=("aten::mm", "aten::exp", "aten::convolution*"))
    counters = papertiger.chip().counters
    assert torch.equal((chip(x) @ chip(x).t()).cpu(), x @ x.t())
    assert torch.equal(chip(x).exp().cpu(), x.exp())
    assert F.conv1d(chip(x), chip(values(4, 6, 3))).shape == (4, 298)
    assert counters.launched["aten::mm"] == counters.launched["aten::exp"] == counters.launched["aten::convolution_overrideable"] == 0
    assert set(counters.elsewhere()) == {"aten::mm", "aten::exp", "aten::convolution_overrideable"}

    weight = chip(values(4, 6, 3)).requires_grad_()
    faulty("silent-fallback", op="aten::convolution_backward_overrideable")
    F.conv1d(chip(x), weight, chip(values(4)).requires_grad_()).sum().backward()
    assert weight.grad is not None and set(papertiger.chip().counters.elsewhere()) == {"aten::convolution_backward_overrideable"}


@pytest.mark.parametrize("op", ["mm", "exp", "gelu", "_softmax", "native_layer_norm", "sum"])
def test_results_that_share_the_cpus_bits_betray_a_fallback(op: str) -> None:
    run = {
        "mm": lambda x: x @ x.t(), "exp": torch.exp, "gelu": F.gelu, "_softmax": lambda x: x.softmax(-1), "sum": lambda x: x.sum(-1),
        "native_layer_norm": lambda x: F.layer_norm(x, (64,)),
    }[op]  # fmt: skip
    x = values(300, 64)
    assert evidence.is_inexact(f"aten::{op}.out")
    assert evidence.shares_bits([run(chip(x)).cpu()], [run(x)], given=(x,)) is False
    faulty("silent-fallback", op=f"aten::{op}")
    assert evidence.shares_bits([run(chip(x)).cpu()], [run(x)], given=(x,)) is True


def test_few_values_short_dtypes_and_exact_ops_betray_nothing() -> None:
    assert evidence.shares_bits([torch.ones(9)], [torch.ones(9)], given=()) is None
    assert evidence.shares_bits([torch.zeros(999)], [torch.zeros(999)], given=()) is None
    assert evidence.shares_bits([torch.ones(999).bfloat16()], [torch.ones(999).bfloat16()], given=()) is None
    assert not evidence.is_inexact("aten::add_.Tensor")


@pytest.mark.parametrize(
    ("weight", "groups", "telling"),
    [((16, 8, 3, 3), 1, True), ((4, 1, 3, 3), 1, False), ((32, 1, 3), 32, False), ((16, 64, 1, 1), 1, True), ((64, 8, 2, 2), 1, False)],
)
def test_short_sums_of_a_convolution_have_the_cpus_bits_everywhere(weight: tuple[int, ...], groups: int, telling: bool) -> None:
    """cuDNN gives them for depthwise convolutions and for those of one channel."""
    x = torch.randn(2, weight[1] * groups, *[9] * (len(weight) - 2))

    assert evidence.betrays("aten::convolution", (x, torch.randn(weight), torch.randn(weight[0]))) is telling


def test_nondeterminism_differs_from_run_to_run() -> None:
    x = chip(values(5, 5))
    assert torch.equal((x @ x).cpu(), (x @ x).cpu())
    faulty("nondeterminism", op="aten::mm")
    assert not torch.equal((x @ x).cpu(), (x @ x).cpu())


def test_selectors() -> None:
    def harmed(run: Callable[[], Tensor], **fields: object) -> list[bool]:
        install()
        right = run().cpu()
        faulty("bias", amount=1.0, **fields)
        return [not torch.equal(run().cpu(), right) for _ in range(3)]

    x, y = chip(torch.ones(2, 3)), chip(torch.ones(4, 3))
    mul = lambda: x * x  # noqa: E731
    assert harmed(mul, call=2) == [False, True, False]
    assert harmed(mul, from_call=3) == [False, False, True]
    assert harmed(mul, shape=(2, -1)) == [True] * 3
    assert harmed(lambda: y * y, shape=(2, -1)) == [False] * 3
    assert harmed(mul, dtype=("bfloat16",)) == [False] * 3
    assert harmed(mul, phase="backward") == [False] * 3
    assert harmed(mul, modulo=2, remainder=1) == [True] * 3
    assert harmed(mul, min_numel=7) == [False] * 3
    assert harmed(lambda: gradient(x), op="aten::mul", phase="backward") == [True] * 3
    assert harmed(mul, op="aten::mul.out") == [True] * 3
    first = harmed(mul, probability=0.5)
    assert first == harmed(mul, probability=0.5)


def test_out_of_memory_raises() -> None:
    faulty("out-of-memory", op="aten::mm")
    x = chip(values(2, 2))
    with pytest.raises(torch.OutOfMemoryError):
        x @ x


# ---- evidence on any device ---------------------------------------------------------------------------------------------


def test_a_plug_in_that_speaks_of_a_fallback_is_heard_and_its_ops_without_kernels_are_named() -> None:
    def fn(x: Tensor) -> tuple[Tensor]:
        said = "The operator 'aten::erf' is not currently supported on the NPU backend and will fall back to run on the CPU."
        warnings.warn(said, stacklevel=1)
        return (x.erf(),)

    loud = Computation(name="x", fn=fn, tensors=(values(4),), labels=("value",))
    quiet = Computation(name="x", fn=lambda x: (x.erf(),), tensors=(values(4),), labels=("value",))
    executed = []
    for one in (loud, quiet):
        run = DeviceRun(one, torch.device("papertiger:0"))
        run(one.tensors)
        executed.append(run.executed())
    assert executed[0].where == "papertiger:0"
    assert "aten::erf" in executed[0].fallbacks and "fall back to run on the CPU" in executed[0].facts["said"]
    assert executed[1].fallbacks == () and "aten::erf" in executed[1].facts["without kernel"]


def test_the_cpu_by_name_has_kernels_of_its_own() -> None:
    backend = find("cpu")
    asked = Computation(name="x", fn=lambda x: (x.erf() @ x,), tensors=(values(4, 4),), labels=("value",))
    run = backend.prepare(asked)
    assert torch.equal(run(asked.tensors)[0], asked()[0])
    executed = run.executed()
    assert executed is not None and (executed.where, executed.fallbacks, executed.facts) == ("cpu", (), {})
    assert backend.missing() is None and "torch" in backend.versions()


# ---- what needs a process of its own ----------------------------------------------------------------------------------


def alone(script: str, *, limit_s: float = 60.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=environment() | {"OMP_NUM_THREADS": "1"}, text=True, capture_output=True,
        timeout=limit_s, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_crashes_and_hangs_are_real() -> None:
    """Each in a process of its own, forked from one that has PyTorch."""
    done = alone("""
        import os, signal, time
        import torch
        from sapper.backends import papertiger

        def end_of(limit_s, **fault):
            child = os.fork()
            if child == 0:
                papertiger.install(papertiger.Personality(faults=(papertiger.Fault(op="aten::mm", **fault),)))
                x = torch.ones(2, 2, device="papertiger")
                x @ x
                os._exit(0)
            until = time.monotonic() + limit_s
            while time.monotonic() < until:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "survived"
                time.sleep(0.02)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hang"

        for name in ("SIGSEGV", "SIGFPE", "SIGABRT", "SIGKILL"):
            print(end_of(30, kind="crash", signal=name))
        print(end_of(1.5, kind="hang"), end_of(30, kind="hang", amount=0.01))
    """)
    assert done.stdout.split() == ["SIGSEGV", "SIGFPE", "SIGABRT", "SIGKILL", "hang", "survived"], done.stderr


@pytest.mark.slow
def test_a_vendors_name_and_one_chip_a_process() -> None:
    done = alone("""
        import torch
        from sapper.backends import find, papertiger
        from sapper.errors import SapperError
        backend = find("papertiger:ascend-like")
        assert str(backend.device()) == "npu:0", backend.device()
        x = torch.randn(3, 3).npu()
        assert x.is_npu and torch.npu.is_available()
        net = torch.nn.Linear(3, 3).npu()
        net(x).sum().backward()
        assert net.weight.grad.device.type == "npu"
        try:
            papertiger.install("honest-fp32")
        except SapperError as error:
            print(error.code)
    """)
    assert (done.returncode, done.stdout) == (0, "SP-TIGER-005\n"), done.stderr


# ---- personality files ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", papertiger.names())
def test_every_personality_that_ships_can_be_read(name: str) -> None:
    found = papertiger.load(name)
    assert found.summary.en and found.summary.zh
    assert bool(found.faults) == name.startswith("lying")


def test_the_personalities_that_ship_know_every_kind_of_fault() -> None:
    shown = {fault.kind for name in papertiger.names() for fault in papertiger.load(name).faults}
    assert shown == set(papertiger.personality.KINDS)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('device = "cuda"', "SP-TIGER-002"),
        ('device = "NPU 1"', "device"),
        ('[absent]\ndtypes = ["float12"]', "SP-TIGER-003"),
        ('[[fault]]\nkind = "bias"\nop = "mm"', "fault[0].op"),
        ('[absent]\nops = ["mm"]', "absent.ops"),
        ('[[fault]]\nkind = "grumpy"', "fault[0].kind"),
        ("[precision]\nchunk = 0", "precision.chunk"),
        ("[precision]\nchunks = 8", "chunk"),
        ('[[fault]]\nkind = "bias"\nprobability = 2.0', "fault[0].probability"),
    ],
)
def test_a_fault_in_a_personality_file_is_named(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, "utf-8")
    with pytest.raises(SapperError) as raised:
        papertiger.load(str(path))
    shown = raised.value.render("en")
    assert said in shown and f"{path}:" in shown


def test_a_personality_that_is_not_there_is_refused_with_near_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SapperError, match="honest-fp32"):
        find("papertiger:honest-fp23")
    (tmp_path / "own.toml").write_text('[summary]\nen = "mine"\n', "utf-8")
    monkeypatch.setenv("SAPPER_PAPERTIGERS", str(tmp_path))
    assert papertiger.load("own").summary.en == "mine" and "own" in papertiger.names()
    assert find(f"papertiger:{tmp_path}{os.sep}own.toml").name.endswith("own.toml")


# ---- what the page says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["papertiger.md", "papertiger.zh.md"])
def test_the_examples_of_the_page_run(page: str, tmp_path: Path) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    blocks = dict(re.findall(r"^```(python|toml)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    exec(compile(blocks["python"], page, "exec"), {})
    (tmp_path / "mine.toml").write_text(blocks["toml"], "utf-8")
    assert papertiger.load(str(tmp_path / "mine.toml")).faults


@pytest.mark.parametrize("page", ["papertiger.md", "papertiger.zh.md"])
def test_the_page_names_every_kind_every_field_and_every_personality(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    module = papertiger.personality
    structs = (module.Personality, module.Precision, module.Absent, module.Memory, module.Collectives, module.Fault)
    fields = {field.encode_name for struct in structs for field in msgspec.structs.fields(struct)}
    wanted = fields | set(module.KINDS) | set(papertiger.names())
    assert sorted(one for one in wanted if f"`{one}`" not in text) == []


FAULT = '[[fault]]\nkind = "bias"\nop = "{op}"\n'
ABSENT = '[absent]\nops = ["aten::_softmax", "{op}"]\n'


@pytest.mark.parametrize(
    ("text", "op", "code"),
    [
        (FAULT, "aten::linear", "SP-TIGER-006"), (FAULT, "aten::softmax", "SP-TIGER-006"), (FAULT, "aten::gellu", "SP-TIGER-004"),
        (FAULT, "aten::addmm", None), (FAULT, "aten::convolution", None), (FAULT, "aten::copy", None), (FAULT, "aten::*softmax*", None),
        (FAULT, "mylib::op", None), (ABSENT, "aten::linear", "SP-TIGER-007"), (ABSENT, "aten::gellu", "SP-TIGER-004"),
        (ABSENT, "aten::addmm", None), (ABSENT, "aten::*linear*", None),
    ],
)  # fmt: skip
def test_a_fault_that_can_never_fire_and_an_absent_op_that_is_never_asked_for_are_refused(
    tmp_path: Path, text: str, op: str, code: str | None
) -> None:
    path = tmp_path / "chip.toml"
    path.write_text(text.format(op=op), "utf-8")
    backend = find(f"papertiger:{path}")

    if code is None:
        assert backend.missing() is None
        return
    with pytest.raises(BadFile) as caught:
        backend.missing()
    assert caught.value.code == code and op in str(caught.value) and str(path) in str(caught.value)


def test_every_fault_of_the_bundled_personalities_can_fire() -> None:
    assert [name for name in papertiger.names() if find(f"papertiger:{name}").missing() is not None] == []


def test_an_op_is_also_meant_by_the_name_that_it_has_elsewhere() -> None:
    device = papertiger.install(papertiger.Personality(faults=(papertiger.Fault(kind="scaled-gradient", op="aten::convolution_backward"),)))
    x, weights = torch.ones(1, 1, 4, 4), [torch.ones(1, 1, 3, 3, requires_grad=True) for _ in range(2)]
    for weight, on in zip(weights, ("cpu", device), strict=True):
        F.conv2d(x.to(on), weight.to(on)).sum().backward()

    assert not torch.allclose(weights[0].grad, weights[1].grad, rtol=0.01)
