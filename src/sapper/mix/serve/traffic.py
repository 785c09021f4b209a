"""Traffic in classes: short and long requests, which unlike chips may serve at unlike cost (Melange, arXiv:2404.14527)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from sapper.errors import BadValue
from sapper.predict.serve.traffic import Traced, Traffic, draw, parse_length, parse_rate, traced

DRAWN = 1500
"""Requests that are drawn of lengths that vary, to cut them into classes."""
UNEVEN = 0.3
"""Coefficient of variation of a length from which on requests are cut into short and long ones."""
WHOLE = "all"
"""The class of all requests, where they are not told apart."""
MOST_CLASSES = 6
FIELDS = ("name", "rate", "input", "output")


@dataclass(frozen=True, kw_only=True)
class Class:
    """Requests that are alike."""

    name: str
    traffic: Traffic
    """With its rate."""

    @property
    def rate_per_s(self) -> float:
        """Requests per second."""
        assert self.traffic.rate_per_s is not None
        return self.traffic.rate_per_s

    @property
    def longest(self) -> float:
        """Tokens of the longest request that must fit."""
        if self.traffic.trace is not None:
            return float(max(prompt + answer for _, prompt, answer in self.traffic.trace.arrivals))
        return sum(length.tokens * (1 + 3 * length.cv_ratio) for length in (self.traffic.prompt, self.traffic.answer))


def classes_of(traffic: Traffic) -> tuple[Class, ...]:
    """``traffic`` whole where its requests are nearly alike, else its shorter and its longer half by tokens."""
    whole = (Class(name=WHOLE, traffic=traffic),)
    if traffic.trace is None and max(traffic.prompt.cv_ratio, traffic.answer.cv_ratio) < UNEVEN:
        return whole
    drawn = draw(replace(traffic, rate_per_s=traffic.rate_per_s or 1.0), DRAWN)
    prompts, answers = np.array(drawn.input_tokens), np.array(drawn.output_tokens)
    tokens = prompts + answers
    cut = float(np.median(tokens))
    short = tokens <= cut
    if short.all() or traffic.rate_per_s is None:
        return whole
    found = []
    for name, chosen in (("short", short), ("long", ~short)):
        at_s = np.cumsum(np.random.default_rng(traffic.seed).exponential(1.0, int(chosen.sum())))
        arrivals = tuple(
            (float(second), int(prompt), int(answer))
            for second, prompt, answer in zip(at_s - at_s[0], prompts[chosen], answers[chosen], strict=True)
        )
        rate = traffic.rate_per_s * float(chosen.mean())
        found.append(Class(name=name, traffic=traced(Traced(path=name, arrivals=arrivals), rate_per_s=rate)))
    return tuple(found)


def parse_classes(texts: Sequence[str], *, where: str) -> tuple[Class, ...]:
    """Read ``name=chat rate=15/s input=200 output=150`` for each class; lengths as ``--input`` takes them, fields parted by blanks.

    Raises:
        BadValue: A field that is missing, unknown or cannot be meant, a name given twice, or too many classes.
    """
    if len(texts) > MOST_CLASSES:
        raise BadValue("SP-MIX-260", where=where, count=len(texts), most=MOST_CLASSES)
    found: list[Class] = []
    for number, text in enumerate(texts, start=1):
        fields = dict(part.partition("=")[::2] for part in text.split())
        unknown = [key for key in fields if key not in FIELDS]
        missing = [key for key in FIELDS[1:] if key not in fields]
        if unknown or missing:
            raise BadValue(
                "SP-MIX-261", where=where, text=text, field=(unknown or missing)[0], known=" ".join(f"{key}=..." for key in FIELDS)
            )
        name = fields.get("name", f"class {number}")
        if any(one.name == name for one in found):
            raise BadValue("SP-MIX-262", where=where, name=name)
        prompt, answer = (parse_length(fields[key], where=f"{where} {key}") for key in ("input", "output"))
        rate = parse_rate(fields["rate"], where=f"{where} rate")
        found.append(Class(name=name, traffic=Traffic(arrivals="poisson", rate_per_s=rate, prompt=prompt, answer=answer)))
    return tuple(found)


def together(parts: Sequence[tuple[Class, float]], *, count: int, seed: int = 0) -> Traffic:
    """The stream of several classes, each at the given requests per second, as one."""
    total = sum(rate for _, rate in parts)
    if len(parts) == 1:
        return replace(parts[0][0].traffic, rate_per_s=parts[0][1])
    rng = np.random.default_rng(seed)
    rows: list[tuple[float, int, int]] = []
    for one, rate in parts:
        many = max(1, round(count * rate / total))
        drawn = draw(replace(one.traffic, rate_per_s=rate), many)
        at_s = np.cumsum(rng.exponential(1.0 / rate, many))
        pick = np.arange(many) % len(drawn)
        rows += [(float(second), int(drawn.input_tokens[at]), int(drawn.output_tokens[at])) for second, at in zip(at_s, pick, strict=True)]
    rows.sort()
    start = rows[0][0]
    return traced(
        Traced(path="+".join(one.name for one, _ in parts), arrivals=tuple((at - start, p, a) for at, p, a in rows)), rate_per_s=total
    )
