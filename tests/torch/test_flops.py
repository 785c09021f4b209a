"""Forward FLOPs agree with a count over the real model within 0.5%.

Compared are matrix products (routers and routed experts included), convolutions and attention, with the full square of
scores, which is what the library's eager attention computes. Norms, activations, rotary embeddings and softmax are not:
neither side counts them as model FLOPs. Recurrences (``scan``) are elementwise loops or chunked products in the library,
kept apart on both sides, and compared in ``test_scans.py`` where the library's form has a closed formula.

What remains of a difference: the library's depthwise convolutions compute kernel-1 places that they cut off, and its
rotary embedding makes its angles by one small product.
"""

from __future__ import annotations

import json
from pathlib import Path

import compare
import pytest
from cases import Case, all_cases

from sapper import workloads

CASES = {case.model_type: case for case in all_cases()}
DRAWS = 6
WITHIN = 0.005
EXAMPLES = frozenset({
    "llama", "gemma3_text", "gpt2", "mpt", "mixtral", "deepseek_v3", "gpt_oss", "bert", "t5", "vit", "mamba", "mamba2", "jamba",
    "recurrent_gemma", "qwen3_next",
})  # fmt: skip
"""A family of each structure, traced at real size on every run, the others by ``make thorough``. All are drawn at small sizes."""


def smallest_bundled(case: Case) -> str | None:
    """The bundled model of the family that is traced: the one with the fewest params."""
    names = [name for name, path in workloads.bundled().items() if json.loads(path.read_text("utf-8"))["model_type"] == case.model_type]
    return min(names, key=lambda name: workloads.load(name).params) if names else None


def check(case: Case, count, workload) -> None:
    assert not count.unpriced
    assert count.params == workload.params
    assert pytest.approx(count.flops, rel=WITHIN) == compare.priced(workload, case), compare.difference(workload, count)


@pytest.mark.parametrize("index", range(DRAWS))
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_drawn(case: Case, index: int, tmp_path: Path):
    config = compare.draw(case, index)

    count = compare.trace(case, config, case.small_seq_len, fake=False)

    check(case, count, compare.ours(case, compare.written(config, tmp_path), case.small_seq_len))


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [pytest.param(case, id=name, marks=() if name in EXAMPLES else pytest.mark.thorough) for name, case in CASES.items()]
)
def test_real_size(case: Case, tmp_path: Path):
    name = smallest_bundled(case)
    config = compare.bundled_config(
        case, workloads.bundled()[name],
    ) if name else compare.real_config(case, case.architectures[0], case.defaults)

    count = compare.trace(case, config, case.real_seq_len, fake=True)

    check(case, count, compare.ours(case, name or compare.written(config, tmp_path), case.real_seq_len))


def test_sdpa_counts_what_eager_counts():
    case = CASES["llama"]
    config = compare.draw(case, 0)

    with compare.quiet():
        eager, sdpa = (
            compare.fake_trace.count(config, compare.inputs(case, config, 64), attention=attention) for attention in ("eager", "sdpa")
        )

    assert eager.by_kind["attention"] == 0 < sdpa.by_kind["attention"]
    assert eager.flops == sdpa.flops


def test_causal_count_is_about_half_of_the_square():
    workload = workloads.load("bert-base-uncased").workload(512)
    causal = next(op for block in workloads.load("olmo-hybrid-7b").workload(4096).blocks for op in block.ops if op.kind == "attention")
    two_sided = next(op for block in workload.blocks for op in block.ops if op.kind == "attention")

    assert two_sided.full_flops == two_sided.flops
    assert causal.flops / causal.full_flops == pytest.approx((4096 + 1) / (2 * 4096))
