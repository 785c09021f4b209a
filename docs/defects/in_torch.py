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
}
for name, code in CASES.items():
    done = subprocess.run([sys.executable, "-c", f"import torch\n{code}"], capture_output=True, text=True, check=False)
    said = done.stdout.strip() or done.stderr.strip().splitlines()[-1:] or f"signal {-done.returncode}"
    print("ok    " if done.returncode == 0 else "DEFECT", name, "expected numbers or an error", "got", said)
