"""The flags that describe a served model and its load, the same for every verb that takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sapper.errors import BadValue

if TYPE_CHECKING:
    from sapper.predict.serve.job import ServeJob
    from sapper.predict.serve.question import ServeQuestion
    from sapper.predict.serve.speculate import Speculation
    from sapper.predict.serve.traffic import Traffic
    from sapper.workloads.model import Model

F = TypeVar("F", bound=Callable[..., Any])
MOST_USERS = 1_000_000


def load_options(prefix: str = "") -> Callable[[F], F]:
    """Adds ``--rate``, ``--concurrency``, ``--input``, ``--output``, ``--slo``, ``--weights`` and ``--kv``, named ``--<prefix>...``."""
    options: tuple[Callable[[F], F], ...] = (
        click.option(f"--{prefix}rate", "rate", default=None, metavar="N/s", help="serve.option.rate"),
        click.option(f"--{prefix}concurrency", "concurrency", type=int, default=None, metavar="N", help="serve.option.concurrency"),
        click.option(f"--{prefix}input", "prompt", default=None, metavar="TOKENS", help="serve.option.input"),
        click.option(f"--{prefix}output", "answer", default=None, metavar="TOKENS", help="serve.option.output"),
        click.option(f"--{prefix}slo", "slo", default=None, metavar="ttft=500ms,tpot=50ms", help="serve.option.slo"),
        click.option(f"--{prefix}weights", "weights", default="bf16", show_default=True, metavar="DTYPES", help="serve.option.weights"),
        click.option(f"--{prefix}kv", "kv", default=None, metavar="DTYPE", help="serve.option.kv"),
    )

    def add(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return add


LOAD_FLAGS = ("rate", "concurrency", "prompt", "answer", "slo", "weights", "kv")
"""Names under which :func:`load_options` gives its flags."""


def serve_question(model: Model, load: dict[str, Any], *, prefix: str, **more: Any) -> ServeQuestion:
    """The question of the flags of :func:`load_options`; ``more`` are its other fields, and flags of :func:`traffic_of`.

    Raises:
        BadValue: Nothing says how much is asked, or what is asked cannot be meant.
    """
    from sapper.predict.serve.question import ServeQuestion
    from sapper.predict.serve.slo import parse_slo

    stream = {name: more.pop(name) for name in ("trace", "arrivals", "seed") if name in more}
    names = ("rate", "concurrency", "prompt", "answer")
    traffic = traffic_of(model, **{name: load[name] for name in names}, prefix=prefix, **stream)
    slo = None if load["slo"] is None else parse_slo(load["slo"], where=f"{prefix}slo")
    generates = model.causal and model.fixed_seq_len is None
    free = more.pop("free", False)
    if generates and not free and slo is None and traffic.rate_per_s is None and traffic.concurrency is None:
        raise BadValue("SP-SERVE-007", where=f"{prefix}rate")
    weights = weights_of(load["weights"], where=f"{prefix}weights")
    job = job_of(model, kv=load["kv"], stack=more.pop("stack", None), weights=weights[0], where=f"{prefix}kv")
    return ServeQuestion(job=job, traffic=traffic, slo=slo, weights=weights, disaggregate=more.pop("disaggregate", "auto"), **more)


def weights_of(text: str, *, where: str) -> tuple[str, ...]:
    """The dtypes of a comma-separated list.

    Raises:
        BadValue: One that weights are not stored in.
    """
    from sapper.predict.serve.job import WEIGHT_DTYPES

    found = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    for name in found or (text,):
        if name not in WEIGHT_DTYPES:
            raise BadValue("SP-PRED-001", where=where, name=name, known=", ".join(WEIGHT_DTYPES))
    return found


def job_of(model: Model, *, kv: str | None, stack: str | None, weights: str, where: str) -> ServeJob:
    """What is served; the cache is stored in 16 bit where nothing else is said.

    Raises:
        BadValue: A dtype that a cache is not stored in.
    """
    from sapper.predict.serve.candidates import with_weights
    from sapper.predict.serve.job import CACHE_DTYPES, ServeJob

    if kv is not None and kv not in CACHE_DTYPES:
        raise BadValue("SP-PRED-001", where=where, name=kv, known=", ".join(CACHE_DTYPES))
    return with_weights(ServeJob(model=model, cache_dtype=kv or "bf16", stack=stack), weights)


def traffic_of(
    model: Model,
    *,
    rate: str | None,
    concurrency: int | None,
    prompt: str | None,
    answer: str | None,
    trace: str | None = None,
    arrivals: str = "poisson",
    seed: int = 0,
    prefix: str = "--",
) -> Traffic:
    """The load that the flags describe; ``rate_per_s`` and ``concurrency`` None where it is to be found.

    Raises:
        BadValue: Flags that exclude each other, a length that is not given, or a number that cannot be meant.
        BadFile: The trace.
    """
    from sapper.predict.serve.trace import read_trace
    from sapper.predict.serve.traffic import Length, Traffic, parse_rate, traced

    if rate is not None and concurrency is not None:
        raise BadValue("SP-SERVE-008", where=f"{prefix}rate, {prefix}concurrency")
    if concurrency is not None and not 1 <= concurrency <= MOST_USERS:
        raise BadValue("SP-PRED-026", where=f"{prefix}concurrency", value=concurrency, most=MOST_USERS)
    per_s = None if rate is None else parse_rate(rate, where=f"{prefix}rate")
    if trace is not None:
        if concurrency is not None or prompt is not None or answer is not None:
            raise BadValue("SP-SERVE-009", where=f"{prefix}trace")
        return traced(read_trace(trace), rate_per_s=per_s)
    if not model.causal or model.fixed_seq_len is not None:
        length = Length(tokens=float(model.fixed_seq_len)) if model.fixed_seq_len is not None else None
        prompts, answers = length or _length(prompt, f"{prefix}input"), Length(tokens=1.0)
    else:
        prompts, answers = _length(prompt, f"{prefix}input"), _length(answer, f"{prefix}output")
    kind = "closed" if concurrency is not None else arrivals
    return Traffic(arrivals=kind, rate_per_s=per_s, concurrency=concurrency, prompt=prompts, answer=answers, seed=seed)  # type: ignore[arg-type]


def _length(text: str | None, where: str):  # type: ignore[no-untyped-def]
    from sapper.predict.serve.traffic import parse_length

    if text is None:
        raise BadValue("SP-SERVE-006", where=where)
    return parse_length(text, where=where)


def speculation_of(text: str | None, model: Model) -> Speculation | None:
    """The draft that ``--speculate`` describes; without a cost it is a head of one layer.

    Raises:
        BadValue: What is no draft.
    """
    if text is None:
        return None
    from sapper.predict.serve.speculate import head_cost_ratio, parse_speculation

    active = float(model.active_params)
    head = float(model.vocab * model.hidden)
    layer = max(0.0, active - 2 * head) / max(1, model.layers)
    cost = head_cost_ratio(layers=model.layers, layer_params=layer, head_params=head, active_params=active)
    return parse_speculation(text, head_cost=cost, where="--speculate")
