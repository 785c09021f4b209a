"""Whole training steps on the device at hand, and what predict says of each: a check on runs that no prior has seen.

    python benchmarks/device_steps.py --device cuda --out steps.jsonl                     # where the device is
    python benchmarks/device_steps.py --predict steps.jsonl --chip h100-sxm-80gb          # anywhere

Each case is a process of its own: weights in fp32, forward and backward under autocast to bf16, fused AdamW, one micro-batch a
step, inputs drawn at random. The time is the median step of two seconds' worth after three to warm up, between two waits for the
device; memory is PyTorch's own greatest `allocated` and `reserved` bytes.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

CAPTURED = Path(__file__).parents[1] / "examples" / "capture"
CASES = {
    "qwen2.5-0.5b": ("qwen2.5-0.5b", 4, 2048), "llama-3.2-1b": ("llama-3.2-1b", 4, 2048), "llama-3.2-3b": ("llama-3.2-3b", 1, 2048),
    "gpt-neo-2.7b": ("gpt-neo-2.7b", 1, 2048), "bert-large": ("bert-large-uncased", 32, 512),
    "resnet": ("resnet.py:build", 256, None), "vit": ("vit.py:build", 256, None), "dit": ("dit.py:build", 64, None),
    "unet": ("unet.py:build", 256, None), "whisper": ("whisper_encoder.py:build", 8, None), "moe": ("moe.py:build", 8, 1024),
    "dlrm": ("dlrm.py:build", 8192, None), "mamba": ("mamba.py:build", 16, 32),
}  # fmt: skip
"""Name -> (program, samples, tokens of a sample)."""
COMPILED = ("llama-3.2-1b", "bert-large", "resnet", "vit")
"""Cases that also run under torch.compile."""
WARM_UP, SECONDS, FEWEST = 3, 2.0, 5


def measured(name: str, *, device: str, compiled: bool) -> dict[str, Any]:
    """Run one case in this process."""
    from torch.utils._pytree import tree_map

    import torch
    from sapper.programs.opened import open_program, redrawn

    target, batch, seq = CASES[name]
    path = str(CAPTURED / target) if ".py" in target else target
    with torch.device(device):
        program = open_program(path, batch=batch, seq=seq).program
    if ".py" in target:  # their inputs are zeros, on which some kernels are faster
        program = redrawn(program, seed=0, draw=1)
        program = dataclasses.replace(program, inputs=tree_map(lambda one: one.to(device), program.inputs))
    module = program.module.train().to(device)
    optimizer = torch.optim.AdamW([weight for weight in module.parameters() if weight.requires_grad], lr=1e-4, fused=True)
    runtime = torch.get_device_module(device)
    if compiled:
        module.compile()

    def step() -> None:
        with torch.autocast(device, torch.bfloat16) if device != "cpu" else contextlib.nullcontext():
            loss = program.loss_of(program.call())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def timed_s() -> float:
        runtime.synchronize()
        begun = time.perf_counter()
        step()
        runtime.synchronize()
        return time.perf_counter() - begun

    for _ in range(WARM_UP):
        timed_s()
    runtime.reset_peak_memory_stats()
    times_s: list[float] = []
    while len(times_s) < FEWEST or sum(times_s) < SECONDS:
        times_s.append(timed_s())
    low_s, mid_s, high_s = statistics.quantiles(times_s, n=4)
    free_bytes, total_bytes = runtime.mem_get_info()
    return {
        "case": name, "mode": "compile" if compiled else "eager", "batch": batch, "seq_len": seq,
        "step_s": mid_s, "low_s": low_s, "high_s": high_s,
        "steps": len(times_s), "allocated_bytes": runtime.max_memory_allocated(), "reserved_bytes": runtime.max_memory_reserved(),
        "taken_bytes": total_bytes - free_bytes, "params": sum(weight.numel() for weight in module.parameters()),
        "device": runtime.get_device_name(), "torch": torch.__version__, "date": date.today().isoformat(),
    }  # fmt: skip


def measure_all(device: str, out: Path, *, only: list[str]) -> None:
    """Each case in a process of its own; a line as soon as it is measured."""
    for name, mode in [*((name, "eager") for name in only), *((name, "compile") for name in only if name in COMPILED)]:
        command = [sys.executable, __file__, "--device", device, "--here", f"{name}:{mode}"]
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        line = ended.stdout.strip().rpartition("\n")[2] if not ended.returncode else json.dumps(
            {"case": name, "mode": mode, "failed": ended.stderr.strip().rpartition("\n")[2]}
        )  # fmt: skip
        print(line, flush=True)
        with out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def predicted(row: dict[str, Any], chip: str) -> dict[str, Any]:
    """What ``predict train`` says of the captured program: medians and 80% intervals of time (s) and memory (bytes)."""
    from sapper.capture import capture
    from sapper.clusters import parse_groups
    from sapper.predict import Plan, TrainJob, predict_train
    from sapper.workloads.captured import as_model

    target, batch, seq = CASES[row["case"]]
    found = capture(str(CAPTURED / target) if ".py" in target else target, seq=seq)
    workload = as_model(found, source=target).workload()
    job = TrainJob(workload=workload, global_batch=batch, stack="eager", vocab_padded=False)
    got = predict_train(job, parse_groups(f"1x {chip}")[0], Plan(micro_batch=batch))
    time_s, memory = got.step_time, got.memory.peak
    return {
        "time_s": [time_s.low, time_s.mid, time_s.high], "memory_bytes": [memory.low, memory.mid, memory.high],
    }  # fmt: skip


def compare(path: Path, chip: str) -> None:
    """A line for each measured case: measured, predicted, error, inside the interval or not."""
    print(f"{'case':14}{'mode':9}{'step':>9}{'predicted':>11}{'80% interval':>19}{'error':>8}  {'memory':>8}{'predicted':>11}{'error':>8}")
    errors: dict[str, list[float]] = {"eager": [], "compile": []}
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        if "failed" in row:
            print(f"{row['case']:14}{row['mode']:9}failed: {row['failed']}")
            continue
        said = predicted(row, chip)
        (low, mid, high), (_, memory, _) = said["time_s"], said["memory_bytes"]
        error, held = mid / row["step_s"] - 1, low <= row["step_s"] <= high
        taken = row["taken_bytes"]
        errors[row["mode"]].append(abs(error))
        print(
            f"{row['case']:14}{row['mode']:9}{row['step_s'] * 1e3:7.1f} ms{mid * 1e3:8.1f} ms{low * 1e3:9.1f}-{high * 1e3:.1f}"
            f"{'  in' if held else ' out':>5}{error:+8.1%}  {taken / 2**30:6.1f} G{memory / 2**30:8.1f} G{memory / taken - 1:+8.1%}"
        )
    for mode, found in errors.items():
        if found:
            print(f"{mode}: {len(found)} cases, mean error {statistics.mean(found):.1%}, median {statistics.median(found):.1%}")


def main() -> None:
    """Measure here, or predict what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=Path("steps.jsonl"))
    parser.add_argument("--only", help="cases, separated by commas")
    parser.add_argument("--here", help="CASE:MODE, in this process (used for each case)")
    parser.add_argument("--predict", type=Path, help="compare this file's steps with the predictions")
    parser.add_argument("--chip", help="the catalogue's name of the chip, with --predict")
    given = parser.parse_args()
    if given.predict:
        compare(given.predict, given.chip)
    elif given.here:
        name, _, mode = given.here.partition(":")
        print(json.dumps(measured(name, device=given.device, compiled=mode == "compile")))
    else:
        measure_all(given.device, given.out, only=given.only.split(",") if given.only else list(CASES))


if __name__ == "__main__":
    main()
