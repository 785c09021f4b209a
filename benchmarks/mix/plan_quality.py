"""Quality of plans on Sailor's profiles: OPT-350M over A100-40 and V100-16 at a global batch of 1,024, under Sailor's own rules.

    python benchmarks/mix/plan_quality.py --profiles DIR [--out results.json]

DIR holds ``profiles_tmp.json``, ``llm_info.json`` and ``multizone_bandwidths_het.json`` of github.com/eth-easl/sailor (MIT). First the
judge (``sailor_judge.py``, written apart from the planner) prices plans of Sailor and AMP whose figures by Sailor's simulator are
known: ``off`` is how far it is from them. Then it prices ours, with our closed form and the simulated clock beside it, and plans of
mixed pipelines that annealing under the judge alone found. ``windowed`` is our search under the judge's rules but one: a stage holds no
more micro-batches in flight than our runtime lets it. The clock follows the runtime's own order of work, which the judge knows not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent))

from sailor_judge import MEMORY_GIB, NODE, Family, Judge, Part, Set

from sapper.mix.objective import score
from sapper.mix.plan import MixPlan, Pipeline, Stage
from sapper.mix.problem import Problem
from sapper.mix.profiles.sailor_judge import judged_problem
from sapper.mix.search import search
from sapper.mix.simulate import simulate

MODEL, BATCH = "OPT-350", 1024
A1, A2, A4 = ("A100-40", 1), ("A100-40", 2), ("A100-40", 4)
V1, V4 = ("V100-16", 1), ("V100-16", 4)


class Known(NamedTuple):
    """A plan of a peer with what Sailor's simulator says of it (planners and simulator of the commit named in the judge, 2026-11).

    Of Sailor's plans for 80 + 240 and 128 + 384 the groups of the first stage, the degrees and the chips are recorded, not the order
    of the other stages: it is the one order, of those with these chips, that gives the recorded figure.
    """

    planner: str
    chips: str
    it_s: float
    micro_batch: int
    stages: tuple[tuple[int, tuple[tuple[Set, int], ...]], ...]
    """(layers, ((set, number), ...)) of each stage."""


def _alike(layers: Iterable[int], each: Set, count: int) -> tuple[tuple[int, tuple[tuple[Set, int], ...]], ...]:
    return tuple((one, ((each, count),)) for one in layers)


KNOWN = (
    Known("Sailor", "32+96", 0.1699596659996623, 2, ((13, ((A1, 3), (V4, 24))), (13, ((A1, 27),)))),
    Known("Sailor", "80+240", 0.36091447932893067, 1, _alike([3], V4, 20) + _alike([3, 4, 4, 4], A1, 20) + _alike([4, 4], V4, 20)),
    Known("Sailor", "128+384", 0.5228979089254144, 1, _alike([3], V4, 32) + _alike([3, 4, 4, 4], A1, 32) + _alike([4, 4], V4, 32)),
    Known("AMP", "32+96", 0.13156709276492398, 1, ((13, ((A1, 32), (V1, 32))), (13, ((V1, 64),)))),
    Known("AMP", "80+240", 0.20620651976334456, 1, ((13, ((A1, 80), (V1, 48))), (13, ((V1, 128),)))),
    Known("AMP", "128+384", 0.31245077555214823, 1, ((26, ((A2, 64), (("V100-16", 2), 192))),)),
    Known("Sailor", "32+0", 0.12510655842062857, 8, _alike([26], A4, 8)),
    Known("Sailor", "80+0", 0.2722438036767293, 4, _alike([26], A4, 20)),
    Known("Sailor", "128+0", 0.4175280035696071, 8, _alike([26], A4, 32)),
    Known("Sailor", "0+96", 0.11085012306591527, 4, _alike([26], V4, 24)),
    Known("Sailor", "0+240", 0.23020703368755494, 2, _alike([26], V4, 57)),
    Known("Sailor", "0+384", 0.3340483845440847, 2, _alike([13, 13], V4, 47)),
)
BARS = {"32+96": 1.25, "80+240": 1.18, "128+384": 1.12}
"""Over Sailor's plan."""

FOUND: dict[str, tuple[tuple[int, int, tuple[tuple[int, Set, int], ...]], ...]] = {
    "32+96": ((4, 1, ((13, V4, 24), (13, A2, 16))),),
    "80+240": ((2, 1, ((6, V4, 25), (7, V4, 35), (8, A2, 24), (5, A2, 16))),),
    "128+384": (
        (2, 1, ((5, V4, 32), (9, V4, 64), (7, A2, 36), (5, A2, 27))),
        (2, 32, ((5, V4, 1), (4, V4, 1), (7, A2, 1), (7, A2, 1), (3, V4, 1))),
    ),
}
"""Mixed pipelines by annealing and enumeration under the judge: (micro-batch, copies, ((layers, set, replicas), ...))."""


def family_of(known: Known) -> Family:
    """A peer's plan for the judge."""
    bounds = [0, *itertools.accumulate(layers for layers, _ in known.stages)]
    parts = tuple(
        Part(first, last, tuple(each for each, count in sets for _ in range(count)))
        for first, last, (_, sets) in zip(bounds, bounds[1:], known.stages, strict=False)
    )
    return Family(parts, known.micro_batch, math.ceil(BATCH / (known.micro_batch * len(parts[0].sets))))


def families_of(pipelines: Iterable[Pipeline]) -> list[Family]:
    """Our plan for the judge."""
    return [
        Family(
            tuple(
                Part(stage.first, stage.last, ((stage.group, stage.tp),) * (one.copies * stage.replicas), stage.replicas)
                for stage in one.stages
            ),
            one.micro_batch,
            one.micro_batches,
        )
        for one in pipelines
    ]


