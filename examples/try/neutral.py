"""A small classifier for any accelerator: the same lines run on CUDA, on a plug-in's device and on the CPU.

    sapper port try --as musa -- python examples/try/neutral.py
"""

from torch.utils.data import DataLoader, TensorDataset

import torch
from torch import nn

device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")

torch.manual_seed(0)
images, labels = torch.randn(32, 1, 12, 12), torch.randint(4, (32,))
loader = DataLoader(TensorDataset(images, labels), batch_size=16, num_workers=2, pin_memory=True)
model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(200, 4)).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
scaler = torch.amp.GradScaler(device.type, enabled=device.type != "cpu")
for epoch in range(1):
    for batch in loader:
        x, y = (one.to(device, non_blocking=True) for one in batch)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    print(f"epoch {epoch}: loss {loss.item():.3f} on {device.type}")
if device.type != "cpu":
    torch.accelerator.synchronize()
