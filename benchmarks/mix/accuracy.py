"""The cost model of mixed plans against real runs that planners' authors publish.

    python benchmarks/mix/accuracy.py --sailor SAILOR --amp AMP [--out results.json]

SAILOR is a checkout of github.com/eth-easl/sailor (MIT), AMP one of github.com/DachengLi1/AMP; nothing of either is in this
repository. Three questions:

* iterations and peak memory of the 36 runs that Sailor ships (9 over unlike GPUs, 27 over GH200), priced from its layer profiles;
* the order of AMP's trials of one cluster (GPT-2 over V100 and T4, and over T4 alone), priced by predict alone;
* which of those trials failed, by memory.

No constant is fitted on any of these rows: see docs/mix-accuracy.md for what each figure stands on.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from sapper.chips import catalogue
from sapper.clusters.cluster import Cluster, Group, GroupLink, Link
from sapper.clusters.priors import SCALE_OUT, link_prior
from sapper.evidence import Fact
from sapper.mix.costs import from_predict
from sapper.mix.objective import score
from sapper.mix.plan import Pipeline, Stage
from sapper.mix.problem import Problem, Transport
from sapper.mix.profiles.links import Flat, MeasuredNetwork
from sapper.mix.profiles.problem import Fleet, problem_of
from sapper.mix.profiles.sailor import read_sailor, read_sailor_links
from sapper.predict.job import TrainJob
from sapper.workloads import from_config

GIB = 2.0**30
DEEPSPEED = Transport(blocking=True, buffer_bytes=4 * 2**20, overlapped=False)
"""Its pipeline waits for each message; NCCL takes 4 MiB for a channel off the sender's hands (NCCL_BUFFSIZE)."""
SAILOR_MEMORY = {"GH-96": 95.6 * GIB, "Titan-RTX": 24 * GIB, "RTX-2080": 11 * GIB, "RTX-3090": 24 * GIB}
SAILOR_NODE = {"clariden": 4, "mit": 8}
AMP_CHIPS = {"V": ("nvidia-v100-sxm2-16gb", "full-mesh", 170e9 / 8, 10e9 / 8), "T": ("nvidia-t4", "pcie-tree", 50e9 / 8, 50e9 / 8)}
"""p3.8xlarge and g4dn.12xlarge: chip, links in the node, bytes/s inside and out (AMP, src/het_cluster.py and homogeneous.py)."""
AMP_CLUSTERS = {"het_cluster": "VVVT", "homogeneous": "TTTT"}
GPT2 = {
    "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 1024, "n_layer": 24, "n_head": 16, "vocab_size": 52256,
    "n_positions": 1024, "activation_function": "gelu_new", "tie_word_embeddings": True,
}  # fmt: skip
FLAT_COPY_BYTES = 2.0
"""DeepSpeed's fp16 optimizer keeps the gradients flat beside what predict counts (deepspeed/runtime/fp16/fused_optimizer.py)."""
LOGIT_COPIES = 1.5
"""Of what predict counts for Megatron: its cross entropy of 2020 kept the 16-bit logits, fp32 ones and their exponentials."""
TRIAL = re.compile(
    r"Simulating result: .*?, (\[[\d, ]+\]), (\d+), \{'mp_deg': tensor\(\[(\d+)\.\]\), 'dp_deg': tensor\(\[(\d+)\.\]\), "
    r"'pp_deg': tensor\(\[(\d+)\.\]\)\}, with p_cost: tensor\(\[\s*([\d.]+)\]\),\s+r_cost: (\S+)"
)


class Run(NamedTuple):
    """One real run beside what we say of it."""

    name: str
    measured_s: float
    predicted_s: float
    measured_bytes: float
    predicted_bytes: float

    @property
    def time_error(self) -> float:
        """Signed, of the iteration."""
        return self.predicted_s / self.measured_s - 1.0

    @property
    def memory_error(self) -> float:
        """Signed, of the peak."""
        return self.predicted_bytes / self.measured_bytes - 1.0


def sailor_runs(checkout: Path) -> dict[str, list[Run]]:
    """The runs by cluster and model."""
    base = checkout / "sailor" / "Planner" / "simulations"
    found: dict[str, list[Run]] = {}
    for file in sorted((base / "validation").rglob("plan_config_*.json")):
        row = json.loads(file.read_text())
        cluster = file.relative_to(base / "validation").parts[0]
        model = "GPT-Neo-2.7" if "GPT-NEO" in file.parts else "OPT-350"
        run = _sailor_run(base, file.stem.removeprefix("plan_config_"), row, model=model, per_node=SAILOR_NODE[cluster])
        if run is None:
            print(f"{cluster} {model} {file.stem}: a plan of another model, left out", file=sys.stderr)
            continue
        found.setdefault(f"{cluster} {model}", []).append(run)
    return found


