"""Which files can hold a finding at all: a few byte strings, looked for before anything is decoded or parsed.

A file without one of them cannot name CUDA. It may still carry what another file asked CUDA for; those files are found by
what they import.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from sapper.port import native
from sapper.port.python import match
from sapper.port.rule import Rule
from sapper.port.source import Language

WORDS = ("cuda", "nccl", "gpu", "nvidia", "nvtx", "nvml", "triton", "cudnn", "cublas")
"""What the names of the field have in common, in lower case."""
_OURS = "sapper:"
"""A comment that keeps nothing is seen too."""

_NATIVE = tuple(sign.encode() for sign in native.SIGNS)

_ELSEWHERE = (
    "nvcc", "nsys", "ncu", "nvprof", "sanitizer", "nvtop", "dcgm", "gencode", "compute_", "sm_", "flash", "attn", "_8bit", "_4bit",
    "_32bit", "load-in-", "bitsandbytes", "bnb", "marlin", "exllama", "liger", "unsloth", "transformer_engine", "fp8", "tf32", "xformers",
    "cutlass", "nvshmem", "apex", "ds_build", "multi_tensor", "sharp_coll", "nvte_", "ptxas", "_ext", "nvinfer", "tensorrt", "a100",
    "h100", "v100", "a10g", ".cu", "cufft", "curand", "cusolver", "cusparse", "nvrtc", "nvtoolsext", "cupti", "nvjpeg", "fused_kernel",
    "openai", "rapidsai",
)  # fmt: skip
"""More that the patterns of rules for other languages than Python begin with or hold."""


class Prefilter:
    """The byte strings of a set of rules."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        rules = tuple(rules)
        said = match.words(rules)
        python = {*said.anywhere, *said.imported, _OURS}
        other = {*WORDS, *_ELSEWHERE, _OURS, *(word for rule in rules for word in _packages(rule))}
        self._other = _shortest(other)
        self._notebook = _shortest(python | other)  # Python, and what its cells give to a shell

    def hits(self, data: bytes, language: Language) -> bool:
        """May ``data``, a file of ``language``, hold a finding?"""
        if language in ("cuda", "cpp"):
            return language == "cuda" or any(sign in data for sign in _NATIVE)
        if language == "python":
            return True  # the scanner of Python looks for its words itself, and once
        words = self._notebook if language == "notebook" else self._other
        lowered = data.lower()
        return any(word in lowered for word in words)


def _shortest(words: set[str]) -> tuple[bytes, ...]:
    """``words`` without those that contain another one, the common ones first."""
    needed = [word for word in words if not any(other != word and other in word for other in words)]
    return tuple(word.encode() for word in sorted(needed, key=lambda word: (word not in WORDS, word)))


def _packages(rule: Rule) -> set[str]:
    names = (re.sub(r"^\w+:|\[.*|[=*].*", "", name.lower()) for name in rule.match.packages)
    return {max(re.split(r"[-_.]", name), key=len) for name in names} - {""}
