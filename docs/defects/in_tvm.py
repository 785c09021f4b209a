"""Defects of TVM 0.27.0.post1's PyTorch frontend and compiler. pip install torch==2.13.0 apache-tvm==0.27.0.post1."""

import torch.nn.functional as F
import tvm
from tvm import relax
from tvm.relax.frontend.torch import from_exported_program

import torch

NAN = float("nan")
layer_norm = torch.ops.aten.native_layer_norm
CASES = {
    "layer-norm-mean": (lambda x: layer_norm(x, [4], None, None, 1e-5)[1], torch.tensor([[1.0, 2.0, 3.0, 4.0]])),
    "layer-norm-rstd": (lambda x: layer_norm(x, [4], None, None, 1e-5)[2], torch.tensor([[1.0, 2.0, 3.0, 4.0]])),
    "int-true-division": (lambda x: x / (x * 0 + 2), torch.tensor([-7, 7])),
    "int64-floor-division": (lambda x: x // 7, torch.tensor([100])),
    "relu-nan": (F.relu, torch.tensor([NAN, 1.0])),
    "clamp-nan": (lambda x: x.clamp(-1, 1), torch.tensor([NAN, 1.0])),
    "sort-nan": (lambda x: x.sort()[0], torch.tensor([1.0, NAN, 3.0, 2.0])),
    "expm1-small": (torch.expm1, torch.tensor([1e-8, 1e-4])),
    "log1p-small": (torch.log1p, torch.tensor([1e-8, 1e-4])),
    "uint8-negate": (torch.neg, torch.tensor([250, 3], dtype=torch.uint8)),
    "avg-pool-divisor": (lambda x: F.avg_pool2d(x, 2, 1, divisor_override=2), torch.arange(9.0).view(1, 1, 3, 3)),
    "logaddexp": (lambda x: torch.logaddexp(x, x), torch.tensor([1.0])),
    "heaviside": (lambda x: torch.heaviside(x, x), torch.tensor([1.0, 0.0])),
    "group-norm": (lambda x: F.group_norm(x, 2), torch.arange(8.0).view(1, 4, 2)),
}
for name, (function, x) in CASES.items():

    class Module(torch.nn.Module):
        def forward(self, x):
            return function(x)

    expected = function(x)
    try:
        built = tvm.compile(from_exported_program(torch.export.export(Module(), (x,))), target="llvm")
        got = torch.from_dlpack(relax.VirtualMachine(built, tvm.cpu())["main"](tvm.runtime.from_dlpack(x))[0])
    except Exception as error:
        print("DEFECT", name, "expected", expected.flatten().tolist(), "got", type(error).__name__, str(error).splitlines()[0][:150])
        continue
    same = got.shape == expected.shape and got.dtype == expected.dtype
    same = same and torch.allclose(got, expected, rtol=1e-4, atol=0, equal_nan=True)
    print("ok    " if same else "DEFECT", name, "expected", expected.flatten().tolist(), "got", got.dtype, got.flatten().tolist())
