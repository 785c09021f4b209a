from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sapper.chips import catalogue
from sapper.clusters.cluster import Cluster, Group, Link
from sapper.evidence import Fact
from sapper.predict.rows import chips_of, network, plans, rules, words_of
from sapper.predict.rows.read import parse_rows, read_rows
from sapper.predict.rows.row import Row, RowFault

SHIPPED = Path(__file__).parent.parent / "data" / "measurements_training.jsonl"
BASE: dict[str, Any] = {
    "id": "a", "source": "someone/repo table", "chip": "NVIDIA A100 80GB", "chip_id": "nvidia-a100-sxm-80gb", "n_chips": 8,
    "model": {"name": "GPT-7B", "layers": 32, "hidden": 4096, "heads": 32, "seq_len": 2048}, "precision": "bf16",
    "metric": "tokens_per_s_per_chip", "value": 3000.0, "unit": "tokens/s/chip", "confidence": "high",
}


def row(**change: Any) -> Row:
    found = parse_rows([json.dumps({**BASE, **change})], "x")
    assert found.refused == (), found.refused[0].text
    return found.rows[0]


def cut(given: Row, *, devices_per_card: int = 1, stack: str | None = None) -> plans.Cut:
    rule = rules.source_rule(given)
    return plans.cut_of(
        given, rule, words_of.repeats(given, rule), devices_per_card=devices_per_card, heads=32, node=8, stack=stack or rule.stack
    )


@pytest.mark.parametrize(
    ("words", "precision"),
    [
        ("amp_bf16", "bf16"), ("fp8 mixed", "fp8"), ("float8 rowwise", "fp8"), ("bf16+fp8", "fp8"), ("fp16 O2", "fp16"),
        ("int8 matmul (AQT), bf16 elsewhere", "int8"), ("fp32 (TF32 off: kernels are sgemm)", "fp32"), ("tf32", "tf32"),
        ("bf16 (fp8 not stated in the excerpt)", "bf16"), ("NVFP4", "fp4"), ("amp_fp8", "fp8"), ("BF16", "bf16"), ("(bf16)", "bf16"),
    ],
)
def test_precision_words(words: str, precision: str) -> None:
    found, assumed = words_of.precision(row(precision=words), catalogue().chips["nvidia-h100-sxm-80gb"])
    assert (found, assumed) == (precision, ())


def test_a_precision_that_nobody_knows_is_refused() -> None:
    for words, code in (("fast", "SP-ROW-011"), (None, "SP-ROW-001")):
        with pytest.raises(RowFault) as caught:
            words_of.precision(row(precision=words), catalogue().chips["nvidia-h100-sxm-80gb"])
        assert (caught.value.code, caught.value.field) == (code, "precision")


@pytest.mark.parametrize(
    ("words", "recompute"),
    [
        ("full x70", "full"), ("none x30", "none"), ("none", "none"), ("selective", "selective"), ("custom", None), (None, None),
        ("sequence parallel + selective recompute", "selective"), ("full (use_checkpoint=true in the configs)", "full"),
        ("qkv_proj_offloaded", None), ("full", "full"), ("something else", None),
    ],
)
def test_recompute_words(words: str | None, recompute: str | None) -> None:
    given = row(recompute=words)
    assert words_of.repeats(given, rules.source_rule(given)).recompute == recompute


def test_words_of_a_source_are_its_own() -> None:
    maxtext = row(source="AI-Hypercomputer/maxtext README.md", recompute="minimal", framework="MaxText")
    assert words_of.repeats(maxtext, rules.source_rule(maxtext)).recompute == "selective"
    figure = row(source="arXiv 2205.05198 Figure 1", recompute="activations GiB per chip, no recompute, no SP")
    said = words_of.repeats(figure, rules.source_rule(figure))
    assert (said.recompute, said.memory, said.sequence_parallel) == ("none", "activations", False)


MLPERF = "MLPerf Training {round} result logs, mlcommons/training_results_{round} {submitter}/results/system/llama2_70b_lora"


