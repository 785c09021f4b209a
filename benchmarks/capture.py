"""How long a capture takes, in how much memory, and how far it is from the config route.

    python benchmarks/capture.py deepseek-v3 --seq 4096
    python benchmarks/capture.py llama-3-8b qwen3-30b-a3b mixtral-8x7b --seq 1024 --jsonl results.jsonl

Each model is captured in a process of its own; peak memory is the process's largest resident set, PyTorch included. Step
times are those of ``predict train`` for both routes on 8 chips, data parallel with ZeRO 3, one sequence a micro-batch.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time

CHIPS = ("8x h100-sxm", "8x ascend-910b2")


def one(name: str, seq: int) -> dict[str, object]:
    """Capture ``name`` here and compare it with its config."""
    begun = time.perf_counter()
    from sapper.capture import capture
    from sapper.workloads import load

    found = capture(name, seq=None if load(name).fixed_seq_len else seq)
    elapsed_s, cpu_s = time.perf_counter() - begun, time.process_time()
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    import transformers

    import torch
    from sapper.clusters import parse_groups
    from sapper.predict import Plan, TrainJob, predict_train
    from sapper.workloads.captured import as_model

    model = load(name)
    ours, theirs = model.workload(model.fixed_seq_len or found.seq_len), as_model(found, source=name).workload()
    row: dict[str, object] = {
        "model": name, "seq_len": found.seq_len, "params": found.params, "elapsed_s": round(elapsed_s, 1),
        "cpu_s": round(cpu_s, 1), "peak_bytes": peak_bytes,
        "calls": sum(op.count for op in found.ops), "unpriced": [entry.op for entry in found.unpriced],
        "params_ratio": theirs.params / ours.params, "flops_ratio": theirs.flops() / ours.flops(),
        "flops_full_ratio": theirs.flops(convention="full") / ours.flops(convention="full"),
        "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
    }  # fmt: skip
    plan = Plan(dp=8, zero=3)
    for chip in CHIPS:
        cluster = parse_groups(chip)[0]
        want, got = (predict_train(TrainJob(workload=workload, global_batch=64), cluster, plan) for workload in (ours, theirs))
        row[f"step_ratio {chip}"] = round(got.step_time.mid / want.step_time.mid, 4)
        row[f"memory_ratio {chip}"] = round(got.memory.peak.mid / want.memory.peak.mid, 4)
    return row


def main() -> None:
    """Run each model apart and print a line of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--seq", type=int, default=1024)
    parser.add_argument("--jsonl", help="append the rows to this file")
    parser.add_argument("--here", action="store_true", help="in this process (used for each model)")
    given = parser.parse_args()
    if given.here:
        print(json.dumps(one(given.models[0], given.seq)))
        return
    for name in given.models:
        line = [sys.executable, __file__, name, "--seq", str(given.seq), "--here"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1]}")
            continue
        row = json.loads(done.stdout.strip().splitlines()[-1])
        print(
            f"{name}: {row['elapsed_s']} s ({row['cpu_s']} s of CPU), {row['peak_bytes'] / 2**30:.2f} GiB, {row['calls']:,} calls; "
            f"params x{row['params_ratio']:.4f}, FLOPs x{row['flops_ratio']:.4f}, "
            + ", ".join(f"{key} x{value}" for key, value in row.items() if key.startswith(("step", "memory")))
        )
        if given.jsonl:
            with open(given.jsonl, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
