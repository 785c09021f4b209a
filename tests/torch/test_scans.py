"""Recurrences: our formulas beside what the library runs for them, where its reference has a closed form."""

from __future__ import annotations

import compare
import pytest
from cases import all_cases

from sapper.workloads import scans

CASES = {case.model_type: case for case in all_cases()}
CHUNK = 16


@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_state_space_duality(chunks):
    """The library repeats B and C for each head, and passes states by one product over all chunks and the initial state."""
    case, heads, head_dim, state = CASES["mamba2"], 4, 8, 12
    config = compare.real_config(
        case, "Mamba2ForCausalLM",
        {"hidden_size": 16, "expand": 2, "num_heads": heads, "head_dim": head_dim, "n_groups": 2, "state_size": state,
         "num_hidden_layers": 1,
         "vocab_size": 64, "chunk_size": CHUNK},
    )
    tokens = chunks * CHUNK
    formula = scans.ssd_flops(tokens, heads=heads, head_dim=head_dim, groups=heads, state=state, chunk=CHUNK)
    passing = 2 * heads * state * head_dim

    found = compare.trace(case, config, tokens, fake=False).scan_flops

    assert formula - chunks * passing + (chunks + 1) ** 2 * passing == found


@pytest.mark.parametrize("model_type", ["qwen3_next", "qwen3_5_text", "olmo_hybrid"])
def test_gated_delta_rule(model_type):
    case = CASES[model_type]
    config = compare.draw(case, 0)
    tokens = 3 * scans.DELTA_CHUNK
    layers = config.layer_types.count("linear_attention")
    formula = scans.delta_rule_flops(
        tokens, heads=config.linear_num_value_heads, key_dim=config.linear_key_head_dim, value_dim=config.linear_value_head_dim,
    )

    found = compare.trace(case, config, tokens, fake=False).scan_flops

    assert layers > 0
    assert layers * formula == found


def test_selective_scan_reads_its_states_by_one_product():
    """All else of Mamba's recurrence is elementwise in the library: of our 7 FLOPs a cell it runs 2 as a product."""
    case = CASES["mamba"]
    config = compare.draw(case, 0)
    cells = case.small_seq_len * config.intermediate_size * config.state_size * config.num_hidden_layers

    assert 2 * cells == compare.trace(case, config, case.small_seq_len, fake=False).scan_flops
