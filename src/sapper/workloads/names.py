"""Names: which bundled model a published name means.

Publications write one model in many ways: ``Llama3.1-8B``, ``meta-llama/Llama-3.1-8B-Instruct``, ``llama3-70b truncated to
12 layers``. A name *means* a bundled model when nothing but separators and words without effect on the arithmetic
differ; it *resembles* one when it is another size of the same line.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from sapper.workloads.config import bundled

_NOISE = frozenset(
    """
    hf base chat instruct it pt text lora qlora sft pretrain pretraining finetune finetuning full
    fp8 fp16 bf16 int8 int4 nvfp4 mxfp4 fp4 awq
    gptq 2407 2501 2507 0528 0324 thinking uncased cased dense gguf preview mlperf original v0.1 v0.2 v1.0 c4ai bnb 4bit 8bit unsloth
    2k ctx 4k 8k 16k 32k 128k
    """.split()  # noqa: SIM905 - one text reads better than a hundred quoted words
)
"""Words that change no shape."""

_ALIASES = {
    "gpt175b": "gpt3-175b",
    "gpt3": "gpt3-175b",
    "bloom": "bloom-176b",
    "bloomz": "bloom-176b",
    "bloomz7b1": "bloom-7b1",
    "opt13": "opt-1.3b",
    "llama30b": "llama-33b",
    "llama4maverick17b128e": "llama-4-maverick",
    "llama4scout17b16e": "llama-4-scout",
    "deepseekv3r1": "deepseek-v3",
    "deepseekv3.1": "deepseek-v3",
    "deepseekr1": "deepseek-r1",
    "llava7b": "llava-1.5-7b",
    "llava13b": "llava-1.5-13b",
    "glm49b": "glm-4-9b",
    "chatglm6b": "chatglm2-6b",
    "phi3mini": "phi-3-mini",
    "phi3": "phi-3-mini",
    "metallama38b": "llama-3-8b",
    "metallama370b": "llama-3-70b",
    "glm5.1": "glm-5",
    "glm4.6": "glm-4.5",
    "minimaxm2": "minimax-m2.5",
    "minimaxm2.1": "minimax-m2.5",
    "minimaxm2.7": "minimax-m2.5",
    "qwen3omni30ba3b": "qwen3-30b-a3b",
    "nvidianemotronnano9bv2": "nemotron-nano-9b-v2",
    "nvidianemotronnano12bv2": "nemotron-nano-12b-v2",
    "nvidianemotronnano12bv2vl": "nemotron-nano-12b-v2",
    "gptneox": "gpt-neox-20b",
    "gptj": "gpt-j-6b",
    "starcoder": "starcoder-15b",
    "mistralv0.37b": "mistral-7b-v0.3",
    "mistral7bv0.3": "mistral-7b-v0.3",
    "kimik2": "kimi-k2",
    "bertlarge": "bert-large-uncased",
    "commandrv01": "command-r-35b",
    "commandr": "command-r-35b",
    "qwen3coder30ba3b": "qwen3-30b-a3b",
    "bertbase": "bert-base-uncased",
    "vitbase": "vit-base-patch16-224",
    "vitlarge": "vit-large-patch16-224",
}
"""Squeezed names that differ from the bundled one by more than noise; each means exactly one published model."""

_LINES = {
    "gpt": "gpt3-175b",
    "megatron": "gpt3-175b",
    "turingnlg": "gpt3-175b",
    "mtnlg": "gpt3-175b",
    "llama": "llama-2-7b",
    "llama3": "llama-3-8b",
    "qwen": "qwen-7b",
    "mixtral": "mixtral-8x7b",
    "yi": "yi-34b",
    "baichuan": "baichuan-7b",
    "aquila": "aquila-7b",
    "minicpm": "minicpm-2b",
}
"""Lines of models whose bundled members do not spell the stem alone."""

_TRUNCATED = re.compile(r"\b(?:truncated|cut|reduced)\b.*$|\(.*?\)|\b\d+[- ]?layers?\b", re.IGNORECASE)


@dataclass(frozen=True)
class Meaning:
    """What a published name says."""

    template: str | None
    """Bundled model; None: nothing bundled is of that line."""
    exact: bool
    """Whether the name means that very model, and not another size of its line."""


def meaning(name: str) -> Meaning:
    """The bundled model that ``name`` means or resembles."""
    plain = _TRUNCATED.sub(" ", name)
    for text in dict.fromkeys((plain.rpartition("/")[2], plain)):
        key = squeeze(text)
        found = _ALIASES.get(key) or _squeezed().get(key)
        if found in _squeezed().values():
            return Meaning(found, True)
    key = squeeze(plain.rpartition("/")[2])
    stems = sorted((stem for stem in _stems() if key.startswith(stem) and not key[len(stem) : len(stem) + 1].isalpha()), key=len)
    return Meaning(_stems()[stems[-1]], False) if stems else Meaning(None, False)


def squeeze(name: str) -> str:
    """``name`` in lower case without separators and noise: ``meta-llama_Llama-3.1-8B-Instruct`` is ``metallamallama3.18b``."""
    words = [word for word in re.split(r"[\s_\-/:,()]+", name.lower()) if word and word not in _NOISE]
    return "".join(words)


@functools.cache
def _squeezed() -> dict[str, str]:
    """Squeezed bundled name -> file stem."""
    return {squeeze(path.stem): path.stem for path in bundled().values()}


_SIZE = re.compile(r"[-_]?\d+(?:\.\d+)?[bm](?:\d)?$|[-_](?:\d+x\d+b|\d+(?:\.\d+)?b-a\d+(?:\.\d+)?b)$", re.IGNORECASE)


@functools.cache
def _stems() -> dict[str, str]:
    """Squeezed stem of a line -> its first bundled member."""
    found: dict[str, str] = {}
    for stem in sorted(_squeezed().values()):
        found.setdefault(squeeze(_SIZE.sub("", stem)), stem)
    for line, stem in _LINES.items():
        if stem in _squeezed().values():
            found[line] = stem
    found.pop("", None)
    return found
