"""How fast serving is simulated and searched.

    python benchmarks/serve_speed.py        # figures of this machine, as JSON

10,000 requests go through one engine event by event, and the same stream through a simulator that takes every iteration on its
own (the tests' reference, tests/unit/serve_kit.py), in the same run: the ratio is what counts. CPU seconds are of this process alone.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sapper.clusters import parse_cluster
from sapper.predict.serve import ServeJob, ServePlan
from sapper.predict.serve.deployment import Deployment
from sapper.predict.serve.frontier import frontier
from sapper.predict.serve.price import price
from sapper.predict.serve.question import ServeQuestion
from sapper.predict.serve.search import answer_serve
from sapper.predict.serve.simulate import simulate
from sapper.predict.serve.slo import Slo
from sapper.predict.serve.target import Target
from sapper.predict.serve.traffic import Length, Traffic
from sapper.workloads import load

TESTS = Path(__file__).resolve().parent.parent / "tests"
REQUESTS = 10_000
SLOW_REQUESTS = 1_000
RUNS = 3
CHAT = Traffic(arrivals="poisson", rate_per_s=4.0, prompt=Length(tokens=1024, cv_ratio=0.5), answer=Length(tokens=256, cv_ratio=0.5))


def cpu_s(run: Callable[[], object]) -> float:
    """Median CPU seconds of RUNS calls."""
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def simulated() -> dict[str, object]:
    """10,000 requests of one engine, and what a walk through every iteration takes for as many."""
    sys.path[:0] = [str(TESTS / "unit"), str(TESTS)]
    from serve_kit import token_by_token

    job = ServeJob(model=load("llama-3.1-70b"))
    engine = price(job, parse_cluster("8x h100-sxm-80gb"), ServePlan(tp=8))
    deployment = Deployment(engine=engine)
    fast_s = cpu_s(lambda: simulate(deployment, CHAT, requests=REQUESTS))
    run = simulate(deployment, CHAT, requests=SLOW_REQUESTS)
    stream = run.requests
    rows = list(zip(stream.arrival_s, stream.input_tokens, stream.output_tokens, strict=True))
    start = time.process_time()
    token_by_token(engine, rows)
    slow_s = (time.process_time() - start) * REQUESTS / len(rows)
    tokens = sum(stream.output_tokens) * REQUESTS / len(rows)
    return {
        "question": "llama-3.1-70b on 8x h100-sxm-80gb, tp=8, 4 requests/s, 1,024 in, 256 out, lognormal",
        "requests": REQUESTS,
        "events_s": fast_s,
        "every_iteration_s": slow_s,
        "ratio": slow_s / fast_s,
        "output_tokens_per_cpu_s": tokens / fast_s,
    }


def searched(model: str, chip: str, *, weights: tuple[str, ...], rate: float) -> dict[str, object]:
    """A whole answer: plans, simulations, the range, and the frontier beside it."""
    question = ServeQuestion(
        job=ServeJob(model=load(model)),
        traffic=Traffic(arrivals="poisson", rate_per_s=rate, prompt=Length(tokens=1024), answer=Length(tokens=256)),
        slo=Slo(ttft_s=1.0, tpot_s=0.05),
        weights=weights,
        disaggregate="auto",
    )
    target = Target.open(parse_cluster(chip), assumed=None)
    answer = answer_serve(question, target)
    return {
        "question": f"{model} on {chip}, {rate:g} requests/s, ttft=1s,tpot=50ms,p99",
        "plans": answer.plans,
        "simulated": answer.simulated,
        "search_s": cpu_s(lambda: answer_serve(question, target)),
        "frontier_s": cpu_s(lambda: frontier(question, target)),
    }


def main() -> None:
    """Print the figures."""
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "simulation": simulated(),
        "dense": searched("llama-3.1-70b", "h100-sxm-80gb", weights=("bf16", "fp8"), rate=20.0),
        "mixture": searched("deepseek-v3", "h200-sxm-141gb", weights=("fp8",), rate=20.0),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
