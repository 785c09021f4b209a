"""Whose fault is it: constructed cases of every kind of blame, controls included where the device must not be blamed.

    python benchmarks/prove/blame_cases.py --out benchmarks/prove/results/blame.jsonl [--only model reference] [--inductor]

Each case is made so that its blame is known: an emulated chip or compiler is told to be wrong in one part, or is honest and the model,
the reference or nobody is at fault. The court sees the spec of the stack, the computation, and what was seen; of the fault it is told
nothing. Cases on real stacks (Inductor with the bug that PyTorch ships for tests) need a C++ compiler and are asked for by ``--inductor``.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from blame_unseen import unseen
from torch.nn import functional

import torch
from sapper.backends.computation import Computation, with_gradients
from sapper.prove.blame import court_pool, rule_on
from sapper.prove.verdict import Blame, Outcome

HERE = Path(__file__).parent
Function = Callable[..., tuple[torch.Tensor, ...]]


class Case(NamedTuple):
    """One constructed case."""

    name: str
    blame: Blame
    backend: str
    """A spec; ``tiger:`` and a fault in TOML makes an emulated chip with that fault."""
    seen: Outcome
    fn: Function
    tensors: tuple[torch.Tensor, ...]
    gradients: bool = False

    def computation(self) -> Computation:
        """What was run."""
        found = self.fn(*self.tensors)
        labels = tuple(f"value {at}" for at in range(len(found)))
        plain = Computation(name=self.name, fn=self.fn, tensors=self.tensors, labels=labels)
        return with_gradients(plain, wrt=[0], cotangents=[torch.ones_like(one) for one in found]) if self.gradients else plain


def normal(*shape: int, scale: float = 1.0, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    """Seeded normal values."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale + shift


