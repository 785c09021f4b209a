"""A GPT of one page, trained as most people train one: tied to CUDA in the usual places, loud ones and silent ones.

    sapper port try -- python examples/try/nano.py
"""

import sys
from contextlib import nullcontext

from torch.nn import functional as F

import torch
from torch import nn

device = sys.argv[1] if len(sys.argv) > 1 else "cuda"
steps, batch, length, width, heads, vocab = 2, 4, 16, 32, 2, 40

torch.manual_seed(1337)
torch.backends.cuda.matmul.allow_tf32 = True
torch.backends.cudnn.allow_tf32 = True
device_type = "cuda" if "cuda" in device else "cpu"
ctx = nullcontext() if device_type == "cpu" else torch.amp.autocast(device_type=device_type, dtype=torch.bfloat16)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        q, k, v = (part.view(*part.shape[:2], heads, -1).transpose(1, 2) for part in self.qkv(self.norm(x)).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.out(y)
        return x + self.mlp(x)


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(width, vocab, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids, targets):
        places = torch.arange(ids.shape[1], device=ids.device)
        logits = self.head(self.blocks(self.tokens(ids) + self.places(places)))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


data = torch.randint(vocab, (2000,))


def get_batch():
    at = torch.randint(len(data) - length - 1, (batch,))
    x = torch.stack([data[i : i + length] for i in at])
    y = torch.stack([data[i + 1 : i + 1 + length] for i in at])
    if device_type == "cuda":
        return x.pin_memory().to(device, non_blocking=True), y.pin_memory().to(device, non_blocking=True)
    return x.to(device), y.to(device)


model = GPT().to(device)
scaler = torch.cuda.amp.GradScaler(enabled=False)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for step in range(steps):
    x, y = get_batch()
    with ctx:
        loss = model(x, y)
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    print(f"step {step}: loss {loss.item():.3f}")
if torch.cuda.is_available():
    print(f"{torch.cuda.max_memory_allocated() / 2**20:.1f} MiB")
torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "nano.pt")
