"""Defects of PyTorch 2.11 on an NVIDIA GPU. pip install torch==2.11.0, with CUDA 13.0."""

import subprocess
import sys

CASES = {
    "cdist-zero-nan": """
one, other = torch.tensor([[1.0, float("nan")]]), torch.tensor([[2.0, 3.0]])
print(torch.cdist(one, other, 0.0).item(), torch.cdist(one.cuda(), other.cuda(), 0.0).item())
""",
    "pdist-zero-nan": """
rows = torch.tensor([[1.0, float("nan")], [2.0, 3.0]])
print(F.pdist(rows, 0.0).item(), F.pdist(rows.cuda(), 0.0).item())
""",
    "pdist-inf-nan": """
rows = torch.tensor([[1.0, float("nan")], [2.0, 3.0]])
print(F.pdist(rows, float("inf")).item(), F.pdist(rows.cuda(), float("inf")).item())
""",
    "upsample-antialias-no-images": """
image = torch.zeros(0, 3, 4, 4)
how = {"size": (2, 2), "mode": "bilinear", "antialias": True}
print(list(F.interpolate(image, **how).shape), list(F.interpolate(image.cuda(), **how).shape))
""",
}
for name, code in CASES.items():
    text = f"import torch\nimport torch.nn.functional as F\n{code}"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=False)
    on_cpu, _, on_gpu = done.stdout.strip().rpartition(" ")
    print("ok    " if on_cpu == on_gpu != "" else "DEFECT", name, done.stdout.strip() or done.stderr.strip().splitlines()[-1:])
