"""The rule: an output is right when its error is no larger than what a correct stack of the same precision may have.

In each norm of :mod:`sapper.prove.measure`, ``ratio = error / allowed``, where ``allowed`` is the largest of

- the rounding of the output itself;
- the error of the trusted peer, which computes on the same inputs in the same dtype;
- the spread: how far the truth moves when each input moves by a unit roundoff, which any stack that rounds inside may do.

The last two are computed only where the first does not explain the error. No bound is set by hand for an op or a model; the limits
below are how many times ``allowed`` a norm may reach, and docs/prove-rule.md has where they come from and how often they err.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

import torch
from sapper.prove import projected
from sapper.prove.measure import CROWD, LOW_PRECISION, Norms, Yardstick
from sapper.prove.reference import ACCUMULATOR_ROUNDOFF, UNIT_ROUNDOFF, Reference, widen
from sapper.prove.selections import Selection, equally_chosen
from sapper.prove.traits import Role
from sapper.prove.verdict import GREEN, Outcome, Score

OK = 4.0
"""Ratio up to which an output is right: healthy independent stacks reach 1.7 (fp32) to 2.2 (fp16) at their 99th percentile."""
RED = 8.0
"""Ratio from which it is a finding; between the two it is worth a look, and not accused."""
BIAS = 1.25
"""Unit roundoffs by which all may be off alike in a low precision: rounding to nearest gives at most 1, the mean of truncation is 1."""
BIAS_SHARED = 0.75
"""What a number that each row shares (its maximum, its norm) may add if it is rounded too; over n rows its mean is ``1 / sqrt n``."""
CROWDED = 4.0
"""Times ``allowed`` that the L2 norm of many low-precision numbers may reach: their mean square is certain, 4 is 16 roundings."""
ELEMENT_SIMPLE = 3.0
"""Times ``allowed`` that one element of low precision may be off where only the output is rounded: truncation gives 2."""
TYPICAL = 6**-0.5
"""Root mean square of a rounding error over the unit roundoff, for mantissas spread evenly."""
COARSEST_BITS = 4.0
"""Effective bits (the leading one counted) below which nothing is called a coarser format; FP8 E4M3 has 4."""
COARSEST_BITS_FP32 = 6.5
"""The same of what should be fp32: bf16 has 8, and loses more than one in sums."""


def judge(got: Sequence[torch.Tensor], reference: Reference, labels: Sequence[str]) -> list[Score]:
    """One score for each output of a computation; ``got`` lies on the CPU."""
    if reference.product is not None and len(got) == 1:
        longest = order(projected.terms(reference.product))
        ratio = projected.error_ratio(reference.product, got[0])
        if ratio is not None and ratio <= OK * longest:
            return [Score(label=labels[0], outcome="ok", ratio=ratio / longest)]
    expected = len(reference.peer if reference.trusts_peer else reference.truth)
    if len(got) != expected:
        if got and expected > 1 and all(_role(reference, at) == "private" for at in range(1, expected)):
            return [_score(got, reference, at=0, label=labels[0])]  # the others are the stack's own
        forms = {"expected": expected, "got": len(got)}
        return [Score(label=labels[0] if labels else "value", outcome="wrong", reason="prove.reason.outputs", values=forms)]
    return [_score(got, reference, at=at, label=label) for at, label in enumerate(labels[:expected])]  # an op may leave some out


def _score(outputs: Sequence[torch.Tensor], reference: Reference, *, at: int, label: str) -> Score:
    got = outputs[at]
    if reference.trusts_peer and got.dtype == reference.peer[at].dtype and same(got, reference.peer[at]):
        return Score(label=label, outcome="ok", ratio=0.0 if got.dtype in UNIT_ROUNDOFF else None)
    truth = reference.truth[at]
    dtype = _expected_dtype(got, reference, at)
    if got.shape != truth.shape or got.dtype != dtype:
        forms = {"expected": f"{dtype}{list(truth.shape)}", "got": f"{got.dtype}{list(got.shape)}"}
        private = _role(reference, at) == "private"
        return Score(
            label=label, outcome="legal" if private else "wrong", values=forms,
            reason="prove.reason.private" if private else "prove.reason.form",
        )  # fmt: skip
    if not got.numel():
        return Score(label=label, outcome="ok")
    score = _values(got, reference, at=at, label=label)
    return score if score.outcome in GREEN else _left_open(outputs, reference, at=at, label=label) or score


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors of one dtype have the same shape and values; bit by bit where they lie alike, which is half the work.

    Numbers that are none are the same where their bits are.
    """
    if one.shape != other.shape:
        return False
    if one.numel() * one.element_size() >= _MANY_BYTES and one.is_contiguous() and other.is_contiguous():
        with contextlib.suppress(RuntimeError):  # of a size that is no multiple of eight bytes, or a storage that begins amid them
            if torch.equal(one.view(-1).view(torch.int64), other.view(-1).view(torch.int64)):
                return True
    return bool(torch.equal(one, other))


