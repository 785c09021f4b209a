"""Couplings in C++ and CUDA: rules ``SP-PORT-9xx``, on text without comments, without a compiler and without headers.

One file at a time, and nothing is evaluated: a finding stands where the text names CUDA's API, headers, libraries,
language or warp. What the preprocessor keeps for other vendors is told from what ties.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from sapper.port.finding import Context, Finding, Place
from sapper.port.native.detectors import DETECTORS
from sapper.port.native.lexer import Lexed, Lines, lex
from sapper.port.native.names import WORD, Names, places
from sapper.port.native.preprocessor import Branches
from sapper.port.rule import Rule
from sapper.port.source import Language, Source

__all__ = ["SIGNS", "Lexed", "Lines", "find", "lex"]

SIGNS = (
    "cuda", "CUDA", "Cuda", "nccl", "NCCL", "__global__", "__device__", "__constant__", "__shfl", "__ballot", "__any", "__all",
    "__syncwarp", "__activemask", "warpSize", "WARP", "<<<", "nv_", "NV_", "cub::", "cub/", "thrust", "cutlass", "CUTLASS",
    "cute::", "wmma", "cooperative_groups", "CU_", "CUd", "CUs", "CUc", "CUf", "CUm", "CUr", "CUe", "CUt", "CUl", "cuMem",
    "cuCtx", "cuDevice", "cuModule", "cuLaunch", "cuStream", "cuInit", "cuGet", "cublas", "CUBLAS", "cudnn", "CUDNN", "cufft",
    "CUFFT", "curand", "CURAND", "cusparse", "cusolver", "cutensor", "cupti", "nvtx", "nvml", "nvrtc", "asm", "npp", "THC",
)  # fmt: skip
"""A file of plain C++ without any of these holds no finding."""
_WARP = "warp"
_DEVICE = ("__device__", "__global__", "__shfl", "__ballot", "threadIdx", "warpSize")
"""Signs of device code in a file of plain C++."""
_Compiled = tuple[Names, tuple[Rule, ...]]
_KNOWN: dict[tuple[int, Language, bool], tuple[Mapping[str, Rule], _Compiled]] = {}
"""By identity of a set of rules, which is kept with it: hashing a hundred rules for each file would cost more than the names."""
_TEST = re.compile(r"(?:^|/)(?:tests?|unit_?tests?|gtest|benchmarks?)/|(?:^|/)test_|_test\.")


def find(source: Source, rules: Mapping[str, Rule]) -> list[Finding]:
    """The couplings of one C++ or CUDA source, at most one of each rule on a line.

    Args:
        source: Of language ``cuda`` or ``cpp``.
        rules: By code; those of other languages are passed over.
    """
    if source.language != "cuda" and not any(sign in source.text for sign in SIGNS):
        return []
    device = source.language == "cuda" or any(sign in source.text for sign in _DEVICE)
    names, detecting = _compiled(rules, source.language, device=device)
    lexed = lex(source.text)
    found: dict[tuple[int, str], Finding] = {}
    lines, branches, context = Lines(source.text), Branches(lexed.code), _context(source)
    for start, end, symbol, code in sorted(_hits(lexed, names, detecting)):
        line, column = lines.at(start)
        if (line, code) in found:
            continue
        standing = branches.standing(start)
        if standing is None:
            continue
        end_line, end_column = lines.at(end)
        place = Place(source.path, line, column, end_line, end_column)
        found[line, code] = Finding(code=code, place=place, symbol=symbol, excerpt=lines.line(line), standing=standing, context=context)
    return sorted(found.values(), key=lambda finding: (finding.place, finding.code))


def _compiled(rules: Mapping[str, Rule], language: Language, *, device: bool) -> _Compiled:
    """Names and detectors; lanes and warps are CUDA's only where device code is (elsewhere they are of roads and of pictures)."""
    known = _KNOWN.get((id(rules), language, device))
    if known is None or known[0] is not rules:
        own = [rule for rule in rules.values() if language in rule.match.languages and (device or rule.match.detector != _WARP)]
        known = _KNOWN[id(rules), language, device] = (rules, (Names(own), tuple(rule for rule in own if rule.match.detector)))
    return known[1]


def _hits(lexed: Lexed, names: Names, detecting: tuple[Rule, ...]) -> Iterator[tuple[int, int, str, str]]:
    """What names and detectors see: start, end, symbol, code."""
    taken: set[int] = set()
    for rule in detecting:
        for start, end, symbol in DETECTORS[str(rule.match.detector)](lexed):
            if start not in taken:
                taken.add(start)
                yield start, end, symbol, rule.code
    for word, code in names.codes(set(WORD.findall(lexed.code))).items():
        for start in places(lexed.code, word):
            if start not in taken:
                yield start, start + len(word), word, code


def _context(source: Source) -> Context:
    if _TEST.search(source.path):
        return "test"
    return "kernel" if source.language == "cuda" else "code"
