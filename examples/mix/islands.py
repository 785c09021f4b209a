"""One training job over two islands that may run unlike builds of PyTorch.

    python examples/mix/islands.py --reference                    # the same job on one device
    python examples/mix/islands.py new --meet 127.0.0.1:29511     # in one environment, and at the same time
    python examples/mix/islands.py old --meet 127.0.0.1:29511     # in the other

Each prints the losses that it saw; they are those of one device. With more chips in an island, start it there by
``torchrun --nproc-per-node N examples/mix/islands.py new --meet HOST:PORT``.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

import torch
from sapper.mix.plan import MixPlan, Pipeline, Stage
from sapper.mix.run.data import label_count
from sapper.mix.run.job import Job
from sapper.mix.run.models import BuiltModel
from sapper.mix.run.runner import Reference, Runner
from sapper.mix.run.start import join, place_of, rank_of
from sapper.programs.program import build, load_builder

GPT = Path(__file__).parents[1] / "prove" / "gpt.py"
BLOCKS, SEQ = 2, 16


class Sentences:
    """Sample number n is always the same sentence, in whatever process it is read."""

    def batch(self, numbers):
        rows = torch.stack([(torch.arange(SEQ + 1) * (number % 7 + 1) + number) % 64 for number in numbers])
        labels = rows[:, 1:].clone()
        labels[:, ::5] = -100  # not every word counts
        return {"ids": rows[:, :-1].contiguous(), "labels": labels}

    def weight(self, inputs):
        return label_count(inputs)


def plan() -> MixPlan:
    """A pipeline from the new island to the old one, and a whole copy of the model on the old one, which takes fewer samples."""
    pipeline = Pipeline(
        stages=(Stage(group="new", first=0, last=2), Stage(group="old", first=2, last=BLOCKS + 2)), micro_batch=2, micro_batches=3
    )
    copy = Pipeline(stages=(Stage(group="old", first=0, last=BLOCKS + 2),), micro_batch=1, micro_batches=2)
    return MixPlan(
        model="gpt.py:build", model_digest="by-example", cluster="two islands", cluster_digest="by-example", layers=BLOCKS, seq_len=SEQ,
        global_batch=8, precision="fp64", wire="fp64", pipelines=(pipeline, copy),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("island", nargs="?", choices=["new", "old"])
    parser.add_argument("--meet", default="127.0.0.1:29511", help="host and port of rank 0, which is the first process of `new`")
    parser.add_argument("--place", type=int, default=None, help="which process of the island; default: torchrun's RANK")
    parser.add_argument("--reference", action="store_true", help="the same job on one device")
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    builder, path = load_builder(f"{GPT}:build")
    model = BuiltModel(lambda: build(builder, path, batch=None, seq=SEQ))
    job = Job(plan=plan(), model=model, data=Sentences(), steps=options.steps, clip=1.0, lr=1e-2)
    if options.reference:
        comm, runner = None, Reference(job)
    else:
        host, _, port = options.meet.rpartition(":")
        rank = rank_of(job.plan, options.island, place=place_of() if options.place is None else options.place)
        comm = join(job.plan, rank, at=(host, int(port)), model=job.plan.model_digest)
        runner = Runner(job, comm)
    losses = [runner.step().loss for _ in range(job.steps)]
    print(json.dumps({"torch": torch.__version__, "python": platform.python_version(), "losses": losses}))
    if comm is not None:
        comm.close()


if __name__ == "__main__":
    main()
