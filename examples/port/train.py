"""A training script of the kind that is everywhere: written on one NVIDIA box, and tied to CUDA in more places than it says."""

from __future__ import annotations

import os

import torch.distributed as dist
from devices import pick
from torch.cuda.amp import GradScaler, autocast
from torch.nn.parallel import DistributedDataParallel

import torch


def main() -> None:
    """Two hundred steps of a small model."""
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    dist.init_process_group("nccl")
    torch.cuda.set_device(rank)
    torch.backends.cuda.matmul.allow_tf32 = True

    device = pick(rank)
    use_amp = torch.cuda.is_available()
    model = DistributedDataParallel(torch.nn.Linear(1024, 1024).cuda(rank), device_ids=[rank])
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    scaler = GradScaler(enabled=use_amp)

    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(200):
        batch = torch.randn(64, 1024, device=device)
        with autocast(enabled=use_amp):
            loss = model(batch).square().mean()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
    end.record()
    torch.cuda.synchronize()
    print(f"{start.elapsed_time(end) / 200:.2f} ms a step, {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")
    torch.save({"model": model.state_dict(), "rng": torch.cuda.get_rng_state()}, "last.pt")


if __name__ == "__main__":
    main()