_MANY_BYTES = 1 << 16


def _role(reference: Reference, at: int) -> Role | None:
    """What the op that made an output returned it for."""
    truth = reference.truth[at]  # before it is asked how the truth was made
    return reference.making.roles.get(id(truth))


def _values(got: torch.Tensor, reference: Reference, *, at: int, label: str) -> Score:
    if got.dtype not in UNIT_ROUNDOFF:
        return _discrete(got, reference, at=at, label=label)
    return _Floating(got, reference, at=at, label=label).score()


def _left_open(outputs: Sequence[torch.Tensor], reference: Reference, *, at: int, label: str) -> Score | None:
    """The score of an output that is right once the stack's own choices stand where PyTorch's documentation leaves a choice."""
    got, truth, making = outputs[at], reference.truth[at], reference.making
    contest, unordered = making.contests.get(id(truth)), making.unordered.get(id(truth))
    if contest is not None and (choices := contest.choices(got, truth)) is not None:
        score = _values(got, reference.changed(at, choices.made_in), at=at, label=label)
        reason, values = "prove.reason.winner", {"count": choices.other, "of": choices.places}
    elif unordered is not None and _fits_positions(outputs, reference, unordered, at=at):
        score = _values(unordered.ordered(got), reference.changed(at, unordered.ordered), at=at, label=label)
        reason, values = "prove.reason.any_order", {}
    else:
        return None
    return replace(score, outcome="legal", reason=reason, values={**score.values, **values}) if score.outcome in GREEN else None


def _fits_positions(outputs: Sequence[torch.Tensor], reference: Reference, selection: Selection, *, at: int) -> bool:
    """Whether values in an order of the stack's own are those that its positions name, where it gives positions."""
    assert selection.dim is not None
    chosen = reference.making.selections
    positions = next((other for other, one in enumerate(reference.truth) if chosen.get(id(one)) is selection), None)
    if positions is None:
        return True
    given, right = outputs[positions], reference.truth[positions]
    if (given.shape, given.dtype) != (right.shape, right.dtype) or not equally_chosen(given, right, selection=selection):
        return False
    got, named = outputs[at], selection.values.gather(selection.dim, given).to(outputs[at].dtype)
    return bool(((named == got) | (named.isnan() & got.isnan())).all())


def _expected_dtype(got: torch.Tensor, reference: Reference, at: int) -> torch.dtype:
    """What the peer returns; without asking it where there is only one answer."""
    truth = reference.truth[at]
    if got.dtype == truth.dtype and got.dtype not in UNIT_ROUNDOFF:
        return got.dtype
    if reference.dtypes is not None and reference.dtypes == {got.dtype}:
        return got.dtype
    if got.dtype is torch.float32 and _role(reference, at) == "statistic":
        return got.dtype
    return reference.peer[at].dtype