@pytest.mark.parametrize(
    ("chip", "round_", "submitter", "framework", "precision"),
    [
        ("nvidia-h100-sxm-80gb", "v4.0", "Dell", "NeMo", "fp8"),
        ("nvidia-h100-sxm-80gb", "v4.0", "JuniperNetworks", "NGC PyTorch Deepspeed N1", "bf16"),
        ("nvidia-a100-sxm-80gb", "v4.0", "Dell", "NeMo", "bf16"),
        ("nvidia-b200-sxm", "v5.1", "NVIDIA", "NeMo 25.09", "fp4"),
        ("nvidia-b200-sxm", "v5.1", "Supermicro", "NeMo 25.09", "fp8"),
        ("nvidia-b200-sxm", "v5.0", "NVIDIA", "NeMo 25.04", "fp8"),
        ("amd-mi300x", "v5.0", "AMD", "PyTorch", "fp8"),
        ("google-tpu-v5p", "v4.0", "Google", "maxtext", "bf16"),
    ],
)
def test_mlperf_precision_is_inferred_and_said_so(chip: str, round_: str, submitter: str, framework: str, precision: str) -> None:
    given = row(source=MLPERF.format(round=round_, submitter=submitter), precision=None, framework=framework)
    found, assumed = words_of.precision(given, catalogue().chips[chip])
    assert found == precision
    assert assumed[0].field == "precision" and precision in assumed[0].text


def test_mlperf_gpt3_on_tpu_v5p_runs_int8() -> None:
    source = MLPERF.format(round="v4.0", submitter="Google")
    given = row(source=source, precision=None, framework="maxtext", model=BASE["model"] | {"name": "GPT-3 175B"})
    assert words_of.precision(given, catalogue().chips["google-tpu-v5p"])[0] == "int8"


@pytest.mark.parametrize(
    ("source", "framework", "stack", "year"),
    [
        ("new/repo", "Megatron-Core 0.9, NGC 25.02", "megatron", 2025 + 2 / 12),
        ("new/repo", "NeuronX Distributed", "xla", None),
        ("new/repo", "optimum-habana 1.10", "deepspeed", None),
        ("new/repo 2024-05", "DeepSpeed ZeRO-3", "deepspeed", 2024 + 5 / 12),
        ("new/repo", "AXLearn", "xla", None),
        ("new/repo", "MindFormers", "mindspeed", None),
        ("new/repo", None, None, None),
        (MLPERF.format(round="v5.0", submitter="Dell"), "NeMo", "mlperf", 2025.4),
    ],
)
def test_stack_and_year_of_sources_without_a_rule(source: str, framework: str | None, stack: str | None, year: float | None) -> None:
    given = row(source=source, framework=framework)
    rule = rules.source_rule(given)
    assert rules.stack_of(given, rule) == stack
    assert rules.year_of(given, rule) == (None if year is None else pytest.approx(year))


def test_every_shipped_source_has_a_rule_and_a_stack() -> None:
    for given in read_rows(SHIPPED).rows:
        rule = rules.source_rule(given)
        assert rule.match, given.source
        assert rules.stack_of(given, rule) is not None
        assert rules.year_of(given, rule) is not None


def test_every_rule_gives_its_reason() -> None:
    assert all(len(rule.why) > 5 for rule in rules.sources().source)
    assert all(len(rule.why) > 20 for rule in rules.words().mlperf)


def test_a_missing_dp_is_what_the_other_degrees_leave() -> None:
    found = cut(row(parallel={"tp": 2}, global_batch=64, micro_batch=1))
    assert (found.plan.tp, found.plan.dp, found.plan.pp) == (2, 4, 1)


@pytest.mark.parametrize("parallel", [{"tp": 2, "dp": 2}, {"tp": 8, "cp": 2, "dp": 0}, {"tp": 3}, {"dp": 16}])
def test_degrees_that_do_not_multiply_are_refused_with_the_equation(parallel: dict[str, int]) -> None:
    with pytest.raises(RowFault) as caught:
        cut(row(parallel=parallel, global_batch=64))
    assert caught.value.code == "SP-ROW-018"
    assert caught.value.values["chips"] == 8


def test_degrees_that_multiply_to_the_dies_count_dies() -> None:
    found = cut(row(parallel={"tp": 2, "dp": 8}, global_batch=64, micro_batch=1), devices_per_card=2)
    assert found.devices == 16
    assert [assumption.code for assumption in found.assumptions] == ["assume.dies"]


