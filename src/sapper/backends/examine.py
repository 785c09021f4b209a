"""The check of one stack, run as a process of its own: ``python -m sapper.backends.examine check|survey NAME...``.

It writes one line of JSON for each stack to the file that it is told: stacks print to stdout themselves.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from sapper import messages
from sapper.backends.base import Backend
from sapper.backends.checkup import Checkup, Precision
from sapper.backends.discover import find
from sapper.errors import SapperError

TOLERANCE = 0.05
"""Relative L2 error from which an answer is another one than asked for; how precise it is, the precision probes tell."""


def examine(name: str, *, with_precision: bool) -> Checkup:
    """Compute something on a stack: a layer's values and gradients, then (where asked) its effective precision."""
    began_s = time.monotonic()
    backend = find(name)
    versions = backend.versions()
    found = _computed(backend, versions)
    precision: Precision | None = None
    if found.state == "passed" and with_precision:
        from sapper.backends.precision import measure

        precision = measure(backend)
    return msgspec.structs.replace(found, precision=precision, wall_s=time.monotonic() - began_s)


def _computed(backend: Backend, versions: dict[str, str]) -> Checkup:
    import torch
    from sapper.backends.computation import Computation, with_gradients

    def layer(x: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (torch.tanh(x @ weight).sum(-1),)

    generator = torch.Generator().manual_seed(0)
    tensors = (torch.randn(4, 8, generator=generator), torch.randn(8, 16, generator=generator))
    forward = Computation(name="layer", fn=layer, tensors=tensors, labels=("value",))
    asked = with_gradients(forward, wrt=[0, 1], cotangents=[torch.randn(4, generator=generator)])
    try:
        executable = backend.prepare(asked)
        got = executable(asked.tensors)
    except Exception as error:
        return Checkup(name=backend.name, state="failed", problem=_words(error), versions=versions)
    evidence = executable.executed()
    wrong = [label for label, one, truth in zip(asked.labels, got, asked(), strict=True) if not _near(one, truth)]
    found = Checkup(
        name=backend.name, state="wrong" if wrong else "passed", versions=versions,
        problem=messages.text("doctor.problem.wrong", outputs=", ".join(wrong)) if wrong else None,
    )  # fmt: skip
    if evidence is None:
        return found
    return msgspec.structs.replace(
        found, where=evidence.where, ops=evidence.ops, fallbacks=evidence.fallbacks, facts=dict(evidence.facts)
    )


def _near(got: object, truth: object) -> bool:
    import torch

    assert isinstance(got, torch.Tensor) and isinstance(truth, torch.Tensor)
    same = got.shape == truth.shape and got.dtype == truth.dtype
    return same and float((got - truth).norm()) <= TOLERANCE * float(truth.norm())


def _words(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [""])[0][:300]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _survey(name: str) -> Checkup:
    """Whether a stack is there."""
    try:
        lacks = find(name).missing()
    except SapperError as error:
        return Checkup(name=name, state="failed", problem=error.render(messages.language()))
    if lacks is None:
        return Checkup(name=name, state="passed")
    return Checkup(name=name, state="missing", problem=lacks.problem, remedy=lacks.remedy)


def main() -> None:
    """Arguments: ``survey``, ``check`` or ``quick``; the file to write; names of stacks."""
    what, path, *names = sys.argv[1:]
    with Path(path).open("ab", buffering=0) as out:
        for name in names:
            try:
                found = _survey(name) if what == "survey" else examine(name, with_precision=what == "check")
            except Exception as error:
                found = Checkup(name=name, state="failed", problem=_words(error))
            out.write(msgspec.json.encode(found) + b"\n")


if __name__ == "__main__":
    main()