def _discrete(got: torch.Tensor, reference: Reference, *, at: int, label: str) -> Score:
    """Integers and booleans: equal, or another choice among equals, or where a correct stack may fall to either side."""
    truth = reference.truth[at]
    apart = got != truth
    if not bool(apart.any()):
        return Score(label=label, outcome="ok")
    if _role(reference, at) == "private":  # offsets and states of a generator, in whatever way the stack counts them
        values = {"count": int(apart.sum()), "of": got.numel()}
        return Score(label=label, outcome="legal", reason="prove.reason.private_values", values=values)
    selection = reference.making.selections.get(id(truth))
    if selection is not None and equally_chosen(got, truth, selection=selection):
        return Score(label=label, outcome="legal", reason="prove.reason.ties")
    undefined = reference.making.undefined.get(id(truth))
    if undefined is not None and not bool((apart & ~undefined).any()):
        return Score(label=label, outcome="legal", reason="prove.reason.undefined")
    if reference.flushed is not None and _as_flushed(got, reference, at=at):
        return Score(label=label, outcome="legal", reason="prove.reason.flushed_choice")
    either = reference.peer[at] != truth
    for run in reference.spread:
        either |= run[at] != truth
    if not bool((apart & ~either).any()):
        return Score(label=label, outcome="legal", reason="prove.reason.jump")
    values = {"count": int(apart.sum()), "of": got.numel()}
    return Score(label=label, outcome="wrong", reason="prove.reason.exact", values=values)


def _as_flushed(got: torch.Tensor, reference: Reference, *, at: int) -> bool:
    """Whether integers or booleans are those of a stack to which denormal numbers that go in are zero, each alone or all of them;
    positions, which depend on each other, by what they hold."""
    truth, flushed = reference.truth[at], reference.flushed
    if flushed is None or flushed[at].shape != got.shape:
        return False
    selection = reference.making.selections.get(id(truth))
    if selection is not None:
        return equally_chosen(got, truth, selection=selection.flushed(reference.smallest))
    return not bool(((got != truth) & (got != flushed[at])).any())


