"""Defects of PyTorch 2.13 on a CPU. pip install torch==2.13.0 numpy."""

import subprocess
import sys

CASES = {
    "chunk-cat-0d": "print(torch._chunk_cat([torch.tensor(1.0), torch.tensor(2.0)], 0, 2))",
    "max-unpool3d-strided-indices": """
x = torch.randn(1, 2, 2, 2, 4, requires_grad=True)
indices = torch.arange(16).view(1, 1, 2, 2, 4).expand(1, 2, 2, 2, 4)
indices = indices.transpose(-1, -2).contiguous().transpose(-1, -2)
torch.nn.functional.max_unpool3d(x, indices, 2).sum().backward()
print(x.grad.sum())
""",
    "polynomials-nan": """
degree, found = torch.tensor([5.0]), []
for name in ("legendre_polynomial_p", "laguerre_polynomial_l", "chebyshev_polynomial_u", "chebyshev_polynomial_w"):
    function, x = getattr(torch.special, name), torch.tensor([torch.nan])
    function(torch.tensor([0.3]), degree)
    found.append(function(x, degree).item())
print("of NaN, after 0.3:", found)
assert all(one != one for one in found)
""",
    "margin-loss-empty": """
targets = torch.zeros(0, dtype=torch.int64)
found = [torch.nn.functional.multi_margin_loss(torch.zeros(0, 5), targets).item() for _ in range(5)]
print("five times the same loss:", found)
assert len(set(map(str, found))) == 1
""",
    "multilabel-margin-loss-empty": """
targets = torch.zeros(0, 5, dtype=torch.int64)
found = [torch.nn.functional.multilabel_margin_loss(torch.zeros(0, 5), targets).item() for _ in range(5)]
print("five times the same loss:", found)
assert len(set(map(str, found))) == 1
""",
    "cdist-inf-nan": """
one, other = torch.tensor([[1.0, torch.nan]]), torch.tensor([[2.0, 3.0]])
found = torch.cdist(one, other, torch.inf).item()
print("of NaN:", found, "where pdist gives", torch.nn.functional.pdist(torch.cat([one, other]), torch.inf).item())
assert found != found
""",
    "convolution-bf16-sums": """
ones = lambda *shape: torch.ones(*shape, dtype=torch.bfloat16)
with torch.backends.mkldnn.flags(enabled=False):
    weight = ones(1, 1, 1, 1).requires_grad_()
    torch.conv2d(ones(1024, 1, 8, 8), weight).sum().backward()
    transposed = torch.conv_transpose2d(ones(1, 1, 33, 33), ones(1, 1, 33, 33)).max().item()
print("weight gradient:", weight.grad.item(), "transposed:", transposed)
assert weight.grad.item() == 65536 and transposed == 1088
""",
}
for name, code in CASES.items():
    done = subprocess.run([sys.executable, "-c", f"import torch\n{code}"], capture_output=True, text=True, check=False)
    said = done.stdout.strip() or done.stderr.strip().splitlines()[-1:] or f"signal {-done.returncode}"
    print("ok    " if done.returncode == 0 else "DEFECT", name, "expected numbers or an error", "got", said)
