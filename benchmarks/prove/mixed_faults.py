"""An emulated chip with many faults, each of another op, for `shrink_share.py`: kinds in turn, ops at random by seed.

    python benchmarks/prove/mixed_faults.py --seed 1 --faults 40 tiger.toml

Prints the names of the ops in PyTorch's database, as `sapper prove ops --ops` takes them. A fault of an op that the chip never launches
by itself (PyTorch computes it of others) is left out.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from sapper.backends.papertiger.device import LAUNCHED_BY_NAME
from sapper.backends.papertiger.reach import unreached
from sapper.prove.ops import opinfo

KINDS = (
    "wrong-kernel", "narrow-accumulation", "low-precision-input", "wrong-constant", "cancellation", "missed-nan", "tile-edge",
    "dropped-tail", "crash", "hang", "nondeterminism", "lost-gradient", "scaled-gradient", "wrong-rounding", "swapped-arguments",
    "ignored-strides", "bad-element", "bias", "saturation", "uninitialised", "stale-output", "silent-fallback",
)  # fmt: skip
"""All that concern single ops in fp32. Where the chip looks for gradients, the op is the backward one."""


def chosen(*, seed: int, count: int) -> list[tuple[str, str, str]]:
    """Kind, ATen op and name in the database of each fault."""
    chance = random.Random(seed)
    names = [name for name in sorted(opinfo.database()) if hasattr(torch.ops.aten, _plain(name))]
    chance.shuffle(names)
    found = []
    for at, name in enumerate(names[:count]):
        kind = KINDS[at % len(KINDS)]
        found.append((kind, f"aten::{_plain(name)}{'_backward' if 'gradient' in kind else ''}", name))
    return found


def _plain(name: str) -> str:
    return name.rpartition(".")[2]


def main() -> None:
    """Write the personality."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=40)
    parser.add_argument("file", type=Path)
    given = parser.parse_args()
    faults = chosen(seed=given.seed, count=given.faults)
    faults = [(kind, op, name) for kind, op, name in faults if not list(unreached((op,), LAUNCHED_BY_NAME))]
    given.file.write_text("".join(f'[[fault]]\nkind = "{kind}"\nop = "{op}"\n\n' for kind, op, _ in faults), "utf-8")
    print(",".join(name for _, _, name in faults))


if __name__ == "__main__":
    main()
