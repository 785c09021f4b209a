"""The dry run with PyTorch: every kind of touch, the chip under each vendor's name, several processes, the examples."""

from __future__ import annotations

import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed")

from support import ROOT, Run

pytestmark = [pytest.mark.torch, pytest.mark.slow]

TIED = '''
import os

import torch
from torch.cuda import synchronize


def autocast_became_cpu(model, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model(x)


torch.backends.cudnn.benchmark = True
print(torch.version.cuda)
assert torch.cuda.is_available()
model = torch.nn.Linear(4, 4).cuda()
x = torch.randn(8, 4).pin_memory().to("cuda:0", non_blocking=True)
with torch.cuda.amp.autocast():
    model(x).sum().backward()
autocast_became_cpu(model, x)
assert x.is_cuda
synchronize()
stream = torch.cuda.Stream()
with torch.cuda.stream(stream):
    torch.zeros(2, device=torch.device("cuda"))
torch.save(model.state_dict(), "model.pt")
torch.load("model.pt", map_location="cuda")
os.environ.get("CUDA_VISIBLE_DEVICES")
print(x.device.type == "cuda")
x.type("torch.cuda.HalfTensor")
torch.set_default_device("cuda")
assert torch.tensor([1.0]).sum().item() == 1.0
'''


def program(folder: Path, text: str, name: str = "program.py") -> str:
    (folder / name).write_text(textwrap.dedent(text), "utf-8")
    return name


def tried(run_sapper: Run, *arguments: str) -> tuple[int, dict[str, Any], str]:
    done = run_sapper("port", "try", "--json", *arguments)
    assert done.stdout, done.stderr
    trial = json.loads(done.stdout)
    assert trial["unwatched"] == []
    return done.returncode, trial, done.stderr


def outcomes(trial: dict[str, Any]) -> dict[tuple[int, str], str]:
    return {(one["touch"]["line"], one["touch"]["symbol"]): one["touch"]["outcome"] for one in trial["own"]}


EXPECTED = {
    (5, "torch.cuda.synchronize"): "carries", (13, "torch.backends.cudnn.benchmark"): "ignored", (14, "torch.version.cuda"): "silent",
    (15, "torch.cuda.is_available"): "silent", (16, "torch.nn.Module.cuda"): "fails", (17, "torch.Tensor.to"): "fails",
    (18, "torch.cuda.amp.autocast"): "silent", (9, 'torch.autocast("cpu")'): "silent", (21, "torch.Tensor.is_cuda"): "silent",
    (22, "torch.cuda.synchronize"): "fails", (23, "torch.cuda.Stream"): "fails", (24, "torch.cuda.stream"): "fails",
    (25, "torch.device"): "carries", (25, "torch.zeros"): "fails", (27, "torch.load"): "fails", (28, "CUDA_VISIBLE_DEVICES"): "ignored",
    (29, '"cuda"'): "silent", (30, "torch.cuda.HalfTensor"): "fails", (31, "torch.set_default_device"): "carries",
}  # fmt: skip


def test_every_kind_of_touch_is_seen_where_it_is_with_what_the_stack_says(run_sapper: Run, tmp_path: Path) -> None:
    code, trial, said = tried(run_sapper, "--", "python", program(tmp_path, TIED[1:]))
    shifted = {(line - 1, symbol): outcome for (line, symbol), outcome in EXPECTED.items()}
    assert {key: outcomes(trial).get(key) for key in shifted} == shifted
    assert (code, trial["exit_code"], trial["verdict"]) == (1, 0, "touched"), said
    assert trial["launched_on_chip"] > 10 and trial["chip_share"] > 0.9
    assert {one["touch"]["says"] for one in trial["own"]} >= {"AssertionError: Torch not compiled with CUDA enabled", "False"}


def test_with_the_shim_what_it_takes_is_taken_and_the_rest_stays_silent(run_sapper: Run, tmp_path: Path) -> None:
    name = program(tmp_path, "import torch_npu\nfrom torch_npu.contrib import transfer_to_npu\n" + TIED)
    code, trial, _ = tried(run_sapper, "--no-scan", "--", "python", name)
    found = outcomes(trial)
    assert code == 1 and trial["exit_code"] == 0
    assert [found[line + 2, symbol] for line, symbol in ((15, "torch.cuda.is_available"), (16, "torch.nn.Module.cuda"))] == ["shim", "shim"]
    assert found[31, '"cuda"'] == "silent"


def test_strict_answers_as_the_stack_does(run_sapper: Run, tmp_path: Path) -> None:
    fallback = 'import torch\nd = "cuda" if torch.cuda.is_available() else "cpu"\nprint((torch.ones(3, device=d) + 1).sum())\n'
    fallen = program(tmp_path, fallback)
    code, trial, said = tried(run_sapper, "--strict", "--no-scan", "--", "python", fallen)
    assert (code, trial["verdict"], trial["launched_on_chip"]) == (1, "void", 0) and "tensor(6.)" in said and trial["on_host"]["add"] == 1
    failing = program(tmp_path, 'import torch\ntorch.ones(3).to("cuda")\n')
    code, trial, said = tried(run_sapper, "--strict", "--no-scan", "--", "python", failing)
    assert (code, trial["exit_code"]) == (1, 1) and "AssertionError: Torch not compiled with CUDA enabled" in said


