"""Effective precision: what a stack really computes in, measured by inputs whose exact answers tell.

- *Bits of inputs*: 1 + 2^-k passes through a product with an identity; the largest k that survives tells the significand. So TF32
  (11 bits) or bf16 (8 bits) under the name of fp32 are seen.
- *Bits of the running sum*: 2^t + 1 + ... + 1 - 2^t is exact as long as 2^t + 1 fits, whatever the order of the ones; the method is
  that of Fasi, Higham, Mikaitis and Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ Computer Science 7:e330 (2021). The
  sum of 4096 ones stands still at 2^11 where it runs in fp16.
- *Bits of results* (exp, GELU, norms): -log2 of the relative error to fp64 that nine of ten values keep.
- *Subnormals, NaN, rounding of casts*: by single values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from sapper.backends.base import Backend
from sapper.backends.checkup import NOMINAL_BITS, Family, Precision
from sapper.backends.computation import Computation

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SUM_TERMS = 36
"""Of a running sum: 4 channels by a window of 3 x 3, so that a convolution can hold it too."""
EXPONENTS = range(1, 29)
PLACES = ((0, SUM_TERMS - 1), (3, 20), (SUM_TERMS - 1, 0), (17, 18))
"""Where in the sum 2^t and -2^t stand."""
ONES = 4096


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One small question to a stack in one dtype."""

    name: str
    inputs: tuple[torch.Tensor, ...]
    run: Callable[..., torch.Tensor]
    read: Callable[[torch.Tensor, _Notes], None]
    """Reads the answer (on the CPU) into the notes."""


@dataclass
class _Notes:
    """What the probes of one dtype have told so far."""

    dtype: str
    bits: dict[str, int] = field(default_factory=dict)
    accumulators: dict[str, tuple[int, bool]] = field(default_factory=dict)
    subnormals: dict[str, str] = field(default_factory=dict)
    hides_nan: list[str] = field(default_factory=list)
    rounding: dict[str, str] = field(default_factory=dict)
    overflow: dict[str, str] = field(default_factory=dict)
    unmeasured: dict[str, str] = field(default_factory=dict)

    def lower(self, family: str, bits: int) -> None:
        self.bits[family] = min(bits, self.bits.get(family, bits))

    def sum_bits(self, family: str, bits: int, *, capped: bool) -> None:
        before = self.accumulators.get(family, (bits, capped))
        self.accumulators[family] = min(before, (bits, capped))


def measure(backend: Backend) -> Precision:
    """A stack's effective precision, in the dtypes that it takes."""
    notes = [_measured(backend, name) for name in DTYPES]
    families = [
        Family(
            family=family, dtype=one.dtype, bits=one.bits.get(family), accumulator_bits=one.accumulators.get(family, (None, False))[0],
            accumulator_capped=one.accumulators.get(family, (None, False))[1],
        )
        for one in notes
        for family in dict.fromkeys([*one.bits, *one.accumulators])
    ]  # fmt: skip
    return Precision(
        families=tuple(families),
        subnormals={f"{one.dtype} {key}": value for one in notes for key, value in one.subnormals.items()},
        hides_nan=tuple(f"{one.dtype} {name}" for one in notes for name in one.hides_nan),
        rounding={key: value for one in notes for key, value in one.rounding.items()},
        overflow={key: value for one in notes for key, value in one.overflow.items()},
        unmeasured={f"{one.dtype} {key}": value for one in notes for key, value in one.unmeasured.items()},
    )


def _measured(backend: Backend, dtype: str) -> _Notes:
    """All probes of a dtype in one graph; where the stack does not take them together, one by one, unless it lacks the dtype."""
    notes = _Notes(dtype)
    probes = probes_of(dtype)
    try:
        answers = _answers(backend, probes)
    except Exception:
        answers = []
        plainest = next(probe for probe in probes if probe.name == "multiply")
        for probe in [plainest, *(probe for probe in list(probes) if probe is not plainest)]:
            try:
                answers += _answers(backend, [probe])
            except Exception as error:
                said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
                if probe is plainest:
                    notes.unmeasured["all"] = said
                    return notes
                notes.unmeasured[probe.name] = said
        probes = [plainest, *(probe for probe in probes if probe is not plainest and probe.name not in notes.unmeasured)]
    for probe, answer in zip(probes, answers, strict=True):
        probe.read(answer, notes)
    return notes


