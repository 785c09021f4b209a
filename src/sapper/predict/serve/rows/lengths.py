"""Lengths of prompts and answers, and the latency limits: as the row states them, else by the rules of its source."""

from __future__ import annotations

import re

from sapper.predict.rows.case import Assumption
from sapper.predict.rows.row import Row, RowFault
from sapper.predict.rows.rules import fits
from sapper.predict.serve.rows.rules import Limits, ServeRule, sources

_GENERATED = re.compile(r"TOKENS_PER_SAMPLE:\s*(\d+(?:\.\d+)?)")


def lengths_of(row: Row, rule: ServeRule) -> tuple[float, float, tuple[Assumption, ...]]:
    """Tokens of a prompt, generated tokens, and what had to be assumed.

    A pass over prompts generates one token; a decode step at a stated mean length of the cache stands behind a prompt of
    that length.

    Raises:
        RowFault: A length that neither the row nor a rule states.
    """
    assumed: list[Assumption] = []
    prompt, answer = row.input_len, row.output_len if row.output_len is not None else _generated(row)
    cached = row.number("avg_kv_len")
    if prompt is None and cached is not None:
        prompt, answer = cached, answer or 1.0
    only_one = fits("prefill_tokens|forward|ttft|first_token", row.metric) or (prompt is not None and fits("^decode$", row.phase))
    if answer is None and only_one:
        answer = 1.0
    for entry in sources().lengths:
        if prompt is not None and answer is not None:
            break
        if not (fits(entry.source, row.source) and fits(entry.phase, row.phase) and fits(entry.model, row.model.name)):
            continue
        for field, given, known in (("input_len", prompt, entry.input_len), ("output_len", answer, entry.output_len)):
            if given is None and known is not None:
                assumed.append(Assumption(field=field, value=f"{known:g}", code="assume.serve.length", values={"why": entry.why}))
        prompt, answer = prompt if prompt is not None else entry.input_len, answer if answer is not None else entry.output_len
    if prompt is None:
        raise RowFault("SP-ROW-001", "input_len")
    if answer is None:
        raise RowFault("SP-ROW-001", "output_len")
    if rule.length_ratio != 1.0:
        values = {"share": f"{rule.length_ratio:g}"}
        assumed.append(Assumption(field="input_len", value=f"{prompt * rule.length_ratio:g}", code="assume.serve.drawn", values=values))
    return prompt * rule.length_ratio, answer * rule.length_ratio, tuple(assumed)


def _generated(row: Row) -> float | None:
    """Generated tokens of a sample, as an MLPerf accuracy log counts them."""
    text = row.extra.get("accuracy")
    found = _GENERATED.search(text) if isinstance(text, str) else None
    return float(found[1]) if found and float(found[1]) > 0 else None


def limits_of(row: Row) -> Limits | None:
    """Latency limits of the row's scenario; None where it has none."""
    if not fits("^MLPerf Inference", row.source):
        return None
    return next((entry for entry in sources().limits if fits(entry.model, row.model.name) and fits(entry.phase, row.phase)), None)
