"""What the tests of predict share: a real small model, real chips of the catalogue, an untouched prior."""

from __future__ import annotations

import numpy as np

from sapper.chips import catalogue
from sapper.clusters.cluster import Cluster, Group, Link
from sapper.evidence import Fact
from sapper.predict.fit import Fitted
from sapper.predict.job import TrainJob
from sapper.predict.subject import TrainSubject, train_book
from sapper.workloads import Model, from_config

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}


def model() -> Model:
    """Llama 3 8B."""
    return from_config(LLAMA, name="llama-3-8b", where="test")


def job(*, seq_len: int = 4096, global_batch: int = 256, attention: str = "flash", **more: object) -> TrainJob:
    """A training job of it."""
    dtype = "fp32" if more.get("precision") in ("fp32", "tf32") else "bf16"
    workload = model().workload(seq_len, dtype=dtype, attention_impl=attention)  # type: ignore[arg-type]
    return TrainJob(workload=workload, global_batch=global_batch, **more)  # type: ignore[arg-type]


def _assumed(value: float, unit: str) -> Fact:
    return Fact(value=value, unit=unit, source="test", grade="assumed")


def cluster(chip_id: str = "nvidia-a100-sxm-80gb", chips: int = 64, *, node: int = 8) -> Cluster:
    """Like chips with the catalogue's scale-up link and a 25 GB/s network."""
    chip = catalogue().chips[chip_id]
    up = chip.scale_up
    assert up is not None and up.bandwidth_bytes_per_s is not None
    return Cluster(
        name=f"{chips}x {chip_id}",
        groups=(
            Group(
                name="all",
                chip=chip,
                nodes=max(1, chips // node),
                chips_per_node=min(chips, node),
                scale_up=Link(
                    name=up.name,
                    topology=up.topology,
                    bandwidth_bytes_per_s=up.bandwidth_bytes_per_s,  # type: ignore[arg-type]
                    latency_s=_assumed(3e-6, "s"),
                    domain_size=up.domain_size or node,
                ),
                scale_out=Link(
                    name="network",
                    topology="switch",
                    bandwidth_bytes_per_s=_assumed(25e9, "bytes/s"),
                    latency_s=_assumed(8e-6, "s"),
                    domain_size=None,
                ),
            ),
        ),
    )


def unfitted(subject: TrainSubject) -> Fitted:
    """The prior as a posterior of no rows."""
    book = train_book()
    columns = book.columns_of([subject])
    mean, deviation = book.prior_of(columns)
    return Fitted(book=book, columns=columns, mean=mean, covariance=np.diag(deviation**2), noise_sd=0.06, widen=1.0, rows=0, chips=())
