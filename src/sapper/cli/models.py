"""``sapper models``: which models are known, and what one of them computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sapper import messages
from sapper.cli._job import DEFAULT_SEQ
from sapper.cli.output import Column, emit, emit_json, format_option, talk

if TYPE_CHECKING:
    from sapper.workloads import Model, Workload


@click.group("models", help="cli.help.models", no_args_is_help=True)
def command() -> None:
    """The group of verbs."""


@command.command("list", help="model.help.list")
@click.option("--family", help="model.option.family")
@click.option("--families", is_flag=True, help="model.option.families")
@format_option
def list_(family: str | None, families: bool, fmt: str) -> None:
    """One line per bundled model, or per known family."""
    from sapper.errors import UnknownName
    from sapper.workloads import bundled, load
    from sapper.workloads.config import near
    from sapper.workloads.families import registry

    known = sorted(registry())
    models = [load(path.stem) for path in bundled().values()]
    if family is not None and family not in known:
        raise UnknownName("SP-MODEL-018", where="--family", name=family, near=near(family, known))
    if families:
        rows = [{"family": name, "bundled": sum(model.family == name for model in models)} for name in known]
        emit(rows, [Column("family", "model.label.family"), Column("bundled", "model.label.bundled", "right")], fmt=fmt)
        return
    chosen = [model for model in models if family in (None, model.family)]
    columns = [
        Column("name", "model.label.name"), Column("family", "model.label.family"),
        Column("params", "model.label.params", "right", _billions), Column("active_params", "model.label.active", "right", _billions),
        Column("layers", "model.label.layers", "right"), Column("hidden", "model.label.hidden", "right"),
        Column("heads", "model.label.heads", "right"), Column("kv_heads", "model.label.kv_heads", "right"),
        Column("vocab", "model.label.vocab", "right", _grouped), Column("max_positions", "model.label.positions", "right", _grouped),
    ]
    emit([_row(model) for model in chosen], columns, fmt=fmt)
    if fmt == "table":
        talk("model.list.more", count=len(chosen), families=len(known))


@command.command("show", help="model.help.show")
@click.argument("model", metavar="NAME_OR_FILE")
@click.option("--seq", "seq_len", type=int, help="model.option.seq")
@click.option(
    "--purpose", type=click.Choice(["train", "prefill", "decode"]), default="train", show_default=True, help="model.option.purpose"
)
@click.option("--dtype", default="bf16", show_default=True, help="model.option.dtype")
@click.option("--attention", type=click.Choice(["flash", "unfused"]), default="flash", show_default=True, help="model.option.attention")
@click.option("--ops", "with_ops", is_flag=True, help="model.option.ops")
@format_option
def show(model: str, seq_len: int | None, purpose: Any, dtype: str, attention: Any, with_ops: bool, fmt: str) -> None:
    """What a model is and what one sequence of it computes."""
    from sapper.workloads import load

    known = load(model)
    length = known.fixed_seq_len or DEFAULT_SEQ if seq_len is None else seq_len
    workload = known.workload(length, purpose=purpose, dtype=dtype, attention_impl=attention)
    rows = _op_rows(workload)
    if fmt == "json":
        emit_json({**_facts(known, workload, rows), **({"ops": rows} if with_ops else {})})
    elif fmt == "csv":
        facts = _facts(known, workload, rows)
        emit(rows if with_ops else [facts], _op_columns() if with_ops else [Column(key, "model.label.name") for key in facts], fmt=fmt)
    else:
        _print(known, workload, rows, with_ops=with_ops)


def _row(model: Model) -> dict[str, Any]:
    return {
        "name": model.name, "family": model.family, "params": model.params, "active_params": model.active_params, "layers": model.layers,
        "layer_types": model.layer_counts, "hidden": model.hidden, "heads": model.heads or None, "kv_heads": model.kv_heads or None,
        "head_dim": model.head_dim or None, "vocab": model.vocab or None, "max_positions": model.max_positions,
        "weights_dtype": model.weights_dtype, "unpriced": list(model.unpriced),
    }


def _facts(model: Model, workload: Workload, rows: list[dict[str, Any]]) -> dict[str, Any]:
    from sapper.workloads.notes import said

    tokens = workload.tokens_per_sequence
    causal, full = workload.flops(), workload.flops(convention="full")
    return {
        **_row(model), "source": model.source, "purpose": workload.purpose, "seq_len": workload.seq_len, "dtype": workload.dtype,
        "tokens_per_sequence": tokens, "forward_flops_causal": causal, "forward_flops_full": full,
        "forward_flops_per_token_causal": causal / tokens, "forward_flops_per_token_full": full / tokens,
        "train_flops_per_token_causal": 3 * causal / tokens, "train_flops_per_token_full": 3 * full / tokens,
        "saved_bytes_per_sequence": sum(row["saved_bytes"] * row["count"] for row in rows), "ops_priced": len(rows),
        "parts_unpriced": len(workload.unpriced), "notes": [said(text) for text in workload.notes],
    }


def _op_rows(workload: Workload) -> list[dict[str, Any]]:
    """One row per op of each run of layers; FLOPs and bytes are of one layer, ``count`` is how often it repeats."""
    return [
        {
            "block": block.name,
            "count": block.count,
            "op": op.name,
            "kind": op.kind,
            "flops": op.flops,
            "flops_full": op.full_flops,
            "input_bytes": op.input_bytes,
            "weight_bytes": op.weight_bytes,
            "output_bytes": op.output_bytes,
            "saved_bytes": op.saved_bytes,
            "params": op.params,
            "shape": _shape(op),
            "dtype": workload.dtype,
            "shard": op.shard,
            "expert": op.expert,
            "lora": op.trainable_lora,
        }
        for block in workload.blocks
        for op in block.ops
    ]


def _shape(op: Any) -> str:
    """``4096 x 1024 x 512`` is M x N x K; ``8 * ...`` are groups; attention is heads, head dims and lengths."""
    if op.attention is not None:
        a = op.attention
        dims = f"{a.qk_dim}" if a.qk_dim == a.v_dim else f"{a.qk_dim}/{a.v_dim}"
        window = f" w{a.window}" if a.window is not None else ""
        return f"{a.heads}/{a.kv_heads} x {dims}, {a.q_len} x {a.kv_len}{window}"
    if not op.m or not op.n:
        return ""
    body = f"{op.m} x {op.n}" + (f" x {op.k}" if op.k else "")
    return f"{op.groups} * {body}" if op.groups > 1 else body


def _op_columns() -> list[Column]:
    left = [Column(key, f"model.label.{key}") for key in ("block", "count", "op", "kind", "shape", "dtype")]
    numbers = ("flops", "flops_full", "input_bytes", "weight_bytes", "output_bytes", "saved_bytes", "params")
    labels = {"params": "model.label.weights"}
    return (
        left
        + [Column(key, labels.get(key, f"model.label.{key}"), "right", _scaled) for key in numbers]
        + [Column("shard", "model.label.shard")]
    )


def _print(model: Model, workload: Workload, rows: list[dict[str, Any]], *, with_ops: bool) -> None:
    from sapper.workloads.notes import said

    facts = _facts(model, workload, rows)
    layers = ", ".join(f"{count} {kind}" for kind, count in model.layer_counts.items())
    heads = messages.text("model.show.heads_line", heads=model.heads, kv=model.kv_heads, dim=model.head_dim) if model.heads else None
    shared = [
        ("name", f"{model.name} ({model.family})"),
        ("params", f"{model.params:,}"),
        ("active", f"{model.active_params:,}"),
        ("layers", f"{model.layers}: {layers}"),
        ("hidden", f"{model.hidden:,}"),
        ("heads", heads),
        ("vocab", f"{model.vocab:,}" if model.vocab else None),
        ("positions", f"{model.max_positions:,}" if model.max_positions else None),
        ("weights", model.weights_dtype),
        ("flops_token", _both(facts, "forward")),
        ("flops_train", _both(facts, "train") if workload.purpose == "train" else None),
        ("saved_sequence", f"{facts['saved_bytes_per_sequence'] / 2**30:,.2f} GiB" if workload.purpose == "train" else None),
        (
            "coverage",
            messages.text(
                "model.show.coverage_line", ops=len(rows), unpriced=", ".join(workload.unpriced) or messages.text("model.show.none")
            ),
        ),
    ]
    width = max(_width(messages.text(f"model.show.{key}", seq=workload.seq_len, dtype=workload.dtype)) for key, _ in shared)
    for key, value in shared:
        if value is not None:
            label = messages.text(f"model.show.{key}", seq=workload.seq_len, dtype=workload.dtype)
            click.echo(f"{label}{' ' * (width - _width(label))}  {value}")
    for text in workload.notes:
        click.echo(f"  * {said(text)}")
    if with_ops:
        click.echo()
        emit(rows, _op_columns(), fmt="table")


def _both(facts: dict[str, Any], kind: str) -> str:
    causal, full = facts[f"{kind}_flops_per_token_causal"], facts[f"{kind}_flops_per_token_full"]
    return messages.text("model.show.both", causal=_scaled(causal), full=_scaled(full))


def _width(text: str) -> int:
    from sapper.cli._help import width_of

    return width_of(text)


def _billions(value: Any) -> str:
    return f"{value / 1e9:,.3f}" if value < 1e10 else f"{value / 1e9:,.1f}"


def _grouped(value: Any) -> str:
    return f"{value:,}"


def _scaled(value: Any) -> str:
    from sapper.units import scaled

    return scaled(float(value), "").strip() if value else "0"
