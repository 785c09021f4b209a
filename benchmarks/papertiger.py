"""How right the honest papertiger is: PyTorch's op database, forward and backward, by the rule of ``sapper prove``.

    python benchmarks/papertiger.py [PERSONALITY] [--dtype float32]

Prints JSON: samples judged right and not right, which ops raised and what, and how many samples no reference could be made for.
The first two samples of each op forward, the first with gradients. Takes about five minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from typing import Any

from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_flatten, tree_unflatten

import torch
from sapper.backends import papertiger
from sapper.backends.computation import Computation, with_gradients
from sapper.prove.judge import judge
from sapper.prove.reference import refer


def computation(op: Any, sample: Any) -> Computation:
    """One sample of the database."""
    leaves, spec = tree_flatten((sample.input, sample.args, sample.kwargs))
    places = [at for at, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]

    def fn(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        filled = list(leaves)
        for at, one in zip(places, tensors, strict=True):
            filled[at] = one
        given, args, kwargs = tree_unflatten(filled, spec)
        return tuple(leaf for leaf in tree_flatten(op(given, *args, **kwargs))[0] if isinstance(leaf, torch.Tensor))

    return Computation(name=op.name, fn=fn, tensors=tuple(leaves[at] for at in places), labels=())


def differentiated(forward: Computation) -> Computation:
    """Its values and its gradients."""
    torch.manual_seed(0)
    cotangents = [torch.randn_like(one) if one.is_floating_point() else None for one in forward()]
    return with_gradients(forward, wrt=[at for at, one in enumerate(forward.tensors) if one.is_floating_point()], cotangents=cotangents)


def outcome(asked: Computation, device: torch.device) -> str:
    """What the device made of it."""
    try:
        reference = refer(asked)
    except Exception:
        return "no reference"
    try:
        got = [one.cpu() for one in asked.fn(*(one.clone().to(device) for one in asked.tensors))]
    except Exception as error:
        return f"raised {type(error).__name__}"
    try:
        scores = judge(got, reference, [str(at) for at in range(len(got))])
    except Exception as error:
        return f"not judged: {type(error).__name__}"
    return next((score.outcome for score in scores if score.outcome not in ("ok", "legal")), "right")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("personality", nargs="?", default="honest-fp32")
    parser.add_argument("--dtype", default="float32")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    device = torch.device(papertiger.install(chosen.personality), 0)
    dtype = getattr(torch, chosen.dtype)
    counts: dict[str, Counter[str]] = {"forward": Counter(), "backward": Counter()}
    others: dict[str, list[str]] = {}
    for op in op_db:
        if dtype not in op.supported_dtypes("cpu"):
            continue
        samples = list(op.sample_inputs("cpu", dtype, requires_grad=False))[:2]
        cases = [("forward", computation(op, sample)) for sample in samples]
        for phase, asked in [*cases, *(("backward", one) for _, one in cases[:1] if op.supports_autograd)]:
            try:
                made = differentiated(asked) if phase == "backward" else asked
            except Exception:
                found = "no reference"
            else:
                found = outcome(made, device)
            counts[phase][found] += 1
            if found not in ("right", "no reference"):
                others.setdefault(f"{phase}: {found}", []).append(op.name)
    told = {"torch": str(torch.__version__), "personality": chosen.personality, "dtype": chosen.dtype}
    print(json.dumps({**told, **counts, "ops": others}, indent=1))


if __name__ == "__main__":
    main()
