"""Identifiers taken apart into words: ``is_cuda_available``, ``CUDAGraph`` and ``--no-cuda`` name CUDA, ``barracuda`` does not."""

from __future__ import annotations

import functools
import re

_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]+s?(?![a-z])|[A-Z]?[a-z]+|\d+")
_CUDA = ("cuda", "nccl", "cudnn", "cublas", "nvtx", "nvml", "nvshmem", "curand", "cufft", "cusparse", "nvrtc", "cupti")
_GPU = frozenset(("gpu", "gpus", "multigpu", "ngpu", "ngpus"))
_GRAPH = re.compile(r"cuda_?graph", re.I)


@functools.lru_cache(maxsize=65536)
def parts(identifier: str) -> tuple[str, ...]:
    """The words of an identifier, in lower case."""
    return tuple(word.lower() for word in _WORD.findall(identifier))


@functools.lru_cache(maxsize=65536)
def names_cuda(identifier: str) -> bool:
    """Whether a word of ``identifier`` begins as CUDA or one of its libraries does."""
    return any(word.startswith(_CUDA) for word in parts(identifier))


@functools.lru_cache(maxsize=65536)
def names_gpu(identifier: str) -> bool:
    """Whether ``gpu`` is a word of ``identifier``."""
    return not _GPU.isdisjoint(parts(identifier))


def names_graph(identifier: str) -> bool:
    """Whether ``identifier`` is about CUDA graphs."""
    return _GRAPH.search(identifier) is not None
