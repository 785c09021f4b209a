"""The flags that describe a training job, the same for every verb that takes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sapper.cli.output import talk
from sapper.errors import BadValue

if TYPE_CHECKING:
    from sapper.predict.job import TrainJob

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_SEQ = 4096
"""Tokens of a sequence where the user gives none, and the model has no length of its own and positions for so many."""

_OPTIONS: tuple[Callable[[F], F], ...] = (
    click.option("--seq", "seq_len", type=int, default=None, metavar="N", help="predict.option.seq"),
    click.option("--global-batch", type=int, default=None, metavar="N", help="predict.option.global_batch"),
    click.option("--precision", default="bf16", show_default=True, metavar="fp32|tf32|bf16|fp16|fp8", help="predict.option.precision"),
    click.option("--optimizer", default="adamw", show_default=True, metavar="NAME", help="predict.option.optimizer"),
    click.option("--lora", "lora_rank", type=int, default=None, metavar="RANK", help="predict.option.lora"),
    click.option(
        "--attention", type=click.Choice(["flash", "unfused"]), default="flash", show_default=True, help="predict.option.attention"
    ),
    click.option("--stack", default=None, metavar="NAME", help="predict.option.stack"),
)


def job_options(function: F) -> F:
    """Adds the flags of a job: ``seq_len``, ``global_batch``, ``precision``, ``optimizer``, ``lora_rank``, ``attention``, ``stack``."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def job_of(
    model: str,
    *,
    seq_len: int | None,
    global_batch: int | None,
    precision: str,
    optimizer: str,
    lora_rank: int | None,
    attention: str,
    stack: str | None,
    tokens: float | None = None,
    steps: float | None = None,
) -> tuple[TrainJob, bool]:
    """The job that the flags describe, and whether the batch was given (else it is about 4 Mi tokens, and said so).

    Raises:
        SapperError: A model that is not known, or a number that cannot be meant.
    """
    from sapper.assess.question import default_batch
    from sapper.predict.job import TrainJob
    from sapper.workloads import load

    for flag, value, most in (("--seq", seq_len, 2**24), ("--global-batch", global_batch, 2**31), ("--lora", lora_rank, 2**16)):
        if value is not None and not 1 <= value <= most:
            raise BadValue("SP-PRED-026", where=flag, value=value, most=most)
    dtype = precision if precision in ("fp32", "tf32", "fp16") else "bf16"
    loaded = load(model)
    positions = loaded.max_positions
    if seq_len is None:
        seq_len = loaded.fixed_seq_len or min(DEFAULT_SEQ, positions or DEFAULT_SEQ)
    elif positions is not None and seq_len > positions:
        talk("predict.beyond_positions", model=model, seq=seq_len, positions=positions)
    probe = TrainJob(
        workload=loaded.workload(seq_len, dtype=dtype, attention_impl="unfused" if attention == "unfused" else "flash"),
        global_batch=global_batch or default_batch(seq_len),
        precision=precision,
        optimizer=optimizer,
        finetune="full" if lora_rank is None else "lora",
        lora_rank=lora_rank or 16,
        tokens=tokens,
        steps=steps,
        stack=stack,
    )
    probe.check()
    return probe, global_batch is not None


def say_batch(job: TrainJob) -> None:
    """Tell whoever gave no batch which one was taken: in tokens, where a sample has any."""
    if job.tokens_per_step > job.global_batch:
        talk("predict.batch", batch=job.global_batch, tokens=f"{job.tokens_per_step / 2**20:.3g} Mi")
    else:
        talk("predict.batch_samples", batch=job.global_batch)