def test_what_the_chip_lacks_is_told_and_done_all_the_same(run_sapper: Run, tmp_path: Path) -> None:
    text = """
    import torch

    a = torch.ones(3, 3, dtype=torch.float64, device="npu")
    print((a @ a).sum().item(), torch.heaviside(torch.ones(2, device="npu"), torch.ones(2, device="npu")))
    """
    code, trial, said = tried(run_sapper, "--no-scan", "--", "python", program(tmp_path, text))
    assert code == 1 and "27.0" in said
    assert {(one["touch"]["symbol"], one["touch"]["line"]) for one in trial["own"]} == {("op dtype:mm float64", 5), ("op:heaviside", 5)}
    assert trial["personality_source"].startswith("https://")


@pytest.mark.parametrize(("target", "device"), [("xpu", "xpu"), ("rocm", "cuda")])
def test_stacks_whose_device_pytorch_keeps_for_itself(run_sapper: Run, tmp_path: Path, target: str, device: str) -> None:
    text = f"""
    import torch

    device = torch.accelerator.current_accelerator()
    x = torch.ones(3, device="{device}")
    with torch.autocast(device.type, dtype=torch.bfloat16):
        y = torch.nn.functional.linear(x, torch.ones(2, 3, device=device))
    print(device, x.device, y.dtype, x.is_cuda if "{target}" == "rocm" else True, torch.{device}.device_count())
    fast = x.device.type == "cuda"
    """
    code, trial, said = tried(run_sapper, "--as", target, "--no-scan", "--", "python", program(tmp_path, text))
    assert f"{device} {device}:0 torch.bfloat16 True 1" in said
    assert (code, trial["verdict"]) == ((0, "clean") if target == "rocm" else (1, "touched"))
    assert outcomes(trial).get((9, '"cuda"')) == (None if target == "rocm" else "silent")
    assert all(one["touch"]["count"] == 1 for one in trial["own"] if one["touch"]["symbol"].startswith("torch.cuda."))


def test_two_processes_of_torchrun(run_sapper: Run, tmp_path: Path) -> None:
    text = """
    import os

    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    rank = int(os.environ["LOCAL_RANK"])
    dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
    torch.cuda.set_device(rank)
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.SyncBatchNorm(4), torch.nn.Linear(4, 4)).to(f"cuda:{rank}")
    model = torch.nn.parallel.DistributedDataParallel(net, device_ids=[rank])
    torch.manual_seed(rank)
    x = torch.randn(8, 4, device=f"cuda:{rank}")
    model(x).square().sum().backward()
    total = torch.tensor([rank + 1], device=f"cuda:{rank}")
    dist.all_reduce(total)
    sharded = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)).cuda()
    for layer in (*sharded, sharded):
        fully_shard(layer, mesh=init_device_mesh("cuda", (2,)))
    sharded(x).square().sum().backward()
    norm = sharded[0].weight.grad.full_tensor().norm().item()
    print(f"total {total.item()} {dist.get_backend()} {norm > 0}\\n", end="", flush=True)
    dist.destroy_process_group()
    """
    code, trial, said = tried(run_sapper, "--no-scan", "--", "torchrun", "--nproc-per-node", "2", program(tmp_path, text))
    assert (code, trial["exit_code"], trial["overran"]) == (1, 0, False), said
    assert said.count("total 3 hccl True") == 2
    group = next(one for one in trial["own"] if one["touch"]["kind"] == "collective")
    assert (group["touch"]["line"], group["touch"]["outcome"], group["processes"]) == (10, "fails", 2)
    assert outcomes(trial)[21, "torch.distributed.init_device_mesh"] == "fails"
    assert {unit["rank"] for unit in trial["processes"]} == {None, "0", "1"}


def test_what_the_emulation_cannot_run_is_said_and_not_laid_to_the_vendor(run_sapper: Run, tmp_path: Path) -> None:
    text = """
    import torch

    x = torch.ones(4, 3, device="npu") + 1
    torch.ops.aten._fused_dropout(x, 0.5)
    """
    code, trial, said = tried(run_sapper, "--no-scan", "--", "python", program(tmp_path, text))
    assert code == 2 and trial["verdict"] == "unfinished" and trial["own"] == [], said
    assert trial["remarks"] == [{"key": "unplayed", "values": {"op": "aten::_fused_dropout", "place": "program.py:5"}}]