def _sailor_run(base: Path, name: str, row: dict[str, Any], *, model: str, per_node: int) -> Run | None:
    plan = row["pipeline_list"][0]
    stages, copies = plan["tmp_per_stage"], plan["dp"][0]
    gpus = sorted({config[0][0][0] for stage in stages for config in stage})
    nodes = {gpu: sum(config[0][0][0] == gpu for stage in stages for config in stage) for gpu in gpus}
    profiles = read_sailor(base / "profiles_tmp.json", model=model, sizes=base.parent / "llm_info.json")
    links = base.parents[1] / "providers"
    network = read_sailor_links(
        links / "multizone_bandwidths_het.json", links / "intra_node_bandwidths.json", groups={gpu: gpu for gpu in gpus},
        nodes={gpu: max(count, 2) for gpu, count in nodes.items()}, per_node=per_node, whole=True,
    )  # fmt: skip
    fleets = [Fleet(gpu, profiles[gpu], nodes[gpu] * per_node, per_node, SAILOR_MEMORY[gpu]) for gpu in gpus]
    problem = problem_of(fleets, network, global_batch=row["gbs"], transport=DEEPSPEED)
    if plan["layers_per_stage"][-1][-1] + 1 != problem.layers:
        return None
    pipelines = tuple(
        Pipeline(
            stages=tuple(
                Stage(group=stage[copy][0][0][0], first=layers[0], last=layers[-1] + 1, tp=stage[copy][1])
                for stage, layers in zip(stages, plan["layers_per_stage"], strict=True)
            ),
            micro_batch=row["mbs"], micro_batches=row["gbs"] // copies // row["mbs"],
        )
        for copy in range(copies)
    )  # fmt: skip
    priced = score(problem, pipelines)
    peak = max(stage.peak_bytes for pipeline in priced.pipelines for stage in pipeline.stages)
    return Run(name, row["real"], priced.step_s, row["max_mem"], peak)


class Trial(NamedTuple):
    """One plan that AMP's authors tried."""

    cuts: list[int]
    micro_batch: int
    tp: int
    dp: int
    pp: int
    amp_s: float
    measured_s: float
    """Infinite where the trial gave no time."""


def amp_trials(file: Path) -> Iterator[Trial]:
    """The trials of a results file of AMP's."""
    for match in TRIAL.finditer(file.read_text().replace("\n", " ")):
        cuts, *numbers, predicted, measured = match.groups()
        yield Trial(json.loads(cuts), *(int(one) for one in numbers), float(predicted), float(measured))


@dataclasses.dataclass(frozen=True)
class AmpNetwork:
    """AMP's DeepSpeed: what its stages exchange (deepspeed/runtime/pipe/engine.py in its repository).

    Forward each chip of a stage sends its part of the activation and the whole attention mask, which at this length is as large;
    back each sends the whole gradient: (1 + tp) and tp activations, 1/2 + tp on average.
    """

    links: MeasuredNetwork

    def send_s(self, size_bytes: float, *, source: str, target: str, tp: int = 1) -> float:
        """A message on average over both directions."""
        return self.links.send_s(size_bytes * (0.5 + tp), source=source, target=target, tp=tp)

    def all_reduce_s(self, size_bytes: float, members: Mapping[tuple[str, int], int]) -> float:
        """As the links have it."""
        return self.links.all_reduce_s(size_bytes, members)


def amp_problem(nodes: str) -> Problem:
    """GPT-2 on nodes of four GPUs, each node a group, so that what leaves it is told from what does not."""
    share = link_prior(SCALE_OUT).efficiency[max(link_prior(SCALE_OUT).efficiency)]
    names = [f"node-{index}" for index in range(len(nodes))]
    groups = tuple(_amp_group(name, kind) for name, kind in zip(names, nodes, strict=True))
    wires = tuple(
        GroupLink(
            from_group=a, to_group=b, latency_s=_fact(5e-5, "s"),
            bandwidth_bytes_per_s=_fact(min(AMP_CHIPS[nodes[i]][3], AMP_CHIPS[nodes[i + 1 + j]][3]), "bytes/s"),
        )
        for i, a in enumerate(names) for j, b in enumerate(names[i + 1 :])
    )  # fmt: skip
    workload = from_config(GPT2, name="gpt2-24l", where="AMP").workload(1024, dtype="fp16", attention_impl="unfused")
    job = TrainJob(workload=workload, global_batch=32, precision="fp16", stack="megatron", stack_year=2021.0)
    problem = from_predict(job, Cluster(name=nodes, groups=groups, links=wires), recomputes=("none",))
    between = {
        (a, b, 1): Flat(share * min(AMP_CHIPS[nodes[i]][3], AMP_CHIPS[nodes[j]][3]))
        for i, a in enumerate(names) for j, b in enumerate(names)
    }  # fmt: skip
    network = MeasuredNetwork(
        chips_per_node=dict.fromkeys(names, 4), nodes=dict.fromkeys(names, 1), between=between, whole=True,
        inside={(name, 4): Flat(AMP_CHIPS[kind][2]) for name, kind in zip(names, nodes, strict=True)},
    )  # fmt: skip
    times = {}
    for shape, one in problem.times.items():
        saved = one.saved_bytes.copy()
        saved[-1] *= LOGIT_COPIES
        times[shape] = dataclasses.replace(one, saved_bytes=saved)
    state = dataclasses.replace(problem.state, wire=4.0, optimizer=problem.state.optimizer + FLAT_COPY_BYTES)  # fp32_allreduce
    transport = dataclasses.replace(DEEPSPEED, shared=True)
    return dataclasses.replace(problem, network=AmpNetwork(network), state=state, times=times, transport=transport)


