"""Which files can hold a finding at all: a few byte strings, looked for before anything is decoded or parsed.

A file without one of them cannot name CUDA. It may still carry what another file asked CUDA for; those files are found by
the names that the first ones give to others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sapper.port import native
from sapper.port.rule import Rule
from sapper.port.source import Language

WORDS = ("cuda", "nccl", "gpu", "nvidia", "nvtx", "nvml", "triton", "cudnn", "cublas", "sapper:")
"""What the names of the field have in common, in lower case; and our own, so that a comment that keeps nothing is seen."""

_NATIVE = tuple(sign.encode() for sign in native.SIGNS)

_ELSEWHERE = (
    "nvcc", "nsys", "ncu", "nvprof", "sanitizer", "nvtop", "dcgm", "gencode", "compute_", "sm_", "flash", "attn", "_8bit", "_4bit",
    "_32bit", "load-in-", "bitsandbytes", "bnb", "marlin", "exllama", "liger", "unsloth", "transformer_engine", "fp8", "tf32", "xformers",
    "cutlass", "nvshmem", "apex", "ds_build", "multi_tensor", "sharp_coll", "nvte_", "ptxas", "_ext", "nvinfer", "tensorrt", "a100",
    "h100", "v100", "a10g", ".cu", "cufft", "curand", "cusolver", "cusparse", "nvrtc", "nvtoolsext", "cupti", "nvjpeg", "fused_kernel",
    "openai", "rapidsai",
)  # fmt: skip
"""More that the patterns of rules for other languages than Python begin with or hold."""

_SHORT = 5
_LITERAL = re.compile(r"[a-z0-9_]{3,}")


class Prefilter:
    """The byte strings of a set of rules."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        rules = tuple(rules)
        self._python = _shortest({*WORDS, *(word for rule in rules for word in _python_words(rule))})
        self._other = _shortest({*WORDS, *_ELSEWHERE, *(word for rule in rules for word in _packages(rule))})

    def hits(self, data: bytes, language: Language) -> bool:
        """May ``data``, a file of ``language``, hold a finding?"""
        if language in ("cuda", "cpp"):
            return language == "cuda" or any(sign in data for sign in _NATIVE)
        words = self._python if language in ("python", "notebook") else self._other
        lowered = data.lower()
        return any(word in lowered for word in words)


def containing(data: bytes, names: Iterable[bytes]) -> bool:
    """Does one of ``names`` stand in ``data``?"""
    return any(name in data for name in names)


def _shortest(words: set[str]) -> tuple[bytes, ...]:
    """``words`` without those that contain another one, the common ones first."""
    needed = [word for word in words if not any(other != word and other in word for other in words)]
    return tuple(word.encode() for word in sorted(needed, key=lambda word: (word not in WORDS, word)))


def _python_words(rule: Rule) -> set[str]:
    """One word for each thing that a rule looks for: a text in which it stands holds the word."""
    match = rule.match
    if "python" not in match.languages:
        return set()
    found = {_telling(name.rstrip("*").split(".")) for name in match.names}
    found |= {word for name in match.imports for word in _imported(name)}
    found |= {name.rpartition(".")[2].lower() for name in match.methods}
    found |= {_telling(part.split(":")) for part in match.keywords}
    found |= {word.lower() for word in match.words}
    found |= {max(_LITERAL.findall(text.lower()), key=len, default="") for text in match.strings}
    return (found | _packages(rule)) - {""}


def _packages(rule: Rule) -> set[str]:
    names = (re.sub(r"^\w+:|\[.*|[=*].*", "", name.lower()) for name in rule.match.packages)
    return {max(re.split(r"[-_.]", name), key=len) for name in names} - {""}


def _imported(name: str) -> tuple[str, ...]:
    """A short name stands in many words, and is looked for where it is imported."""
    word = _telling(name.split("."))
    return (word,) if len(word) > _SHORT else (f"import {word}", f"from {word}")


def _telling(parts: list[str]) -> str:
    """The part of a qualified name that tells most: one with a word of the field in it, else the longest."""
    lowered = [part.lower() for part in parts if part]
    known = [word for word in WORDS if any(word in part for part in lowered)]
    return known[0] if known else max(lowered, key=len, default="")