def test_a_row_without_degrees_leaves_them_open_within_its_accumulation() -> None:
    source = MLPERF.format(round="v4.0", submitter="Dell")
    found = cut(row(source=source, n_chips=64, global_batch=8, parallel={}, extra={"grad_accum": 2}))
    assert found.micro_batches == 2
    assert found.plan.chips == 64
    assert found.plan.dp * found.plan.micro_batch * 2 == 8
    assert {"tp", "pp", "dp", "cp", "micro_batch", "recompute"} <= found.unknown


def test_accumulation_that_does_not_divide_the_batch_is_not_believed() -> None:
    for accumulation in (3, 2.5, "2", True, -1, 100):
        source = MLPERF.format(round="v4.0", submitter="Dell")
        found = cut(row(source=source, n_chips=8, global_batch=8, extra={"grad_accum": accumulation}))
        assert found.micro_batches is None
        assert found.plan.chips == 8


def test_a_missing_batch_is_assumed_and_said_so() -> None:
    found = cut(row(parallel={"tp": 1, "pp": 2, "dp": 4}, micro_batch=2))
    assert found.global_batch == 4 * 2 * 8 * 2
    assert found.assumptions[0].field == "global_batch" and "128" in found.assumptions[0].text


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(RowFault) as caught:
        cut(row(parallel={"dp": 8}, micro_batch=3, global_batch=64))
    assert (caught.value.code, caught.value.field) == ("SP-ROW-019", "global_batch")


def test_a_batch_per_chip_is_that_of_a_replica_times_its_chips() -> None:
    maxtext = {"source": "AI-Hypercomputer/maxtext README.md", "framework": "MaxText"}
    given = row(**maxtext, micro_batch=6, global_batch=48, parallel={"tp": 4, "zero": 3})
    assert cut(given).plan.micro_batch == 24


def test_a_local_batch_in_a_pipeline_is_cut_into_as_many_micro_batches_as_stages() -> None:
    titan = {"source": "pytorch/torchtitan b.md", "framework": "torchtitan 3D 1F1B"}
    given = row(**titan, micro_batch=32, global_batch=128, parallel={"pp": 2, "dp": 4})
    assert cut(given).plan.micro_batch == 16
    uneven = cut(row(**titan, micro_batch=3, global_batch=12, parallel={"pp": 2, "dp": 4}))
    assert uneven.plan.micro_batch == 1 and "micro_batch" in uneven.unknown


def test_what_the_row_states_is_not_unknown() -> None:
    stated = {"tp": 2, "pp": 2, "dp": 2, "zero": 1, "vpp": 1}
    assert cut(row(parallel=stated, micro_batch=1, global_batch=16, recompute="none")).unknown == frozenset()


def test_weights_repeat_over_slices_where_the_row_says_so() -> None:
    given = row(
        source="AI-Hypercomputer/maxtext README.md \"TPU v5e\"", n_chips=512, micro_batch=6, global_batch=3072, recompute="full",
        parallel={"tp": 1, "dp": 512, "zero": 3}, extra={"slices": 2},
    )
    assert cut(given).plan.hsdp == 256


STORAGE = "Storage: 2x ConnectX-7 IB NDR 400Gb/s, Compute: 8x ConnectX-7 IB NDR 400Gb/s, Management: 100Gb/s Ethernet NIC"
BLUEFIELD = "Storage+Management: 1x NVIDIA BlueField 2 DPU 100Gb/s, Compute: 8x NVIDIA ConnectX-7 IB NDR 400Gb/s"


