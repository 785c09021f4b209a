"""What watching a training step costs: processor time of a whole step, plain and under each way of proving it.

    python benchmarks/prove/cost.py --out benchmarks/prove/results/cost.json
    python benchmarks/prove/cost.py --device cuda --dim 2048 --layers 8 --tokens 1024

Processor time on one thread, since wall time on a shared machine is noise; on another device than the processor wall time, between
two waits for it, and the processor that computes the truth has `--threads` threads. The ways take turns, and the median of their
ratios to the plain step beside them is reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from models import VOCABULARY, Attention, Decoder, Layer, Step, feed_forward

import torch
from sapper import memory
from sapper.prove.model.fingerprint import Fingerprints
from sapper.prove.model.shadow import Shadow
from sapper.prove.model.tracker import Tracker
from torch import nn


def gpt(device: str, *, dim: int, layers: int, tokens: int, batch: int) -> Step:
    """A GPT of a size whose ops, not Python, take the time: about a step of a small real model on a CPU."""
    torch.manual_seed(0)
    stack = [Layer(nn.LayerNorm, Attention(dim, dim // 32, causal=True, fused=True), feed_forward(dim, nn.GELU())) for _ in range(layers)]
    module = Decoder(dim, list(stack), nn.LayerNorm, positions=True)
    module.positions = nn.Embedding(tokens, dim)
    module.to(device)
    inputs, target = (torch.randint(0, VOCABULARY, (batch, tokens)).to(device) for _ in range(2))
    return Step("gpt", module, (inputs,), target, torch.optim.AdamW(module.parameters(), lr=1e-3, foreach=True))


def shadowed(step: Step, *, device: str, share: float) -> int:
    """One step under the shadow; returns how many ops it judged."""
    shadow = Shadow(Tracker(), device=device, share=share)
    names = {"forward": "forward", "backward": "backward", "step": "optimizer"}
    weights = dict(step.module.named_parameters())
    with shadow.watching(step.module):
        step.run(lambda phase: shadow.begin(names[phase], weights))  # type: ignore[arg-type]
    return shadow.tally.judged


def fingerprinted(step: Step, device: str) -> Fingerprints:
    """One step with the fingerprints of its ops, layers and updated weights."""
    taken = Fingerprints(device=device, on_host=False)
    names = {"forward": "forward", "backward": "backward", "step": "optimizer"}
    weights = dict(step.module.named_parameters())
    with taken.watching(step.module):
        step.run(lambda phase: taken.begin(names[phase], weights))  # type: ignore[arg-type]
    taken.values(tuple(f"updated {name}" for name in weights), list(weights.values()))
    return taken


def taken_s(run: Callable[[], object], device: str) -> float:
    """Processor time of a call, in seconds; on another device than the processor the time until the device has done its part."""
    if device == "cpu":
        begun = time.process_time()
        run()
        return time.process_time() - begun
    torch.get_device_module(device).synchronize()
    begun = time.perf_counter()
    run()
    torch.get_device_module(device).synchronize()
    return time.perf_counter() - begun


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    memory.keep_freed()  # as the processes of a proof do, for the plain step too
    step = gpt(given.device, dim=given.dim, layers=given.layers, tokens=given.tokens, batch=given.batch)
    ways: dict[str, Callable[[], object]] = {
        "fingerprints": lambda: fingerprinted(step, given.device),
        "full fp64 shadow": lambda: shadowed(step, device=given.device, share=1.0),
        "sampled shadow, one op in ten": lambda: shadowed(step, device=given.device, share=0.1),
    }
    step.run()
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    plain: list[float] = []
    for _ in range(given.rounds):
        for name, way in ways.items():
            plain.append(taken_s(step.run, given.device))
            ratios[name].append(taken_s(way, given.device) / plain[-1])
    result = {
        "params": sum(one.numel() for one in step.module.parameters()), "tokens": given.tokens * given.batch,
        "threads": given.threads, "device": given.device,
        "torch": torch.__version__, "plain_s": statistics.median(plain),
        "ratios": {name: {"median": statistics.median(one), "least": min(one), "most": max(one)} for name, one in ratios.items()},
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