def problem(folder: Path, chips: dict[str, int]) -> Problem:
    """Ours, under the judge's rules."""
    return judged_problem(
        folder / "profiles_tmp.json", folder / "multizone_bandwidths_het.json", model=MODEL, chips=chips, per_node=NODE, global_batch=BATCH,
        capacity_bytes={gpu: MEMORY_GIB[gpu] * 2.0**30 for gpu in chips},
    )  # fmt: skip


def checked(judge: Judge) -> list[dict[str, Any]]:
    """The judge on plans with known figures."""
    rows = []
    for known in KNOWN:
        verdict = judge.of([family_of(known)])
        rows.append(
            {
                "planner": known.planner, "chips": known.chips, "theirs_it_s": known.it_s, "judged_it_s": verdict.it_s,
                "off": verdict.it_s / known.it_s - 1.0, "fits": verdict.fits,
            }
        )  # fmt: skip
    return rows


def priced(judge: Judge, asked: Problem, pipelines: tuple[Pipeline, ...], *, chips: str) -> dict[str, Any]:
    """A plan under the judge, the closed form and the clock."""
    assert sum(one.sequences for one in pipelines) == BATCH
    verdict, closed = judge.of(families_of(pipelines)), score(asked, pipelines)
    plan = MixPlan(
        model=asked.model, model_digest="", cluster="", cluster_digest="", layers=asked.layers - 2, seq_len=asked.seq_len,
        global_batch=BATCH, pipelines=pipelines,
    )  # fmt: skip
    peers = {one.planner: one.it_s for one in KNOWN if one.chips == chips}
    return {
        "chips": chips, "judged_it_s": verdict.it_s, "fits": verdict.fits and closed.fits, "passes_s": verdict.passes_s,
        "sync_s": verdict.sync_s, "over_sailor": verdict.it_s / peers["Sailor"], "bar": BARS[chips],
        "over_amp": verdict.it_s / peers["AMP"], "closed_form_it_s": 1.0 / closed.step_s, "clock_it_s": 1.0 / simulate(asked, plan).step_s,
        "pipelines": [
            f"{one.copies} x {one.micro_batches} of {one.micro_batch}: "
            + " ".join(f"{s.group}*{s.tp}{f'*{s.replicas}' if s.replicas > 1 else ''}[{s.last - s.first}]" for s in one.stages)
            for one in pipelines
        ],
    }  # fmt: skip


def mixed(found: tuple[int, int, tuple[tuple[int, Set, int], ...]]) -> tuple[Pipeline, ...]:
    """One of ``FOUND`` as a plan."""
    size, copies, parts = found
    bounds = [0, *itertools.accumulate(layers for layers, _, _ in parts)]
    stages = tuple(
        Stage(group=gpu, first=first, last=last, tp=tp, replicas=replicas)
        for first, last, (_, (gpu, tp), replicas) in zip(bounds, bounds[1:], parts, strict=False)
    )
    return (Pipeline(stages=stages, micro_batch=size, micro_batches=BATCH // size // copies, copies=copies),)


def planned(judge: Judge, folder: Path) -> list[dict[str, Any]]:
    """Our plans under the judge, and those of ``FOUND``."""
    rows = []
    for chips in BARS:
        a100, v100 = map(int, chips.split("+"))
        asked = problem(folder, {"A100-40": a100, "V100-16": v100})
        start = time.process_time()
        found = search(asked)
        spent = time.process_time() - start
        assert found.best is not None and found.bound_s is not None
        ours = priced(judge, asked, found.best.pipelines, chips=chips)
        rows.append({"plan": "search", **ours, "bound_it_s": 1.0 / found.bound_s, "search_cpu_s": spent, "idle": found.best.idle})
        start = time.process_time()
        kept = search(replace(asked, transport=replace(asked.transport, windowed=True)))
        spent = time.process_time() - start
        assert kept.best is not None
        rows.append({"plan": "windowed", **priced(judge, asked, kept.best.pipelines, chips=chips), "search_cpu_s": spent})
        rows += [{"plan": "annealed", **priced(judge, asked, mixed(one), chips=chips)} for one in FOUND[chips]]
    return rows


def main() -> int:
    """Print both tables."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--profiles", type=Path, required=True, help="folder of Sailor's files")
    asked.add_argument("--out", type=Path, help="write the rows as JSON")
    given = asked.parse_args()
    judge = Judge(given.profiles, model=MODEL)
    known, ours = checked(judge), planned(judge, given.profiles)
    print(f"{'judge checked on':18} {'chips':>8} {'theirs':>9} {'judged':>9} {'off':>9}  fits")
    for row in known:
        print(f"{row['planner']:18} {row['chips']:>8} {row['theirs_it_s']:9.4f} {row['judged_it_s']:9.4f} {row['off']:9.1e}  {row['fits']}")
    print(f"\n{'it/s':17} {'judged':>8} {'/Sailor':>8} {'bar':>6} {'/AMP':>6} {'closed':>8} {'clock':>8} {'search':>8}  fits")
    for row in ours:
        spent = f"{row['search_cpu_s']:.1f}s" if "search_cpu_s" in row else "-"
        print(
            f"{row['plan']:8} {row['chips']:>8} {row['judged_it_s']:8.4f} {row['over_sailor']:8.4f} {row['bar']:6.2f} "
            f"{row['over_amp']:6.2f} {row['closed_form_it_s']:8.4f} {row['clock_it_s']:8.4f} "
            f"{spent:>8}  {row['fits']}"
        )
        for line in row["pipelines"]:
            print(f"    {line}")
    if given.out is not None:
        given.out.write_text(json.dumps({"judge": known, "ours": ours}, indent=1) + "\n")
    return int(not all(row["fits"] for row in ours))


if __name__ == "__main__":
    sys.exit(main())
