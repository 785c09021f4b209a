"""A cable is cut and mended: three hosts, each a network namespace of its own, train one job; one of them is cut off and comes back.

    python benchmarks/mix/cable.py             # needs the right to make network namespaces; about two minutes

Each host runs `sapper mix run --here`. The cut is the link of a host taken down, so that every packet to and from it is lost and nothing
says so; it is known by silence (2 s here). The times are from the cut until the last of the others tells in its journal that it goes on,
and from the mending until the host's new worker has its seat. Losses are held against the same job in one process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from sapper.mix.emulate import Link
from sapper.mix.emulate.network import DEVICE, Island, lay, run
from sapper.mix.plan import MixPlan, Pipeline, Stage, write_plan

CONFIG = {
    "model_type": "llama", "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
COUNTS = (5, 2, 1)
SILENT_S = 2.0
COMPARED = 30
"""Steps whose losses are compared; the cut falls among them."""
CUT_AFTER = 8
LIMIT_S = 400.0


def plan_of(counts: Sequence[int]) -> MixPlan:
    """A chip on each host."""
    pipelines = tuple(Pipeline(stages=(Stage(group="g", first=0, last=6),), micro_batch=1, micro_batches=count) for count in counts)
    return MixPlan(
        model="llama", model_digest="", cluster="c", cluster_digest="", layers=4, seq_len=16, precision="fp64", wire="fp64",
        global_batch=sum(counts), pipelines=pipelines,
    )  # fmt: skip


@contextlib.contextmanager
def islands(count: int) -> Iterator[list[Island]]:
    """Hosts that reach each other at 1 Gbit/s."""
    made: list[str] = []
    try:
        yield lay([str(at) for at in range(count)], Link(rate_bytes_per_s=125e6), made=made.append)
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


class Host:
    """The launcher of one host."""

    def __init__(self, folder: Path, island: Island | None, *options: str) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "sapper", "mix", "run", *options, "--out", str(folder)]
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        line = island.command(command) if island is not None else command
        self.process = subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def lines(self, kind: str) -> list[dict[str, Any]]:
        """What its members told of a kind."""
        found = []
        for path in sorted(self.folder.glob("member-*.jsonl")):
            for line in path.read_text("utf-8").splitlines():
                with contextlib.suppress(ValueError):  # a line that is being written
                    found.append({**json.loads(line), "member": path.stem})
        return [one for one in found if one["kind"] == kind]

    def stop(self) -> None:
        """The launcher, and its workers, which outlive it."""
        self.process.terminate()
        self.process.wait()
        for one in self.lines("door"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one["pid"], signal.SIGTERM)

    def losses(self) -> dict[int, float]:
        """Step -> loss."""
        return {one["step"]: one["loss"] for one in self.lines("step")}


def wait(what: Any) -> float:
    """The moment at which ``what`` has come to pass."""
    due = time.monotonic() + LIMIT_S
    while not what():
        if time.monotonic() > due:
            raise SystemExit("it did not come to pass in time")
        time.sleep(0.02)
    return time.monotonic()


def main() -> int:
    """Cut, mend, compare."""
    with tempfile.TemporaryDirectory() as name, islands(len(COUNTS)) as hosts:
        root = Path(name)
        (root / "config.json").write_text(json.dumps(CONFIG), "utf-8")
        for file, counts in (("plan.json", COUNTS), ("one.json", (sum(COUNTS),))):
            write_plan(root / file, plan_of(counts))
        common = ["--model", str(root / "config.json"), "--steps", "100000", "--silent", str(SILENT_S)]
        meet = f"{hosts[0].address}:29511"
        started = [
            Host(root / f"host{at}", island, str(root / "plan.json"), *common, "--here", f"g:{at}-{at}", "--meet", meet)
            for at, island in enumerate(hosts)
        ]
        try:
            return _cut_and_mend(root, hosts, started, common)
        finally:
            for one in started:
                one.stop()


def _cut_and_mend(root: Path, hosts: Sequence[Island], started: Sequence[Host], common: Sequence[str]) -> int:
    *others, last = started
    wait(lambda: len(others[0].losses()) >= CUT_AFTER)
    cut_s = time.monotonic()
    run("ip", "-n", hosts[-1].namespace, "link", "set", DEVICE, "down")
    goes_on_s = wait(lambda: all(one.lines("change") for one in others)) - cut_s
    wait(lambda: len(others[0].losses()) >= CUT_AFTER + 5)
    run("ip", "-n", hosts[-1].namespace, "link", "set", DEVICE, "up")
    mended_s = time.monotonic()
    back_s = wait(lambda: any(one["count"] == len(COUNTS) for one in others[0].lines("change"))) - mended_s
    wait(lambda: all(one.losses().get(max(COMPARED, max(one.losses(), default=0))) for one in (others[0], last)))
    alone = Host(root / "alone", None, str(root / "one.json"), *common[:2], "--steps", str(COMPARED))
    alone.process.wait()
    truth, found = alone.losses(), others[0].losses()
    apart = max(abs(found[step] - truth[step]) for step in range(COMPARED))
    changes = [(one["count"], one["step"], one["undone"], one["took_s"]) for one in others[0].lines("change")]
    print(f"cut: the others go on {goes_on_s:.2f} s later, {SILENT_S:g} s of which are silence; mended: it is back {back_s:.1f} s later")
    print(f"changes (members, step, steps undone, seconds): {changes}")
    print(f"losses of {COMPARED} steps: largest difference from one process {apart:.1e}; load {os.getloadavg()[0]:.0f}")
    print(msgspec.json.encode({"goes_on_s": goes_on_s, "back_s": back_s, "apart": apart}).decode())
    return 0 if apart <= 1e-9 else 1


if __name__ == "__main__":
    sys.exit(main())