def _amp_group(name: str, kind: str) -> Group:
    chip, topology, inside, _ = AMP_CHIPS[kind]
    up = Link(
        name="node", topology=topology, bandwidth_bytes_per_s=_fact(inside, "bytes/s"), latency_s=_fact(5e-6, "s"), domain_size=4  # type: ignore[arg-type]
    )
    return Group(name=name, chip=catalogue().chips[chip], nodes=1, chips_per_node=4, scale_up=up, scale_out=None)


def _fact(value: float, unit: str) -> Fact:
    return Fact(value=value, unit=unit, source="github.com/DachengLi1/AMP@72eeea45518d src", date="2022-11-28", grade="vendor-claimed")


def amp_plan(trial: Trial) -> tuple[Pipeline, ...] | None:
    """The pipelines of a trial, one for each replica; None for a stage without weights, which DeepSpeed cannot optimise.

    Its list of ops is the embedding, one without weights, 24 blocks, two without weights, the head and one without weights; ranks
    go through the nodes in order, tensor parallel ranks innermost, then replicas.
    """
    cuts = [0 if cut == 0 else 26 if cut >= 30 else min(max(cut - 1, 1), 25) for cut in trial.cuts]
    if any(last <= first for first, last in itertools.pairwise(cuts)):
        return None
    found = []
    for replica in range(trial.dp):
        stages = tuple(
            Stage(group=f"node-{(stage * trial.dp + replica) * trial.tp // 4}", first=cuts[stage], last=cuts[stage + 1], tp=trial.tp)
            for stage in range(trial.pp)
        )
        found.append(Pipeline(stages=stages, micro_batch=trial.micro_batch, micro_batches=32 // trial.dp // trial.micro_batch))
    return tuple(found)


def amp_answers(trials: Sequence[Trial], nodes: str) -> dict[str, Any]:
    """Order of the trials that ran, and which failed."""
    problem = amp_problem(nodes)
    predicted, measured, odd, said, failed = [], [], [], [], []
    for trial in trials:
        plan = amp_plan(trial)
        priced = None if plan is None else score(problem, plan)
        said.append(priced is None or not priced.fits)
        failed.append(not np.isfinite(trial.measured_s))
        if priced is not None and np.isfinite(trial.measured_s):
            predicted.append(priced.step_s)
            measured.append(trial.measured_s)
            message_bytes = float(problem.boundary_bytes[0]) * trial.micro_batch
            odd.append(trial.tp > 1 and trial.pp > 1 and message_bytes <= DEEPSPEED.buffer_bytes)
    rest = [pair for pair, out in zip(zip(predicted, measured, strict=True), odd, strict=True) if not out]
    both = sum(a and b for a, b in zip(said, failed, strict=True))
    return {
        "trials": len(trials), "ran": len(measured), "spearman": round(spearman(predicted, measured), 3),
        "spearman_without_small_messages_of_shards": round(spearman(*zip(*rest, strict=True)), 3), "small_messages_of_shards": sum(odd),
        "regret": round(measured[int(np.argmin(predicted))] / min(measured) - 1.0, 4),
        "mean_abs_error": round(statistics.mean(abs(p / m - 1.0) for p, m in zip(predicted, measured, strict=True)), 3),
        "failed": sum(failed), "said_to_fail": sum(said), "precision": round(both / max(sum(said), 1), 3),
        "recall": round(both / max(sum(failed), 1), 3),
    }  # fmt: skip


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation, ties at their mean rank."""

    def ranks(values: Sequence[float]) -> np.ndarray:
        array = np.asarray(values)
        return np.array([(array < one).sum() + ((array == one).sum() + 1) / 2.0 for one in array])

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Errors of a cluster's runs."""
    times, sizes = [run.time_error for run in runs], [run.memory_error for run in runs]
    return {
        "runs": len(runs), "time_mean_abs": round(statistics.mean(map(abs, times)), 4), "time_worst": round(max(times, key=abs), 4),
        "memory_mean_abs": round(statistics.mean(map(abs, sizes)), 4), "memory_low": round(min(sizes), 4),
        "memory_high": round(max(sizes), 4),
        "rows": {run.name: [round(run.time_error, 4), round(run.memory_error, 4)] for run in runs},
    }  # fmt: skip


def main() -> None:
    """Print the figures as JSON, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sailor", type=Path)
    parser.add_argument("--amp", type=Path)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    figures: dict[str, Any] = {}
    if asked.sailor:
        figures["sailor"] = {name: summary(runs) for name, runs in sailor_runs(asked.sailor).items()}
    if asked.amp:
        results = asked.amp / "src" / "results"
        figures["amp"] = {
            name: amp_answers(list(amp_trials(results / f"{name}_results.txt")), nodes) for name, nodes in AMP_CLUSTERS.items()
        }
    text = msgspec.json.format(msgspec.json.encode(figures), indent=1).decode()
    print(text)
    if asked.out:
        asked.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
