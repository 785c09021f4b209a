"""How fast predict is: a search of 100,000 and more plans, and one prediction on its own.

    python benchmarks/predict_speed.py                      # figures of this machine, as JSON lines
    python benchmarks/predict_speed.py --calculon FOLDER    # with Calculon's checkout beside it, same run, same question

Both answer GPT-3 175B on 4,096 A100. Calculon (Apache-2.0, calculon-ai/calculon) is not on PyPI; bring it yourself.
Absolute times depend on the machine; the ratio within one run is what counts.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path

from sapper.clusters import parse_cluster
from sapper.predict import Plan, TrainJob, predict_train
from sapper.predict.search import rank
from sapper.workloads import load

CHIPS = 4096
BATCH = 4096
RUNS = 5


def searched(model: str, cluster: str, *, seq_len: int, batch: int) -> dict[str, object]:
    """Plans, seconds of the whole search (enumerating, pricing, ranking) and of one plan in it; median of RUNS."""
    job = TrainJob(workload=load(model).workload(seq_len), global_batch=batch)
    where = parse_cluster(cluster)
    plans, times = 0, []
    for _ in range(RUNS):
        start = time.perf_counter()
        plans = len(rank(job, where).step_s)
        times.append(time.perf_counter() - start)
    search_s = statistics.median(times)
    return {
        "question": f"{model} on {cluster}, sequence {seq_len}, batch {batch}",
        "plans": plans,
        "search_s": search_s,
        "amortised_s": search_s / plans,
        "per_100k_plans_s": 1e5 * search_s / plans,
    }


def sapper_figures() -> dict[str, object]:
    """A dense model, a mixture with long sequences whose space has more than 100,000 plans, and one estimate whole."""
    dense = searched("gpt3-175b", f"{CHIPS}x a100-sxm-80gb", seq_len=2048, batch=BATCH)
    large = searched("deepseek-v3", "6144x h100-sxm-80gb", seq_len=131072, batch=12288)
    job = TrainJob(workload=load("gpt3-175b").workload(2048), global_batch=BATCH, precision="fp16")
    cluster = parse_cluster(f"{CHIPS}x a100-sxm-80gb")
    plan = Plan(tp=8, pp=16, dp=CHIPS // 128, micro_batch=2, recompute="selective")
    one = []
    for _ in range(20):
        start = time.perf_counter()
        predict_train(job, cluster, plan)
        one.append(time.perf_counter() - start)
    return {"dense": dense, "large": large, "one_estimate_s": statistics.median(one)}


def calculon_figures(folder: Path) -> dict[str, float]:
    """Seconds of one call of Calculon's model on the same question."""
    sys.path.insert(0, str(folder))
    import logging

    from calculon.llm import Llm  # type: ignore[import-not-found]
    from calculon.system import System  # type: ignore[import-not-found]

    application = Llm.Application(json.loads((folder / "models/gpt3-175B.json").read_text()))
    system = System(json.loads((folder / "systems/a100_80g.json").read_text()))
    execution = {
        "num_procs": CHIPS,
        "tensor_par": 8,
        "pipeline_par": 16,
        "data_par": CHIPS // 128,
        "tensor_par_net": 0,
        "pipeline_par_net": 1,
        "data_par_net": 1,
        "batch_size": BATCH,
        "microbatch_size": 2,
        "datatype": "float16",
        "fused_activation": True,
        "attention_type": "multihead",
        "activation_recompute": "attn_only",
        "pipeline_interleaving": 1,
        "optimizer_sharding": True,
        "tensor_par_comm_type": "rs_ag",
        "tensor_par_overlap": "none",
        "seq_par_ag_redo": False,
        "data_par_overlap": True,
        "weight_offload": False,
        "activations_offload": False,
        "optimizer_offload": False,
        "training": True,
    }
    times = []
    for _ in range(50):
        start = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            llm = Llm(application, logging.getLogger("calculon"))
            llm.compile(system, Llm.Execution.from_json(execution))
            llm.run(system)
        times.append(time.perf_counter() - start)
    return {"one_call_s": statistics.median(times)}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calculon", type=Path)
    folder = parser.parse_args().calculon
    found: dict[str, object] = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "sapper": sapper_figures(),
    }
    if folder is not None:
        theirs = calculon_figures(folder)
        found["calculon"] = theirs
        found["calculon_call_over_sapper_plan"] = theirs["one_call_s"] / found["sapper"]["dense"]["amortised_s"]  # type: ignore[index]
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
