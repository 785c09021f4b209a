"""How fast predict is, beside the peers that are installed: the same questions, one run, so that the ratios hold.

    python benchmarks/predict_speed.py                                     # Sapper alone, as JSON
    python benchmarks/predict_speed.py --work ~/peers --calculon FOLDER    # with the environments of benchmarks/peers/run.py

Times are CPU seconds of one process with one thread, medians. Training: GPT-3 175B on 4,096 A100, and the search over the legal
plans of DeepSeek-V3 on 6,144 H100 (more than 100,000). Serving: Llama-2-7B on one A100, one batch; Qwen3-32B on four H100, 16
users at once; a stream of 10,000 requests; the fewest H100 that serve Qwen3-32B at 20 requests a second within limits.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent / "peers"))

from asking import put
from environments import PEERS
from row_sets import ROW_SETS, SHIPPED, read

from sapper.clusters import parse_cluster
from sapper.predict import Plan, TrainJob, predict_train
from sapper.predict.search import rank
from sapper.predict.serve import ServeJob, ServePlan, price
from sapper.predict.serve.answer import ServeAnswer
from sapper.predict.serve.deployment import Deployment
from sapper.predict.serve.question import ServeQuestion
from sapper.predict.serve.search import answer_serve
from sapper.predict.serve.simulate import simulate
from sapper.predict.serve.slo import Slo
from sapper.predict.serve.target import Target
from sapper.predict.serve.traffic import Length, Traffic
from sapper.workloads import load

RUNS = 5
REQUESTS = 10_000
GPT3 = {
    "chip": "NVIDIA A100 SXM 80GB", "chip_id": "nvidia-a100-sxm-80gb", "n_chips": 4096,
    "model": {"name": "GPT-3", "layers": 96, "hidden": 12288, "heads": 96, "ffn": 49152, "vocab": 51200, "seq_len": 2048},
    "global_batch": 4096, "micro_batch": 2, "parallel": {"tp": 8, "pp": 16, "dp": 32, "zero": 1}, "precision": "fp16",
    "recompute": "selective",
}
LLAMA = {
    "chip": "NVIDIA A100 SXM 80GB", "chip_id": "nvidia-a100-sxm-80gb",
    "model": {"name": "Llama-2-7b", "layers": 32, "hidden": 4096, "heads": 32, "ffn": 11008, "vocab": 32000},
    "batch": 16, "input_len": 1024, "output_len": 1024, "parallel": {"tp": 1}, "precision": "bf16",
}
SLO = {
    "model": "Qwen/Qwen3-32B", "system": "h100_sxm", "backend": "vllm", "input_len": 1024, "output_len": 256,
    "slo": {"rate_per_s": 20.0, "ttft_s": 2.0, "tpot_s": 0.05},
}
"""The question of :func:`sized` as aiconfigurator takes it."""
QWEN = "silicon-qwen_qwen3_32b_qwen_qwen3_32b_h100_sxm_vllm_agg_1024x1024_c16_tp4_epnone_35"
"""The row of aiconfigurator's sample that asks the question of :func:`users`."""


def cpu_s(work: Callable[[], object], *, runs: int = RUNS) -> float:
    """Median CPU seconds of ``work`` after one run that fills the caches."""
    work()
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return statistics.median(times)


def searched(model: str, cluster: str, *, seq_len: int, batch: int) -> dict[str, object]:
    """Plans of a search (enumerated, priced, ranked), its CPU seconds, and those of one plan in it."""
    job = TrainJob(workload=load(model).workload(seq_len), global_batch=batch)
    where = parse_cluster(cluster)
    plans = len(rank(job, where).step_s)
    search_s = cpu_s(lambda: rank(job, where))
    return {
        "question": f"{model} on {cluster}, sequence {seq_len}, batch {batch}", "plans": plans, "search_cpu_s": search_s,
        "plan_cpu_s": search_s / plans, "per_100k_plans_cpu_s": 1e5 * search_s / plans,
    }


def training() -> dict[str, Any]:
    """One whole estimate, a search for a dense model, and one over more than 100,000 plans."""
    job = TrainJob(workload=load("gpt3-175b").workload(2048), global_batch=4096, precision="fp16")
    cluster = parse_cluster("4096x a100-sxm-80gb")
    plan = Plan(tp=8, pp=16, dp=32, micro_batch=2, recompute="selective")
    return {
        "one_estimate_cpu_s": cpu_s(lambda: predict_train(job, cluster, plan), runs=20),
        "dense": searched("gpt3-175b", "4096x a100-sxm-80gb", seq_len=2048, batch=4096),
        "large": searched("deepseek-v3", "6144x h100-sxm-80gb", seq_len=131072, batch=12288),
    }


def users(count: int, requests: int) -> Callable[[], object]:
    """Qwen3-32B on four H100 for ``count`` users who ask again as soon as they are answered, 1,024 tokens in and out."""
    job, cluster, plan = ServeJob(model=load("qwen3-32b")), parse_cluster("4x h100-sxm-80gb"), ServePlan(tp=4)
    length = Length(tokens=1024)
    traffic = Traffic(arrivals="closed", concurrency=count, prompt=length, answer=length)
    return lambda: simulate(Deployment(engine=price(job, cluster, plan)), traffic, requests=requests)


