"""Defects of torch_xla 2.9.0 on its CPU device. Runs alone: pip install torch==2.9.0 torch_xla==2.9.0; PJRT_DEVICE=CPU python FILE."""

import os
import subprocess
import sys

os.environ.setdefault("PJRT_DEVICE", "CPU")

import torch.nn.functional as F
import torch_xla

import torch

NAN, INF = float("nan"), float("inf")
torch.manual_seed(0)
CASES = {
    "int64-floor-division": (lambda x: x // 7, torch.tensor([2**40, 2**53 + 1])),
    "int32-right-shift": (lambda x: x >> (x * 0 + 1), torch.tensor([-8, 8], dtype=torch.int32)),
    "norm-inf": (lambda x: x.norm(INF), torch.tensor([3.0, -5.0])),
    "layer-norm-large-mean": (lambda x: F.layer_norm(x, (64,)), torch.randn(1, 64) + 1000),
    "group-norm-large-mean": (lambda x: F.group_norm(x, 2), torch.randn(1, 4, 16) + 300),
    "amax-nan": (lambda x: x.amax(-1), torch.tensor([1.0, NAN, 2.0])),
    "maximum-nan": (lambda x: torch.maximum(x, x.flip(0)), torch.tensor([NAN, 1.0])),
    "max-pool-nan": (lambda x: F.max_pool1d(x, 2), torch.tensor([[NAN, 1.0]])),
    "logsumexp-inf": (lambda x: x.logsumexp(-1), torch.tensor([INF, 1.0])),
    "fp16-mean-overflow": (lambda x: x.mean(), torch.full((64,), 3e4, dtype=torch.float16)),
    "fp16-layer-norm-overflow": (lambda x: F.layer_norm(x, (64,)), (torch.randn(1, 64) * 1e4).half()),
    "cumsum-bool-dtype": (lambda x: x.cumsum(0), torch.tensor([True, True])),
    "rfft-abs-dtype": (lambda x: torch.fft.rfft(x).abs(), torch.ones(4)),
    "avg-pool-stale": (
        lambda x: (F.avg_pool2d(x, 2, 1, 1).cpu(), F.avg_pool2d(x, 2, 1, 1, divisor_override=2))[1], torch.arange(9.0).view(1, 1, 3, 3),
    ),
    "cumsum-0d": (lambda x: x.cumsum(0), torch.tensor(2.0)),
    "softmax-0d": (lambda x: x.softmax(0), torch.tensor(2.0)),
    "index-select-0d": (lambda x: x.index_select(0, torch.zeros(1, dtype=torch.int64, device=x.device)), torch.tensor(2.0)),
    "index-add-0d": (lambda x: x.index_add(0, torch.zeros(1, dtype=torch.int64, device=x.device), x), torch.tensor(2.0)),
}
for name, (function, x) in CASES.items():
    expected = function(x)
    try:
        got = function(x.to(torch_xla.device())).cpu()
    except RuntimeError as error:
        got = str(error).splitlines()[0]
    same = isinstance(got, torch.Tensor) and got.dtype == expected.dtype
    same = same and (torch.allclose(got, expected, 1e-3, equal_nan=True) if got.is_floating_point() else torch.equal(got, expected))
    print("ok    " if same else "DEFECT", name, "expected", expected.dtype, expected.flatten()[:3].tolist(), "got", end=" ")
    print((got.dtype, got.flatten()[:3].tolist()) if isinstance(got, torch.Tensor) else got)
# Ends the process, so it has one of its own.
EMPTY = "import torch, torch_xla; torch.zeros(0, 3).to(torch_xla.device()).roll(0, 0).cpu()"
status = subprocess.run([sys.executable, "-c", EMPTY], capture_output=True, check=False).returncode
print("DEFECT" if status else "ok    ", "roll-empty expected exit 0 got", status)
