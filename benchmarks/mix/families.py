"""Which causal language models of the Transformers library can be cut into pipeline stages, each tried at toy width in fp64.

    python benchmarks/mix/families.py [--only llama,gpt2] [--json results.json]

Every model is built once whole and once in three stages (the middle one holds one block), all with the same drawn weights; the
stages run one after the other in this process. Loss and gradients of both are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "torch"))
import cases_decoder

from sapper.errors import SapperError
from sapper.mix.plan import MixPlan, Pipeline, Stage
from sapper.mix.run.chain import find_chain
from sapper.mix.run.data import Tokens
from sapper.mix.run.job import Job
from sapper.mix.run.models import ConfigModel
from sapper.mix.run.stage import Stage as Built

LAYERS, SEQ = 4, 16
MOST_WEIGHTS = 30_000_000
SMALL = {
    "vocab_size": 128, "hidden_size": 32, "n_embd": 32, "d_model": 32, "n_embed": 32, "dim": 32, "intermediate_size": 48, "ffn_dim": 48,
    "n_inner": 48, "num_hidden_layers": LAYERS, "n_layer": LAYERS, "n_layers": LAYERS, "num_layers": LAYERS, "decoder_layers": LAYERS,
    "num_attention_heads": 4, "n_head": 4, "n_heads": 4, "num_key_value_heads": 2, "decoder_attention_heads": 4, "head_dim": 8,
    "decoder_ffn_dim": 48, "max_position_embeddings": 64, "n_positions": 64, "num_local_experts": 4, "num_experts": 4,
    "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "moe_num_experts": 4, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "layer_types": None, "embedding_size": 32,
}  # fmt: skip
"""Values of fields that a configuration has, for families that the tests have no drawn configuration of."""


def configurations() -> dict[str, dict[str, Any]]:
    """Family -> a small configuration."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found: dict[str, dict[str, Any]] = {}
    for case in cases_decoder.CASES:
        for seed in range(200):
            drawn = case.draw(random.Random(seed))
            layers = next((drawn[name] for name in ("num_hidden_layers", "n_layer", "num_layers") if name in drawn), LAYERS)
            if layers in (3, 5):
                found[case.model_type] = {**case.defaults, **drawn, "architectures": [case.architectures[0]]}
                break
    for name, class_ in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        if name not in found and name in transformers.CONFIG_MAPPING:
            with contextlib.suppress(Exception):
                plain = transformers.CONFIG_MAPPING[name]().to_dict()
                found[name] = {key: SMALL.get(key, value) for key, value in plain.items()} | {"architectures": [class_]}
    return {name: {**one, "model_type": name} for name, one in sorted(found.items())}


def verdict(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """``equal`` with the greatest difference, ``refused`` with the reason, or ``unusable`` where not even the whole model runs here."""
    from transformers import CONFIG_MAPPING

    from sapper.programs import library

    layers = 0
    try:
        text = CONFIG_MAPPING[name].from_dict(dict(config)).get_text_config()
        vocab = int(getattr(text, "vocab_size", 0) or 96)
        model = ConfigModel(config=config, name=name)
        with torch.device("meta"):
            module = library.model_of(library.config_of(config, name), attention_impl="sdpa", experts="batched_mm")
        chain = find_chain(module)
        layers = len(chain.names) if chain else 0
        if sum(one.numel() for one in module.parameters()) > MOST_WEIGHTS:
            return {"verdict": "unusable", "layers": layers, "why": "the values of SMALL do not make it small"}
        pipeline = Pipeline(stages=(Stage(group="a", first=0, last=layers + 2),), micro_batch=2, micro_batches=1)
        plan = MixPlan(
            model=name, model_digest="", cluster="", cluster_digest="", layers=layers, seq_len=SEQ, global_batch=2, precision="fp64",
            wire="fp64", pipelines=(pipeline,),
        )  # fmt: skip
        job = Job(plan=plan, model=model, data=Tokens(vocab=vocab, seq=SEQ, masked=0.1), steps=1)
        whole = Built(job, first=0, last=layers + 2, dtype="fp64")
        loss, gradients = passes([whole], job)
    except Exception as error:
        return {"verdict": "unusable", "layers": layers, "why": f"{type(error).__name__}: {str(error).strip()[:160]}"}
    try:
        middle = max(2, (layers + 1) // 2)
        edges = [0, middle, middle + 1, layers + 2]
        stages = [Built(job, first=first, last=last, dtype="fp64") for first, last in itertools.pairwise(edges)]
        cut_loss, cut_gradients = passes(stages, job)
    except SapperError as error:
        return {"verdict": "refused", "layers": layers, "why": error.render("en").splitlines()[0]}
    except Exception as error:
        return {"verdict": "broken", "layers": layers, "why": f"{type(error).__name__}: {error}"[:200], "trace": traceback.format_exc()}
    scale = max(float(one.abs().max()) for one in gradients.values()) or 1.0
    worst = max(float((one - cut_gradients.get(name, torch.zeros_like(one))).abs().max()) for name, one in gradients.items()) / scale
    fine = worst < 1e-11 and abs(loss - cut_loss) < 1e-12
    return {"verdict": "equal" if fine else "differs", "layers": layers, "gradient": worst, "loss": abs(loss - cut_loss)}


def passes(stages: list[Built], job: Job) -> tuple[float, dict[str, torch.Tensor]]:
    """One micro-batch forward and backward through stages in this process; gradients of tied weights are added up."""
    inputs = job.data.batch([0, 1])
    passed, received = [], []
    for stage in stages:
        passed.append(stage.forward(received, inputs, step=0, samples=[0, 1], weight=1.0))
        received = passed[-1].sent
    loss = float(received[0])
    gradients: list[torch.Tensor] = []
    for stage, one in reversed(list(zip(stages, passed, strict=True))):
        gradients = stage.backward(one, gradients)
    total: dict[str, torch.Tensor] = {}
    for stage in stages:
        for name, weight in stage.weights.items():
            grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
            total[name] = total[name] + grad if name in total else grad
    return loss, total


def main() -> None:
    """Print a line for each family."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", help="families, separated by commas")
    parser.add_argument("--json", type=Path, help="where to write the verdicts")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    wanted = set(given.only.split(",")) if given.only else None
    found = {}
    for name, config in configurations().items():
        if wanted is None or name in wanted:
            found[name] = verdict(name, config)
            shown = found[name]
            said = shown["why"].splitlines()[0] if shown.get("why") else f"{shown.get('gradient', 0.0):.2g}"
            print(f"{name:24} {shown['verdict']:9} {shown['layers']:3} {said}", flush=True)
            if shown["verdict"] == "broken" and wanted:
                print(shown["trace"])
    counts: dict[str, int] = {}
    for one in found.values():
        counts[one["verdict"]] = counts.get(one["verdict"], 0) + 1
    print(counts)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), "utf-8")


if __name__ == "__main__":
    main()