@pytest.mark.parametrize(
    ("extra", "gbit"),
    [
        ({"host_network": "4x ConnectX-7 IB NDR 400Gb/s"}, 1600),
        ({"host_network": "4x ConnectX-7 IB NDR 400 Gb/s"}, 1600),
        ({"host_network": STORAGE}, 3200),
        ({"host_network": BLUEFIELD}, 3200),
        ({"host_network": "8x ConnectX-7 IB NDR 400Gb/s + 200Gb/s Ethernet NIC"}, 3200),
        ({"host_network": "Compute: 8x MT43244 BlueField-3 200Gb/s, Management: 2x100Gb/s Ethernet NIC"}, 1600),
        ({"host_network": "Gig Ethernet", "interconnect": "2x 400Gbe Ethernet"}, 800),
        ({"host_network": "Gig Ethernet", "interconnect": "2 x 200Gbe Ethernet"}, 400),
        ({"host_network": "Infiniband, Ethernet", "interconnect": "8x 4th Gen NVLink, 900GB/s"}, None),
        ({"host_network": "ROCE2; Data bandwidth for GPU-PCIe: 504 GB/s; PCIe-NIC: 500 GB/s"}, None),
        ({"host_network": "ConnectX-6 25Gb/s Ethernet"}, None),
        ({"host_network": "2 x Ethernet Controller X710 for 10GBASE-T, 2 x Ethernet Controller 10G X550T"}, None),
        ({"interconnect": "NVLINK Gen5 1800 GB/s + NVSWITCH Gen5"}, None),
        ({"interconnect": "18x 5th Gen NVLink, 14.4 TB/s aggregated bandwidth"}, None),
        ({"host_network": "Management: 1x Ethernet 10GB/Sec"}, None),
        ({"host_network": 7}, None),
        ({}, None),
    ],
)
def test_network_words(extra: dict[str, Any], gbit: float | None) -> None:
    given = row(extra=extra)
    found = network.node_rate_bytes_per_s(given, rules.source_rule(given))
    assert (found and found[0]) == (None if gbit is None else gbit * 1e9 / 8)


def two_nodes() -> Cluster:
    slow = Fact(value=1.0, unit="bytes/s", source="s", grade="assumed")
    late = Fact(value=1e-6, unit="s", source="s", grade="assumed")
    link = Link(name="catalogue", topology="switch", domain_size=None, bandwidth_bytes_per_s=slow, latency_s=late)
    chip = catalogue().chips["nvidia-a100-sxm-80gb"]
    return Cluster(name="c", groups=(Group(name="g", chip=chip, nodes=2, chips_per_node=8, scale_up=link, scale_out=link),))


def test_the_network_that_a_row_states_replaces_the_catalogues() -> None:
    given = row(n_chips=16, extra={"host_network": "8x ConnectX-7 IB NDR 400Gb/s"})
    changed, assumed = network.with_stated_network(two_nodes(), given, rules.source_rule(given))
    fact = changed.groups[0].scale_out.bandwidth_bytes_per_s  # type: ignore[union-attr]
    assert fact.value == 50e9 and fact.grade == "measured-elsewhere"
    assert "50 GB/s" in assumed[0].text
    one_node = msgspec.structs.replace(two_nodes(), groups=(msgspec.structs.replace(two_nodes().groups[0], nodes=1),))
    assert network.with_stated_network(one_node, given, rules.source_rule(given)) == (one_node, ())


def test_a_network_that_nobody_states_is_assumed_and_said_so() -> None:
    group = two_nodes().groups[0]
    assert group.scale_out is not None and group.scale_up is not None
    unknown = msgspec.structs.replace(group.scale_out, bandwidth_bytes_per_s=Fact(value=None, unit="bytes/s", source="s", grade="assumed"))
    inside = msgspec.structs.replace(group.scale_up, domain_size=8)
    cluster = Cluster(name="c", groups=(msgspec.structs.replace(group, scale_up=inside, scale_out=unknown),))
    given = row(n_chips=16)
    changed, assumed = network.with_stated_network(cluster, given, rules.source_rule(given))
    fact = changed.groups[0].scale_out.bandwidth_bytes_per_s  # type: ignore[union-attr]
    assert (fact.value, fact.grade) == (50e9, "assumed")
    assert assumed[0].field == "network" and assumed[0].text
    known = two_nodes()
    assert network.with_stated_network(known, given, rules.source_rule(given)) == (known, ())


def test_section_titles_state_the_network_of_llm_foundry() -> None:
    given = row(source='mosaicml/llm-foundry README.md, section "A100 40GB with 1600 Gbps node-node interconnect (RoCE)"')
    assert network.node_rate_bytes_per_s(given, rules.source_rule(given)) == (200e9, "1600 Gb/s")