def gelu(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """One op."""
    return (functional.gelu(x),)


def matmul(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """One op."""
    return (x @ y,)


def softmax(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """One op."""
    return (torch.softmax(x, -1),)


def norm(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """One op."""
    return (functional.layer_norm(x, x.shape[-1:]),)


def kernels() -> Iterator[Case]:
    """Wrong kernels of an emulated chip."""
    x, y = normal(16, 64), normal(64, 32, seed=1)
    faults: list[tuple[str, Outcome, str, Function, tuple[torch.Tensor, ...], bool]] = [
        ("wrong constant", "wrong", 'kind = "wrong-constant"\nop = "aten::gelu"', gelu, (x,), False),
        ("narrow sums", "imprecise", 'kind = "narrow-accumulation"\nop = "aten::mm"', matmul, (x, y), False),
        ("bf16 inputs", "imprecise", 'kind = "low-precision-input"\nop = "aten::mm"', matmul, (x, y), False),
        ("cancellation", "wrong", 'kind = "cancellation"\nop = "aten::native_layer_norm"', norm, (normal(8, 64, shift=1e4),), False),
        ("missed NaN", "nan", 'kind = "missed-nan"\nop = "aten::mul"', lambda x: (x * 2,), (torch.tensor([1.0, torch.nan, 3.0]),), False),
        ("tile edge", "wrong", 'kind = "tile-edge"\nop = "aten::mm"', matmul, (normal(33, 65), normal(65, 33, seed=1)), False),
        ("dropped tail", "wrong", 'kind = "dropped-tail"\nop = "aten::sum"', lambda x: (x.sum(-1),), (normal(8, 67),), False),
        ("nondeterminism", "nondeterministic", 'kind = "nondeterminism"\nop = "aten::mm"', matmul, (x, y), False),
        ("crash", "crash", 'kind = "crash"\nop = "aten::_softmax"', softmax, (x,), False),
        ("scaled gradient", "wrong", 'kind = "scaled-gradient"\nop = "aten::gelu_backward"', gelu, (x,), True),
        ("one bad element", "wrong", 'kind = "bad-element"\nop = "aten::exp"', lambda x: (x.exp(),), (x,), False),
        ("32-bit integers", "wrong", 'kind = "integer-overflow"\nop = "aten::add"', lambda x: (x + 1,), (torch.tensor([2**33, 5]),), False),
    ]
    for name, seen, fault, fn, tensors, gradients in faults:
        yield Case(f"chip: {name}", "kernel", f"tiger:{fault}", seen, fn, tensors, gradients)
    for kernel, fn in (("exp", lambda x: (x.exp() + 1,)), ("tanh", lambda x: (torch.tanh(x * 3),)), ("mm", lambda x: (x @ x.T + 1,))):
        yield Case(f"compiler's kernel: {kernel}", "kernel", f"papercompiler:kernel={kernel}", "wrong", fn, (x,))


def states() -> Iterator[Case]:
    """Caches and leftovers."""
    x = normal(8, 32)
    leaky: Function = lambda x: (functional.leaky_relu(x, 0.2),)  # noqa: E731
    yield Case("stale attributes", "state", 'tiger:kind = "stale-attributes"\nop = "aten::leaky_relu"', "stateful", leaky, (x,))
    yield Case("stale output", "state", 'tiger:kind = "stale-output"\nop = "aten::gelu"', "stateful", gelu, (x,))
    for name, fn in (("softmax", softmax), ("leaky relu", leaky), ("clamp", lambda x: (x.clamp(-0.3, 0.4),))):
        yield Case(f"cache by shapes: {name}", "state", "papercompiler:cache=shapes", "stateful", fn, (x,))


def models() -> Iterator[Case]:
    """Ill-conditioned computations on honest stacks."""
    honest = ("papertiger", "papercompiler")
    cancelling: Function = lambda x: ((x - x.mean()).sum(),)  # noqa: E731
    near = torch.tensor([[1.1, 1.1], [1.1, 1.1000003]])
    yield Case("sum of deviations", "model", honest[0], "wrong", cancelling, (normal(6400, scale=3.0),))
    yield Case("sum of deviations, compiled", "model", honest[1], "wrong", cancelling, (normal(6400, scale=3.0),))
    yield Case("nearly singular", "model", honest[0], "wrong", lambda a: ((a[0, 0] * a[1, 1] - a[0, 1] * a[1, 0]).reciprocal(),), (near,))
    yield Case("sine of a large product", "model", honest[0], "wrong", lambda x: (torch.sin(x * 1e6 * x),), (normal(64),))
    difference: Function = lambda x: ((x * 1e4).sum() - (x.cumsum(0) * 1e4)[-1],)  # noqa: E731
    yield Case("difference of large sums", "model", honest[1], "wrong", difference, (normal(999),))
    start = torch.rand(16, generator=torch.Generator().manual_seed(3))
    yield Case("a chaotic map", "model", honest[0], "wrong", lambda x: (logistic(x),), (start,))


def logistic(x: torch.Tensor) -> torch.Tensor:
    """The logistic map, which doubles an error at each of its steps."""
    for _ in range(25):
        x = 3.9 * x * (1 - x)
    return x


def references() -> Iterator[Case]:
    """Where PyTorch's own CPU kernels are off, and honest stacks are accused."""
    threes = normal(16, 64, scale=0.1, shift=-3.0)
    tanh: Function = lambda x: (functional.gelu(x, approximate="tanh"),)  # noqa: E731
    wide = normal(64, 32, scale=10.0)
    positive = torch.rand((64, 32), generator=torch.Generator().manual_seed(0)) * 5 + 1
    yield Case("gelu at -3 on papertiger", "reference", "papertiger", "wrong", gelu, (threes,))
    yield Case("gelu (tanh) at -3 on papertiger", "reference", "papertiger", "wrong", tanh, (threes,))
    yield Case("Airy function on papertiger", "reference", "papertiger", "wrong", lambda x: (torch.special.airy_ai(x),), (positive,))
    yield Case("Bessel function on papertiger", "reference", "papertiger", "wrong", lambda x: (torch.special.i1e(x),), (wide,))


def legal() -> Iterator[Case]:
    """Differences that are allowed."""
    tiny = torch.full((64,), 1e-39)
    flush = 'tiger:kind = "flush-denormals"\nop = "*"'
    yield Case("denormals flushed, product", "legal", flush, "wrong", lambda x: (x * 1.0,), (tiny,))
    yield Case("denormals flushed, sum", "legal", flush, "wrong", lambda x: (x + x,), (tiny,))
    ties = torch.tensor([[1.0, 3.0, 3.0, 2.0], [5.0, 5.0, 5.0, 5.0]])
    yield Case("ties of argmax", "legal", "papercompiler:kernel=ties", "wrong", lambda x: (x.argmax(-1),), (ties,))
    yield Case("ties of topk", "legal", "papercompiler:kernel=ties", "wrong", lambda x: (torch.topk(x, 2, -1).indices,), (ties,))


def exporters() -> Iterator[Case]:
    """Graphs that mean something else."""
    x = normal(8, 32)
    for name, fn, seen in (
        ("gelu-tanh", lambda x: (functional.gelu(x) * 2,), "wrong"), ("softmax-unshifted-half", softmax, "wrong"),
        ("mean-as-sum", lambda x: (x.mean(-1),), "wrong"), ("floor-division", lambda x: (x / 0.3,), "wrong"),
        ("no-batch-shift", norm, "wrong"), ("raises", gelu, "crash"),
    ):  # fmt: skip
        yield Case(f"exporter: {name}", "exporter", f"papercompiler:exporter={name}", seen, fn, (x,))


def compilers(*, inductor: bool) -> Iterator[Case]:
    """Passes that change the meaning of a graph that was right."""
    x = normal(8, 32)
    for name, fn in (
        ("relu-dropped", lambda x: (functional.relu(x) * 2,)),
        ("sqrt-squared", lambda x: (x.abs().sqrt() * 3,)),
        ("sign-lost", lambda x: ((-x).exp(),)),
    ):  # fmt: skip
        yield Case(f"pass: {name}", "compiler", f"papercompiler:pass={name}", "wrong", fn, (x,))
    if inductor:
        for bug, seen in (("accuracy", "wrong"), ("compile_error", "crash")):
            yield Case(f"Inductor's relu: {bug}", "compiler", f"brokenductor:{bug}", seen, lambda x: (functional.relu(x) * 2,), (x,))


def cases(*, inductor: bool = False) -> list[Case]:
    """All cases."""
    return [*kernels(), *states(), *models(), *references(), *legal(), *exporters(), *compilers(inductor=inductor)]


def prepared(case: Case, folder: Path) -> str:
    """The spec of the case's stack; an emulated chip with a fault is written into ``folder``."""
    if not case.backend.startswith("tiger:"):
        return case.backend
    path = folder / f"{'-'.join(case.name.replace(':', '').split())}.toml"
    path.write_text(f"[[fault]]\n{case.backend.removeprefix('tiger:')}\n", "utf-8")
    return f"papertiger:{path}"


def main() -> None:
    """Try all cases and count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--inductor", action="store_true")
    parser.add_argument("--unseen", action="store_true", help="the cases of blame_unseen.py instead")
    given = parser.parse_args()
    os.environ["SAPPER_BACKENDS"] = str(HERE / "stacks")
    right: dict[str, list[bool]] = {}
    with tempfile.TemporaryDirectory() as folder, court_pool() as pool:
        chosen = [Case(*one) for one in unseen()] if given.unseen else cases(inductor=given.inductor)  # type: ignore[arg-type]
        for case in chosen:
            if given.only and case.blame not in given.only:
                continue
            ruling = rule_on(case.computation(), prepared(case, Path(folder)), outcome=case.seen, pool=pool)
            right.setdefault(case.blame, []).append(ruling.blame == case.blame)
            row = {
                "case": case.name, "truth": case.blame, "blame": ruling.blame, "reason": ruling.reason,
                "evidence": ruling.sentences("en"), "said": [one.said for one in ruling.evidence if one.said],
            }  # fmt: skip
            print("ok  " if ruling.blame == case.blame else "MISS", case.name, case.blame, ruling.blame, ruling.reason, flush=True)
            if given.out:
                given.out.parent.mkdir(parents=True, exist_ok=True)
                with given.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    for blame, found in right.items():
        print(f"{blame:10} {sum(found)}/{len(found)}")
    whole = [one for found in right.values() for one in found]
    print(f"{'all':10} {sum(whole)}/{len(whole)} = {sum(whole) / len(whole):.1%}")


if __name__ == "__main__":
    main()