def _answers(backend: Backend, probes: list[Probe]) -> list[torch.Tensor]:
    counts = [len(probe.inputs) for probe in probes]

    def fn(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rest = iter(tensors)
        return tuple(probe.run(*(next(rest) for _ in range(count))) for probe, count in zip(probes, counts, strict=True))

    tensors = tuple(one for probe in probes for one in probe.inputs)
    computation = Computation(name="precision", fn=fn, tensors=tensors, labels=tuple(probe.name for probe in probes))
    return backend.prepare(computation)(tensors)


def probes_of(dtype: str) -> list[Probe]:
    """The questions in one dtype."""
    kind = DTYPES[dtype]
    found = [*_input_bits(kind, NOMINAL_BITS[dtype]), *_sums(kind), *_results(kind, NOMINAL_BITS[dtype]), *_subnormals(kind), *_nan(kind)]
    return found + ([_cast(name) for name in ("bf16", "fp16")] if dtype == "fp32" else [])


def _input_bits(kind: torch.dtype, nominal: int) -> list[Probe]:
    values = torch.tensor([1 + 2.0**-k for k in range(1, nominal)], dtype=torch.float64).to(kind)
    size = len(values)
    diagonal, ones, unit = torch.diag(values), torch.ones(size, dtype=kind), torch.eye(size, dtype=kind)
    image = values.repeat(64 // size + 1)[:64].view(1, 1, 8, 8).expand(1, 4, 8, 8).contiguous()
    kernel = torch.zeros(4, 4, 3, 3, dtype=kind)
    kernel[range(4), range(4), 1, 1] = 1

    def read(family: str, pick: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor, _Notes], None]:
        def reader(answer: torch.Tensor, notes: _Notes) -> None:
            wrong = (pick(answer) != values).nonzero()
            notes.lower(family, int(wrong[0]) + 1 if len(wrong) else nominal)

        return reader

    return [
        Probe(name="matmul of left bits", inputs=(diagonal, unit), run=torch.matmul, read=read("matmul", torch.diag)),
        Probe(name="matmul of right bits", inputs=(unit, diagonal), run=torch.matmul, read=read("matmul", torch.diag)),
        Probe(name="multiply", inputs=(values, ones), run=torch.mul, read=read("multiply", lambda answer: answer)),
        Probe(
            name="conv of bits", inputs=(image, kernel), run=lambda x, w: torch.nn.functional.conv2d(x, w, padding=1),
            read=read("conv", lambda answer: answer.flatten()[:size]),
        ),
    ]  # fmt: skip


def _sums(kind: torch.dtype) -> list[Probe]:
    exponents = [t for t in EXPONENTS if kind != torch.float16 or t <= 15]
    left = torch.ones(len(PLACES), SUM_TERMS)
    right = torch.ones(SUM_TERMS, len(PLACES), len(EXPONENTS))
    terms = torch.ones(len(PLACES), len(exponents), SUM_TERMS)
    for at, (up, down) in enumerate(PLACES):
        left[at, [up, down]] = 2.0**12  # 2^28 is no number of fp16; 2^12 * 2^16 is a product of two
        right[up, at] = torch.tensor([2.0 ** (t - 12) for t in EXPONENTS])
        right[down, at] = -right[up, at]
        terms[at, :, up] = torch.tensor([2.0**t for t in exponents])
        terms[at, :, down] = -terms[at, :, up]
    left, right, terms = left.to(kind), right.flatten(1).to(kind), terms.to(kind)
    images, kernels = left.view(-1, 4, 3, 3), right.t().contiguous().view(-1, 4, 3, 3)
    many = torch.ones(8, ONES, dtype=kind)

    def own(answer: torch.Tensor) -> torch.Tensor:
        return answer.view(len(PLACES), len(PLACES), len(EXPONENTS)).diagonal().movedim(-1, 0)

    def read(family: str, pick: Callable[[torch.Tensor], torch.Tensor], known: list[int]) -> Callable[[torch.Tensor, _Notes], None]:
        def reader(answer: torch.Tensor, notes: _Notes) -> None:
            wrong = (pick(answer) != SUM_TERMS - 2).any(0).nonzero()
            notes.sum_bits(family, known[int(wrong[0])] if len(wrong) else known[-1] + 1, capped=not len(wrong))

        return reader

    def stuck(family: str) -> Callable[[torch.Tensor, _Notes], None]:
        def reader(answer: torch.Tensor, notes: _Notes) -> None:
            least = float(answer.double().min())
            if least != ONES and least >= 2:
                notes.sum_bits(family, int(torch.tensor(least).log2()), capped=False)

        return reader

    return [
        Probe(name="matmul", inputs=(left, right), run=torch.matmul, read=read("matmul", own, list(EXPONENTS))),
        Probe(
            name="conv", inputs=(images, kernels), run=lambda x, w: torch.nn.functional.conv2d(x, w),
            read=read("conv", lambda answer: own(answer.flatten(1)), list(EXPONENTS)),
        ),
        Probe(name="sum", inputs=(terms,), run=lambda x: x.sum(-1), read=read("sum", lambda answer: answer, exponents)),
        Probe(name="matmul of ones", inputs=(many, many.t().contiguous()), run=torch.matmul, read=stuck("matmul")),
        Probe(name="sum of ones", inputs=(many,), run=lambda x: x.sum(-1), read=stuck("sum")),
    ]  # fmt: skip


def _results(kind: torch.dtype, nominal: int) -> list[Probe]:
    generator = torch.Generator().manual_seed(0)
    line = torch.linspace(-1, 4, 512).to(kind)
    rows = torch.randn(16, 256, generator=generator).to(kind)
    functions: dict[str, tuple[torch.Tensor, Callable[..., torch.Tensor]]] = {
        "exp": (line, torch.exp),
        "gelu": (line, torch.nn.functional.gelu),
        "layer_norm": (rows, lambda x: torch.nn.functional.layer_norm(x, (256,))),
        "softmax": (rows, lambda x: torch.softmax(x, -1)),
    }

    def read(family: str, truth: torch.Tensor) -> Callable[[torch.Tensor, _Notes], None]:
        # A norm's results near zero are differences of much larger numbers.
        scale = truth.abs().clamp_min(0.5 if family == "layer_norm" else 2.0**-40)

        def reader(answer: torch.Tensor, notes: _Notes) -> None:
            error = ((answer.double() - truth).abs() / scale).flatten().nan_to_num(1.0)
            ninth = max(float(error.quantile(0.9)), 2.0**-60)
            notes.lower(family, max(0, min(nominal, int(-torch.tensor(ninth).log2()))))

        return reader

    return [Probe(name=name, inputs=(x,), run=run, read=read(name, run(x.double()))) for name, (x, run) in functions.items()]


def _subnormals(kind: torch.dtype) -> list[Probe]:
    small = torch.full((16, 16), torch.finfo(kind).smallest_normal / 4, dtype=torch.float64).to(kind)
    ones, unit = torch.ones_like(small), torch.eye(16, dtype=kind)

    def read(name: str) -> Callable[[torch.Tensor, _Notes], None]:
        def reader(answer: torch.Tensor, notes: _Notes) -> None:
            notes.subnormals[name] = "kept" if torch.equal(answer, small) else "flushed"

        return reader

    return [
        Probe(name="multiply of subnormals", inputs=(small, ones), run=torch.mul, read=read("multiply")),
        Probe(name="matmul of subnormals", inputs=(small, unit), run=torch.matmul, read=read("matmul")),
    ]


def _nan(kind: torch.dtype) -> list[Probe]:
    line = torch.tensor([[float("nan"), 1.0, -1.0, 2.0], [1.0, -2.0, float("nan"), 0.5]], dtype=kind)
    zeros = torch.zeros_like(line)
    functions: dict[str, Callable[..., torch.Tensor]] = {
        "relu": lambda x, y: torch.relu(x),
        "maximum": torch.maximum,
        "minimum": torch.minimum,
        "clamp": lambda x, y: x.clamp(-1, 1),
        "where": lambda x, y: torch.where(x > y, x, y),
        "amax": lambda x, y: x.amax(-1),
        "amin": lambda x, y: x.amin(-1),
        "sum": lambda x, y: x.sum(-1),
        "softmax": lambda x, y: x.softmax(-1),
    }

    def read(name: str, truth: torch.Tensor) -> Callable[[torch.Tensor, _Notes], None]:
        def reader(answer: torch.Tensor, notes: _Notes) -> None:
            if not torch.equal(answer.isnan(), truth):
                notes.hides_nan.append(name)

        return reader

    return [
        Probe(name=f"{name} of NaN", inputs=(line, zeros), run=run, read=read(name, run(line, zeros).isnan()))
        for name, run in functions.items()
    ]


def _cast(name: str) -> Probe:
    kind, bits = DTYPES[name], NOMINAL_BITS[name]
    half = 2.0**-bits
    steps = (half, 3 * half, half * 1.125, half * 0.875)
    modes = {"nearest-even": (0, 4, 2, 0), "nearest-away": (2, 4, 2, 0), "toward-zero": (0, 2, 0, 0)}
    values = torch.tensor([1 + step for step in steps] + [1e6])

    def read(answer: torch.Tensor, notes: _Notes) -> None:
        found = tuple(round((float(one) - 1) / half) for one in answer[:4])
        notes.rounding[name] = next((mode for mode, wanted in modes.items() if found == wanted), "other")
        if name == "fp16":
            notes.overflow[name] = "infinity" if torch.isinf(answer[4]) else "saturates"

    return Probe(name=f"cast to {name}", inputs=(values,), run=lambda x: x.to(kind), read=read)