class _Floating:
    """One floating or complex output under judgement."""

    def __init__(self, got: torch.Tensor, reference: Reference, *, at: int, label: str) -> None:
        self.got, self.reference, self.at, self.label = got, reference, at, label
        self.dtype = got.dtype
        self.roundoff = UNIT_ROUNDOFF[got.dtype]
        self.inside = min(self.roundoff, ACCUMULATOR_ROUNDOFF)
        self.allowed = Norms(l2=1.0, rows=1.0, slices=1.0, elements=1.0, bias=1.0)
        self.norms: Norms

    def score(self) -> Score:
        self._measure(self.reference.truth[self.at], None)
        if not math.isfinite(self.norms.l2):
            drop = self._not_finite()
            if drop is None:
                return self._as_flushed() or self._as_decomposed() or Score(label=self.label, outcome="nan", reason="prove.reason.nan")
            self._measure(self.reference.truth[self.at], drop)
        return self._finite()

    def _finite(self) -> Score:
        """The score by all that is finite."""
        ratio, norm = self._ratio()
        if ratio > OK and ratio / self._order() <= OK:  # in the worst order of adding; what the peer's is does not matter
            return self._said("ok", ratio / self._order())
        if ratio > OK:
            self._allow(self.reference.peer[self.at])
            ratio, norm = self._ratio()
        if ratio > OK and self.roundoff > self.inside and not self.dtype.is_complex:
            ratio, norm = self._steps_allowed()
        if ratio > OK:
            ratio, norm = self._spread_allowed()
        if ratio <= RED:
            return self._said("ok", ratio)
        return self._excused(ratio) or self._coarse(ratio) or self._said("wrong", ratio, f"prove.reason.error.{norm}")

    def _steps_allowed(self) -> tuple[float, str]:
        """The ratio where a stack may round between the steps of the very op that made the output.

        What the first step rounds may cancel in the next: it is taken off the error of each element before that is measured by the
        element's own size. In the other norms it is averaged, and as large as in the answer of such a stack.
        """
        steps = self.reference.stepwise(self.at, self.dtype)
        if steps is not None:
            norms = self.yardstick.norms(steps.answer)
            if math.isfinite(norms.l2):  # else a step overflows that the truth does not have
                self.allowed = self.allowed.largest(dataclasses.replace(norms, elements=0.0))
            truth = self.reference.truth[self.at]
            apart = widen(self.got) - truth
            rest = truth + apart.sign() * (apart.abs() - steps.slack).clamp(min=0)
            self.norms = dataclasses.replace(self.norms, elements=self.yardstick.norms(rest).elements)
        return self._ratio()

    def _spread_allowed(self) -> tuple[float, str]:
        """The ratio with the spread allowed.

        Where intermediate results may be rounded to the dtype, that is more than what is computed in fp32 moves by. Such roundings are
        everywhere: they excuse no error of a few elements.
        """
        if self.roundoff > self.inside and not self.reference.making.simple:
            for run in self.reference.spread_inside:
                self._allow(run[self.at])
            strict = self._ratio()
            if strict[0] <= OK or (strict[0] > RED and self.yardstick.is_sparse(self.yardstick.apart(self.got))):
                return strict
        for run in self.reference.spread:
            self._allow(run[self.at])
        return self._ratio()

    def _measure(self, truth: torch.Tensor, drop: torch.Tensor | None) -> None:
        tiny = torch.finfo(self.dtype).tiny
        self.yardstick = Yardstick(truth, roundoff=self.roundoff, inside=self.inside, tiny=tiny, drop=drop)
        self.norms = self.yardstick.norms(self.got)

    def _allow(self, other: torch.Tensor) -> None:
        """Let the error be as large as that of ``other``, which is a correct answer."""
        same = other.dtype == self.got.dtype and torch.equal(other, self.got)
        norms = self.norms if same else self.yardstick.norms(widen(other))
        if math.isfinite(norms.l2):  # else it has other NaNs than the truth, and says nothing
            self.allowed = self.allowed.largest(norms)

    def _ratio(self) -> tuple[float, str]:
        """The largest error over what is allowed, such that :data:`RED` is the limit of each norm, and the norm's name."""
        asked = ((name, value) for name, value in self.norms.items() if name != "bias" or self._has_direction())
        return max((value / getattr(self.allowed, name) * RED / self._limit(name), name) for name, value in asked)

    def _has_direction(self) -> bool:
        """Whether correct answers differ by less than the truth is large; else there is nothing of which all could be off by a share."""
        return self.allowed.l2 * self.roundoff / 3**0.5 < 1

    def _limit(self, norm: str) -> float:
        if self.roundoff <= LOW_PRECISION:
            return RED
        crowd = self.yardstick.count >= CROWD
        if norm == "elements":
            return ELEMENT_SIMPLE if self.norms.elements > ELEMENT_SIMPLE and self.reference.making.simple else RED
        if norm == "bias":
            return BIAS + BIAS_SHARED / math.sqrt(self.yardstick.row_count)
        return CROWDED if crowd and norm == "l2" else RED

    def _not_finite(self) -> torch.Tensor | None:
        """Where truth or output are no finite numbers, if a correct stack may have them there; else None."""
        truth, got = self.reference.truth[self.at], self.got
        right = _kind(got) == _kind(truth.to(self.dtype))
        if not bool(right.all()):
            right |= _kind(got) == _kind(self.reference.peer[self.at])
        if not bool(right.all()) and not self.dtype.is_complex:
            edge = torch.finfo(self.dtype).max * (1 - RED * self.roundoff)
            right |= (truth.abs() >= edge) & (widen(got).abs() >= edge) & (torch.sign(truth) == torch.sign(widen(got)))
        return ~(torch.isfinite(got) & torch.isfinite(truth)) if bool(right.all()) else None

    def _as_flushed(self) -> Score | None:
        """The score where infinities and NaN are those of a stack to which denormal inputs are zero: ``1 / 1e-40`` is an infinity there.
        None where they are not, or the rest is wrong."""
        flushed = self.reference.flushed
        if flushed is None or not bool((_kind(self.got) == _kind(flushed[self.at].to(self.dtype))).all()):
            return None
        self._measure(flushed[self.at], ~torch.isfinite(self.got))
        ratio, _ = self._ratio()
        return self._said("legal", ratio, "prove.reason.flushed") if ratio <= RED else None

    def _as_decomposed(self) -> Score | None:
        """The score where infinities and NaN stand as in PyTorch's own decomposition of the op: of ``a + (b - a) w`` and
        ``a (1 - w) + b w``, which are both right, the first gives NaN of two infinities. None where they do not, or the rest is wrong.

        Only where the truth is no number either may it be another of them: what one stack makes of finite numbers, all do.
        """
        decomposed = self.reference.decomposed
        if decomposed is None or len(decomposed) <= self.at or decomposed[self.at].shape != self.got.shape:
            return None
        truth, kind = self.reference.truth[self.at], _kind(self.got)
        neither = ~torch.isfinite(truth) & ~torch.isfinite(decomposed[self.at])
        right = (kind == _kind(truth.to(self.dtype))) | (neither & (kind == _kind(decomposed[self.at])))
        if not bool(right.all()):
            return None
        self._measure(truth, ~(torch.isfinite(self.got) & torch.isfinite(truth)))
        score = self._finite()
        return replace(score, outcome="legal", reason="prove.reason.decomposed") if score.outcome in GREEN else None

    def _order(self) -> float:
        return order(self.reference.making.terms, self.inside / self.roundoff)

    def _excused(self, ratio: float) -> Score | None:
        """A larger error that is a correct stack's all the same."""
        if ratio / self._order() <= RED:
            return self._said("legal", ratio / self._order(), "prove.reason.order", terms=self.reference.making.terms)
        if self.reference.flushed is None:
            return None
        self._measure(self.reference.flushed[self.at], self.yardstick.drop)
        return self._said("legal", self._ratio()[0], "prove.reason.flushed") if self._ratio()[0] <= RED else None

    def _coarse(self, ratio: float) -> Score | None:
        """Whether the error is that of a coarser format: of the size of its rounding in every norm, and to either side alike."""
        conditioned = max((self.yardstick.norms(run[self.at]).l2 for run in self.reference.spread), default=0.0)
        roundoff = self.roundoff * self.norms.l2 / max(TYPICAL * 3**0.5, TYPICAL * conditioned)
        bits = -math.log2(roundoff) if 0 < roundoff < math.inf else 0.0
        if bits < (COARSEST_BITS_FP32 if self.roundoff <= LOW_PRECISION else COARSEST_BITS):
            return None
        coarser = self.yardstick.coarser(roundoff)
        apart, norms = coarser.apart(self.got), coarser.norms(self.got)
        uneven = any(value / getattr(self.allowed, name) > (2.0 if name == "bias" else RED) for name, value in norms.items())
        if uneven or coarser.is_sparse(apart) or coarser.leans(apart):
            return None
        return self._said("imprecise", ratio, "prove.reason.coarse", bits=round(bits, 1))

    def _said(self, outcome: Outcome, ratio: float, reason: str | None = None, **values: Any) -> Score:
        unit = self.roundoff / 3**0.5
        if reason is not None:
            values["times"] = float(f"{ratio:.3g}")
        return Score(
            label=self.label, outcome=outcome, ratio=ratio, error_l2=self.norms.l2 * unit, allowed_l2=self.allowed.l2 * unit,
            error_max=self.norms.elements * self.roundoff, allowed_max=self.allowed.elements * self.roundoff,
            bias=self.norms.bias or None, reason=reason, values=values,
        )  # fmt: skip


def order(terms: int, inside_ratio: float = 1.0) -> float:
    """How much more than one rounding a sum's error is where its terms are added one after another.

    The errors of n additions are independent in mean (Higham and Mary 2019, Theorem 2.4): their sum grows as sqrt n, half of which
    the terms' own spread accounts for.

    Args:
        terms: n.
        inside_ratio: Roundoff of the sum over that of the output.
    """
    return max(1.0, math.sqrt(terms) / 2 * inside_ratio)


def _kind(tensor: torch.Tensor) -> torch.Tensor:
    """0 finite, 1 and -1 infinite, 2 no number.

    A complex number is infinite if a part of it is, even if the other is no number, and else no number if a part is (ISO C99, G.3):
    which parts become so depends on the order of multiplying.
    """
    if tensor.is_complex():
        parts = _kind(tensor.real).abs(), _kind(tensor.imag).abs()
        infinite = (parts[0] == 1) | (parts[1] == 1)
        return torch.maximum(*parts).masked_fill(infinite, 1)
    wide = widen(tensor)
    kind = torch.zeros(wide.shape, dtype=torch.int8)
    kind[torch.isposinf(wide)] = 1
    kind[torch.isneginf(wide)] = -1
    kind[torch.isnan(wide)] = 2
    return kind
