"""Files and folders that are one vendor's own, by their names: ``platforms/cuda.py`` beside ``platforms/npu.py``.

A file of CUDA's counts as such only where another vendor has its equal at the same place; a file that says another
vendor's name is that vendor's, whatever stands beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

import msgspec

from sapper.port.finding import Finding

Owner = Literal["cuda", "other"]

_CUDA = re.compile(r"(?<![a-z])(?:cuda|nvidia|gpu|cu1\d\d)(?![a-z])")
_OTHER = re.compile(
    r"(?<![a-z])(?:npu|ascend|cann|rocm|hip|amd|xpu|intel|hpu|gaudi|habana|musa|mthreads|mlu|cambricon|kunlun(?:xin)?|iluvatar|corex|"
    r"gcu|enflame|tpu|xla|mps|metal|neuron|trainium|maca|metax|dcu|hygon|sycl|vulkan)(?![a-z])"
)


def owners(paths: Iterable[str]) -> dict[str, Owner]:
    """Whose each path is, of those that are one vendor's own."""
    seen: dict[str, set[Owner]] = {}
    places = {path: list(_places(path)) for path in paths}
    for found in places.values():
        for key, owner in found:
            seen.setdefault(key, set()).add(owner)
    result: dict[str, Owner] = {}
    for path, found in places.items():
        if any(owner == "other" for _, owner in found):
            result[path] = "other"
        elif any(len(seen[key]) > 1 for key, _ in found):
            result[path] = "cuda"
    return result


def settled(findings: Iterable[Finding], whose: Mapping[str, Owner]) -> Iterator[Finding]:
    """``findings``, those in a vendor's own file with that standing: CUDA's own, or only met where another chip runs."""
    for finding in findings:
        owner = whose.get(finding.place.path)
        if owner is None or finding.standing != "ties":
            yield finding
        else:
            yield msgspec.structs.replace(finding, standing="vendor" if owner == "cuda" else "guarded")


def _places(path: str) -> Iterator[tuple[str, Owner]]:
    """The path with the vendor's name left out, once for each name in it, folders by themselves; and whose name it is."""
    parts = path.lower().split("/")
    for at, part in enumerate(parts):
        if len(part) > 200:
            continue
        for pattern, owner in ((_CUDA, "cuda"), (_OTHER, "other")):
            for found in pattern.finditer(part):
                yield "/".join([*parts[:at], f"{part[: found.start()]}*{part[found.end() :]}"]), owner  # type: ignore[misc]