def test_a_branch_for_the_vendor_gets_as_far_as_with_its_plug_in(run_sapper: Run, tmp_path: Path) -> None:
    text = """
    import torch
    import torch.nn.functional as F
    import torch_npu
    from torch_npu import npu_fusion_attention
    from torch_npu.npu.amp import GradScaler, autocast
    from torch_npu.optim import NpuFusedAdamW

    torch.manual_seed(0)
    query = torch.randn(2, 4, 8, 16, device="npu")
    key, value = torch.randn(2, 2, 2, 8, 16, device="npu")
    triangle = torch.ones(2048, 2048, device="npu").triu(1).bool()
    mine = F.scaled_dot_product_attention(query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), is_causal=True)
    for layout, there, back in (
        ("BNSD", lambda x: x, lambda x: x),
        ("BSND", lambda x: x.transpose(1, 2), lambda x: x.transpose(1, 2)),
        ("BSH", lambda x: x.transpose(1, 2).flatten(2), lambda x: x.unflatten(2, (4, 16)).transpose(1, 2)),
        ("SBH", lambda x: x.permute(2, 0, 1, 3).flatten(2), lambda x: x.unflatten(2, (4, 16)).permute(1, 2, 0, 3)),
        ("TND", lambda x: x.transpose(1, 2).flatten(0, 1), lambda x: x.unflatten(0, (2, 8)).transpose(1, 2)),
    ):
        found = npu_fusion_attention(
            there(query), there(key), there(value), 4, layout, atten_mask=triangle, scale=0.25, sparse_mode=3,
            actual_seq_qlen=[8, 16], actual_seq_kvlen=[8, 16],
        )[0]
        torch.testing.assert_close(back(found), mine, rtol=1e-5, atol=1e-5)
    weight = torch.rand(16, device="npu")
    torch.testing.assert_close(torch_npu.npu_rms_norm(query, weight, 1e-5)[0], F.rms_norm(query, (16,), weight, 1e-5))
    with autocast(dtype=torch.bfloat16):
        assert (query @ query.transpose(2, 3)).dtype == torch.bfloat16
    assert torch_npu.npu.current_device() == 0 and GradScaler().is_enabled() and isinstance(GradScaler(), GradScaler)
    class Own(GradScaler):
        pass
    assert Own(init_scale=2.0).get_scale() == 2.0
    from torch_npu.contrib import transfer_to_npu
    assert not hasattr(torch_npu, "made_up") and torch_npu.__version__ in torch.__version__
    try:
        NpuFusedAdamW([query])
    except NotImplementedError:
        print("not played")
    """
    code, trial, said = tried(run_sapper, "--no-scan", "--", "python", program(tmp_path, text))
    assert (code, trial["verdict"], trial["own"]) == (0, "clean", []) and "not played" in said, said
    assert trial["remarks"] == [
        {"key": "unlisted", "values": {"op": "torch_npu.made_up", "place": "program.py:35"}},
        {"key": "unplayed", "values": {"op": "torch_npu.optim.NpuFusedAdamW", "place": "program.py:37"}},
    ]


def test_a_neutral_program_on_transformers_is_clean(run_sapper: Run, tmp_path: Path) -> None:
    """The library looks for CUDA's packages and names CUDA in annotations, and on Ascend imports the vendor's attention."""
    pytest.importorskip("transformers")
    text = """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = LlamaForCausalLM._from_config(LlamaConfig(vocab_size=50, **sizes), attn_implementation="flash_attention_2")
    model = model.to(torch.accelerator.current_accelerator(), torch.bfloat16)
    tokens = torch.randint(50, (2, 8), device=model.device)
    model(input_ids=tokens, labels=tokens).loss.backward()
    """
    code, trial, said = tried(run_sapper, "--", "python", program(tmp_path, text))
    assert (code, trial["verdict"], trial["own"]) == (0, "clean", []), said
    assert all(one["touch"]["outcome"] in ("works", "carries") for one in trial["packages"])


def test_a_suite_of_pytest(run_sapper: Run, tmp_path: Path) -> None:
    text = """
    import pytest
    import torch

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_add():
        assert (torch.ones(3, device="cuda") + 1).sum().item() == 6
    """
    code, trial, said = tried(run_sapper, "--", "python", "-m", "pytest", "-q", program(tmp_path, text, "test_it.py"))
    assert (code, trial["exit_code"]) == (1, 0) and "1 passed" in said
    assert {(one["touch"]["line"], one["touch"]["function"]) for one in trial["own"]} == {(5, "<module>"), (7, "test_add")}
    assert trial["unlooked"] == []


def test_the_examples(run_sapper: Run, tmp_path: Path) -> None:
    """The tied one touches CUDA where it says; the neutral one, with workers, runs on the chip and touches nothing."""
    for name in ("nano.py", "neutral.py"):
        shutil.copy(ROOT / "examples" / "try" / name, tmp_path)
    code, trial, _ = tried(run_sapper, "--", "python", "nano.py")
    assert (code, trial["exit_code"]) == (1, 0) and outcomes(trial)[65, "torch.nn.Module.to"] == "fails"
    done = run_sapper("port", "try", "--as", "musa", "--", "python", "neutral.py")
    assert done.returncode == 0 and "on musa" in done.stdout and "CLEAN" in done.stdout, done.stdout