def stream(rate_per_s: float, requests: int) -> Callable[[], object]:
    """The same replica under Poisson arrivals of prompts and answers of mixed lengths."""
    engine = price(ServeJob(model=load("qwen3-32b")), parse_cluster("4x h100-sxm-80gb"), ServePlan(tp=4))
    prompt, answer = Length(tokens=1024, cv_ratio=0.5), Length(tokens=256, cv_ratio=0.5)
    traffic = Traffic(arrivals="poisson", rate_per_s=rate_per_s, prompt=prompt, answer=answer)
    return lambda: simulate(Deployment(engine=engine), traffic, requests=requests)


def sized() -> ServeAnswer:
    """The fewest H100 for 20 requests of Qwen3-32B a second within the limits of SLO, prefill apart or not."""
    prompt, answer = Length(tokens=1024), Length(tokens=256)
    traffic = Traffic(arrivals="poisson", rate_per_s=20.0, prompt=prompt, answer=answer)
    question = ServeQuestion(
        job=ServeJob(model=load("qwen3-32b")), traffic=traffic, slo=Slo(ttft_s=2.0, tpot_s=0.05), disaggregate="auto"
    )
    return answer_serve(question, Target.open(parse_cluster("2x h100-sxm-80gb"), assumed=None))


def serving() -> dict[str, Any]:
    """One replica priced, 16 users simulated, and a stream of 10,000 requests."""
    llama, one = ServeJob(model=load("llama-2-7b")), parse_cluster("1x a100-sxm-80gb")
    return {
        "one_replica_cpu_s": cpu_s(lambda: price(llama, one, ServePlan()), runs=20),
        "sixteen_users_cpu_s": cpu_s(users(16, 200)),
        f"stream_of_{REQUESTS}_cpu_s": cpu_s(stream(4.0, REQUESTS), runs=3),
        "slo_search_cpu_s": cpu_s(sized, runs=3),
        "slo_search_chips": sized().estimate.chips,
    }


def peer_cpu_s(name: str, row: Mapping[str, Any], options: Mapping[str, Any], *, work: Path, times: int) -> dict[str, float | str]:
    """Median CPU seconds of a peer for one question that is put again and again to one process; or why it has no answer."""
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        put(PEERS[name], options, [{"id": "speed", **row}] * times, work=work, out=out)
        out.seek(0)
        start, *answers = map(json.loads, out)
    if "reason" in answers[-1]:
        return {"not_answered": answers[-1]["reason"]}
    first, *warm = (answer["cpu_s"] for answer in answers)
    found = {"start_cpu_s": start["start_cpu_s"], "first_answer_cpu_s": first, "one_answer_cpu_s": statistics.median(warm)}
    return found | ({"chips": answers[0]["chips"]} if "chips" in answers[0] else {})


def peers(work: Path, calculon: Path | None) -> dict[str, dict[str, float | str]]:
    """Every peer whose environment is at hand, on the question of its kind."""
    (qwen,) = (row for row in read(SHIPPED / ROW_SETS["silicon"].file) if row["id"] == QWEN)
    asked = {
        "llm-analysis": (GPT3, {"flops_efficiency": 0.5}, 50),
        "genz": (LLAMA, {}, 10),
        "aiconfigurator": (qwen, {"parse_once": False}, 4),
    }
    if calculon is not None:
        asked["calculon"] = (GPT3, {"checkout": str(calculon.resolve()), "network": "shipped"}, 50)
    found = {name: peer_cpu_s(name, *question[:2], work=work, times=question[2]) for name, question in asked.items()}
    return found | {"aiconfigurator recommend": peer_cpu_s("aiconfigurator", SLO, {"parse_once": False}, work=work, times=2)}


COUNTERPARTS = {
    "llm-analysis": ("training", "one_estimate_cpu_s"),
    "calculon": ("training", "one_estimate_cpu_s"),
    "genz": ("serving", "one_replica_cpu_s"),
    "aiconfigurator": ("serving", "sixteen_users_cpu_s"),
    "aiconfigurator recommend": ("serving", "slo_search_cpu_s"),
}
"""What of Sapper answers a peer's question: the whole estimate, with breakdown and evidence."""


def ratios(sapper: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """A peer's CPU seconds over Sapper's for the same question; Calculon's also over one plan of a search."""
    found = {
        f"{name} answer / sapper {key.removesuffix('_cpu_s')}": theirs[name]["one_answer_cpu_s"] / sapper[part][key]
        for name, (part, key) in COUNTERPARTS.items()
        if "one_answer_cpu_s" in theirs.get(name, {})
    }
    for name in ("calculon", "llm-analysis"):
        if "one_answer_cpu_s" in theirs.get(name, {}):
            found[f"{name} answer / sapper plan in a search"] = theirs[name]["one_answer_cpu_s"] / sapper["training"]["dense"]["plan_cpu_s"]
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder of the peers' environments (made where missing)")
    parser.add_argument("--calculon", type=Path, help="a checkout of calculon-ai/calculon")
    given = parser.parse_args()
    sapper = {"training": training(), "serving": serving()}
    theirs = peers(given.work, given.calculon) if given.work else {}
    found = {
        "date": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 1), "sapper": sapper, "peers": theirs, "ratios": ratios(sapper, theirs),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