@pytest.mark.parametrize(
    ("label", "chip"),
    [
        ("NVIDIA H100-SXM5-80GB", "nvidia-h100-sxm-80gb"),
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-sxm-80gb"),
        ("NVIDIA A100-SXM4-80GB", "nvidia-a100-sxm-80gb"),
        ("NVIDIA A100 80GB PCIe", "nvidia-a100-pcie-80gb"),
        ("NVIDIA H200-SXM5-141GB", "nvidia-h200-sxm-141gb"),
        ("NVIDIA Blackwell GPU (B200-SXM-180GB)", "nvidia-b200-sxm"),
        ("AMD Instinct MI300X 192GB HBM3", "amd-mi300x"),
        ("TPU-trillium", "google-tpu-v6e"),
        ("Google TPU v5p", "google-tpu-v5p"),
        ("Intel(R) Gaudi(R) 2 AI Accelerator", "intel-gaudi2"),
        ("Iluvatar BI-V150", "iluvatar-bi-v150"),
        ("NVIDIA H100 96GB HBM2e 500W (Grand Teton)", "nvidia-h100-sxm-96gb-hbm2e"),
        ("AMD Instinct MI100", "amd-mi100"),
        ("NVIDIA L4", "nvidia-l4"),
    ],
)
def test_labels_find_their_chip(label: str, chip: str) -> None:
    assert chips_of.chip_of(row(chip=label, chip_id=None), catalogue())[0].id == chip


@pytest.mark.parametrize("label", ["Foo Q9 accelerator", "NVIDIA Z100 80GB", "undisclosed reference GPU (column 参考; A100-class)", "?"])
def test_a_chip_that_nobody_catalogued_is_refused_by_name(label: str) -> None:
    with pytest.raises(RowFault) as caught:
        chips_of.chip_of(row(chip=label, chip_id=None), catalogue())
    assert caught.value.code == "SP-ROW-012" and caught.value.values["name"] == label


def test_a_label_that_several_chips_bear_lists_them() -> None:
    with pytest.raises(RowFault) as caught:
        chips_of.chip_of(row(chip="Ascend 910B", chip_id=None), catalogue())
    assert caught.value.code == "SP-ROW-013" and "huawei-ascend-910b2" in caught.value.values["candidates"]


def test_a_variant_takes_the_facts_that_the_row_states() -> None:
    given = row(chip="NVIDIA H200 120GB HBM3e 550W (Somebody's server)", chip_id=None, note="4.1 TB/s, 550 W power limit (NOT standard)")
    chip, assumed = chips_of.chip_of(given, catalogue())
    base = catalogue().chips["nvidia-h200-sxm-141gb"]
    assert chip.id == "nvidia-h200-sxm-141gb+120gb" and base.id in assumed[0].text
    assert chip.memory.capacity_bytes.value == 120 * 2**30  # type: ignore[union-attr]
    assert chip.memory.bandwidth_bytes_per_s.value == pytest.approx(4.1e12)  # type: ignore[union-attr]
    assert chip.tdp_w.value == 550  # type: ignore[union-attr]
    assert chip.peak_flops_per_s == base.peak_flops_per_s


def test_a_variant_without_its_bandwidth_is_refused() -> None:
    with pytest.raises(RowFault):
        chips_of.chip_of(row(chip="NVIDIA H200 120GB", chip_id=None), catalogue())


def test_a_die_is_its_share_of_the_card() -> None:
    card = catalogue().chips["amd-mi250x"]
    die = chips_of.die_of(card)
    assert die.peak_flops_per_s["bf16"].value == card.peak_flops_per_s["bf16"].value / 2  # type: ignore[operator]
    assert die.memory.capacity_bytes.value == card.memory.capacity_bytes.value / 2  # type: ignore[union-attr, operator]
    assert die.devices_per_card is None and chips_of.die_of(die) is die


def test_data_files_name_no_row() -> None:
    """Rules speak of sources, never of rows."""
    ids = {given.id for given in read_rows(SHIPPED).rows}
    for name in ("sources.toml", "words.toml", "models.toml"):
        words = set(re.findall(r"[\w.+-]{8,}", json.dumps(rules.read_data(name))))
        assert not words & ids
