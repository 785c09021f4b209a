"""Silent fallbacks and unasked loss of precision: is each of them flagged, op by op, and is an honest chip left in peace?

    python benchmarks/prove/downgrades.py --out benchmarks/prove/results/downgrades.jsonl

Each lie is a personality of papertiger that breaks one op; a case is run and judged as `sapper prove ops` does it, a training step as
`sapper prove model` does. A downgrade that changes no bit of the outputs is no downgrade, and counted apart. Whole-chip settings are
asked of `sapper doctor`'s probes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from downgrade_cases import Probe, probes
from emulated import watched

import torch
from sapper.backends import papertiger
from sapper.backends.checkup import Precision as Measured
from sapper.backends.evidence import computed_by_host
from sapper.backends.papertiger.op_kinds import MOVES
from sapper.backends.papertiger.personality import Fault, Personality, Precision, load
from sapper.backends.precision import measure
from sapper.backends.stacks.papertiger import Papertiger
from sapper.prove.ops.examine import Case, Ran, Runner, same_bits
from sapper.prove.verdict import RED, CaseVerdict

Row = dict[str, Any]
HONEST = {
    "as shipped": Precision(), "short chunks": Precision(chunk=16),
    "long chunks, polynomials of two units": Precision(chunk=512, transcendental_ulp=2.0),
}  # fmt: skip
"""Chips that are as good as they say, by other orders of adding."""
FORMS = ("bf16", "tf32", "fp16")
MODELS = ("gpt", "convnet", "moe")
WHOLE: dict[str, Precision] = {
    "products read as TF32": Precision(matmul_input="tf32"),
    "products read as HF32": Precision(matmul_input="hf32"),
    "products read as bf16": Precision(matmul_input="bf16"),
    "products read as fp16": Precision(matmul_input="fp16"),
    "products read as FP8": Precision(matmul_input="fp8_e4m3"),
    "sums kept in fp16": Precision(accumulator="fp16"),
    "sums kept in bf16": Precision(accumulator="bf16"),
    "sums kept in TF32": Precision(accumulator="tf32"),
    "results rounded to bf16": Precision(result="bf16"),
    "results rounded to TF32": Precision(result="tf32"),
    "denormals flushed": Precision(flush_denormals=True),
    "NaN dropped by max and its like": Precision(nan="number"),
    "overflow saturates": Precision(overflow="saturate"),
    "casts truncate": Precision(rounding="toward-zero"),
}  # fmt: skip
"""What a whole chip does unasked; the formats of products and sums are those of fp32 programs."""


def chip(*faults: Fault, precision: Precision | None = None) -> Papertiger:
    """A backend of the emulated chip with these faults."""
    backend = Papertiger(None)
    backend.personality = Personality(faults=faults, precision=precision or Precision())
    backend.device()
    return backend


def case_of(probe: Probe) -> Case:
    """As `sapper prove ops` would have it."""
    return Case(id=probe.name, op=probe.op, dtype="fp32", phase="forward", computation=probe.computation)


def asked(probe: Probe, backend: Papertiger) -> tuple[Ran, CaseVerdict]:
    """One run on a chip, judged."""
    runner = Runner(case_of(probe), backend)
    ran = runner.run()
    return ran, runner.judged(ran)


def launched(probe: Probe) -> list[str]:
    """Ops that the honest chip launches for a case."""
    backend = chip()
    Runner(case_of(probe), backend).run()
    return sorted(papertiger.chip().counters.launched)


def bits_alone(probe: Probe, ran: Ran) -> bool:
    """Whether the values alone would have given the fallback away, on a chip that counts nothing."""
    return ran.outputs is not None and computed_by_host(probe.op, probe.computation.tensors, got=ran.outputs, peer=probe.computation)


def fallbacks() -> Iterator[Row]:
    """Each op that the cases launch, computed by the host unsaid: by the first case that launches it."""
    known: set[str] = set()
    for probe in probes():
        if probe.denormal:
            continue
        for op in launched(probe):
            if op in known:
                continue
            known.add(op)
            ran, verdict = asked(probe, chip(Fault(kind="silent-fallback", op=op)))
            yield {"part": "fallback", "op": op, "case": probe.name, "outcome": verdict.outcome, "flagged": verdict.outcome == "fallback",
                   "by_bits": bits_alone(probe, ran)}  # fmt: skip


def downgrades() -> Iterator[Row]:
    """Each op of which fp32 operands are rounded, and each whose running sum or result is narrow, unasked.

    An op is asked case after case until one flags it, as a sweep with its many samples would: a mean of thousands of terms hides what
    the terms alone show.
    """
    known: set[tuple[str, str, str]] = set()
    for probe in probes():
        right = Runner(case_of(probe), chip()).run()
        for op in launched(probe):
            kinds = [("flush-denormals", "")] if probe.denormal else [("low-precision-input", form) for form in FORMS]
            if op.removeprefix("aten::") not in MOVES and not probe.denormal:
                kinds += [("narrow-accumulation", form) for form in ("bf16", "fp16")]
            for kind, form in kinds:
                if (op, kind, form) in known:
                    continue
                fault = Fault(kind=kind, op=op, **({"form": form} if form else {}))  # type: ignore[arg-type]
                ran, verdict = asked(probe, chip(fault))
                row = {"part": kind, "form": form, "op": op, "case": probe.name, "outcome": verdict.outcome, "reason": verdict.reason}
                if _same(ran, right):
                    yield {**row, "inert": True}
                    continue
                flagged = verdict.outcome in RED or _said_flushed(verdict)
                if flagged:
                    known.add((op, kind, form))
                yield {**row, "flagged": flagged}


def _same(ran: Ran, other: Ran) -> bool:
    if ran.outputs is None or other.outputs is None:
        return False
    return all(same_bits(one, two) for one, two in zip(ran.outputs, other.outputs, strict=True))


def _said_flushed(verdict: CaseVerdict) -> bool:
    """Whether it is said that denormals count as zero, which is legal."""
    return verdict.outcome == "legal" and any(one.reason in ("prove.reason.flushed", "prove.reason.zeroed") for one in verdict.scores)


def whole_chips() -> Iterator[Row]:
    """What `sapper doctor` says of chips that are less precise than their dtypes."""
    honest = measure(chip())
    yield {"part": "doctor", "chip": "honest", "accused": _said(honest, honest)}
    for name, precision in WHOLE.items():
        said = _said(measure(chip(precision=precision)), honest)
        yield {"part": "doctor", "chip": name, "flagged": bool(said), "said": said}


def _said(found: Measured, honest: Measured) -> list[str]:
    said = [f"{one.family} {one.dtype}: {form}" for one, form in found.downgrades()]
    said += [f"{one.family} {one.dtype}: sums of {one.accumulator_bits} bits" for one in found.narrow()]
    said += [f"{name}: {value}" for name, value in found.subnormals.items() if value == "flushed"]
    said += [f"NaN: {name}" for name in found.hides_nan]
    for mine, theirs in ((found.rounding, honest.rounding), (found.overflow, honest.overflow)):
        said += [f"{name}: {value}" for name, value in mine.items() if value != theirs.get(name)]
    return said


def honest() -> Iterator[Row]:
    """Every case on chips that are as good as they say."""
    for name, precision in HONEST.items():
        backend = chip(precision=precision)
        for probe in probes():
            ran, verdict = asked(probe, backend)
            yield {"part": "honest", "chip": name, "case": probe.name, "outcome": verdict.outcome, "outputs": len(ran.outputs or ()),
                   "reason": verdict.reason}  # fmt: skip


def in_models(names: Sequence[str]) -> Iterator[Row]:
    """Each op of a training step computed by the host unsaid; the shadow of `sapper prove model` watches."""
    for name in names:
        records, _ = watched(name, load("honest-fp32"), seed=1)
        yield {"part": "model", "model": name, "ops": len(records), "accused": sum(one.outcome in RED for one in records)}
        for op in sorted({one.op.partition(".")[0] for one in records}):
            papertiger.chip().counters.reset()
            found, _ = watched(name, Personality(faults=(Fault(kind="silent-fallback", op=op),)), seed=1)
            red = [one for one in found if one.outcome in RED]
            mine = [one for one in red if one.op.partition(".")[0] == op]
            inert = op not in papertiger.chip().counters.launched and not mine
            yield {"part": "model", "model": name, "op": op, "flagged": bool(mine), "others": len(red) - len(mine), "inert": inert}


def settled(rows: Sequence[Row]) -> list[Row]:
    """The last row of each lie that has an effect: the one that flags it, where any does."""
    last = {(row["part"], row.get("model"), row.get("op"), row.get("form"), row.get("chip")): row for row in rows
            if "flagged" in row and not row.get("inert")}  # fmt: skip
    return list(last.values())


def main() -> None:
    """Run all parts, print a line for each, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.out:
        given.out.write_text("", "utf-8")
    for part in (honest(), fallbacks(), downgrades(), whole_chips(), *(in_models([name]) for name in given.models)):
        rows = list(part)
        if given.out:
            with given.out.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
        report(rows)


def report(rows: Sequence[Row]) -> None:
    """A line for a part, and one for each lie that nobody flagged."""
    live = settled(rows)
    accused = sum(row["outcome"] in RED for row in rows if row["part"] == "honest") + sum(bool(row.get("accused")) for row in rows)
    print(f"{rows[0]['part']}: {sum(row['flagged'] for row in live)} of {len(live)} flagged, honest accused: {accused}", flush=True)
    for row in live:
        if not row["flagged"]:
            print("  not flagged:", json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
