"""CUDA C++ converted to MUSA and HIP beside what people wrote, names beside the vendors' tables, triage beside ROCm branches, speed.

    python benchmarks/port/kernels.py --repos CLONES [--clone] [--misses FOLDER] [--json]

Nothing of the repositories is kept here; PLACES names them and the commits.

*Line identity* of a converted file and a hand-ported one: lines that stand in both in the same order (longest common
subsequence by difflib), over the lines of the longer file: an added line counts against it as a changed one does.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from filecheck import check
from repositories import Repository

from sapper.port import native, rule
from sapper.port.kernels import convert, triage
from sapper.port.kernels.tables import table
from sapper.port.source import Source

MMCV, MMCV_AFTER, MMCV_BEFORE = "open-mmlab/mmcv", "a8073c74bf83d62ec36a103f835faa4837fb6585", "23ec934b8f3e40f8d408e02e5679b17aad5b46a7"
"""All of the port (#3241, #3258, #3260 and the one between), and the commit before it."""
SPARSE = (("rusty1s/pytorch_sparse", "36a822f"), ("MooreThreads/pytorch_sparse", "ac2f219"))
HIPIFY = ("ROCm/HIPIFY", "014177bc2e434ce3e834aa4f3d0e2abb1efa9796")
TORCH_MUSA = ("MooreThreads/torch_musa", "8b583b3f2fd0d9d3d9e74b9ec588a25d8bed1a30")
BRANCHED = (("FlagOpen/FlagScale", "af41057", "csrc"), (MMCV, MMCV_BEFORE, "mmcv/ops/csrc"), ("state-spaces/mamba", "HEAD", "csrc"))
"""Repositories whose kernels have branches for ROCm that people wrote; FlagScale carries vLLM's."""
NATIVE = (".cu", ".cuh", ".h", ".hpp", ".cpp", ".cc")

_ROCM = re.compile(r"#\s*if(?:def|ndef)?[^\n]*(?:USE_ROCM|HIP)[^\n]*\n(.*?)#\s*endif", re.DOTALL)
_HARD = re.compile(r"warp|shfl|lane|ballot|asm|mma", re.IGNORECASE)


class Identity(NamedTuple):
    """Lines that two texts share, of the lines of the longer."""

    equal: int
    lines: int

    def __add__(self, other: object) -> Identity:
        assert isinstance(other, Identity)
        return Identity(self.equal + other.equal, self.lines + other.lines)

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.equal / self.lines if self.lines else 1.0


def identity(text: str, other: str) -> Identity:
    """See the head of this file."""
    one, two = text.splitlines(), other.splitlines()
    matcher = difflib.SequenceMatcher(None, one, two, autojunk=False)
    return Identity(sum(block.size for block in matcher.get_matching_blocks()), max(len(one), len(two)))


def source(path: str, text: str) -> Source:
    """A file as the scan would have it."""
    return Source(path=path, language="cuda" if path.endswith((".cu", ".cuh")) else "cpp", text=text)


def files(repository: Repository, commit: str, under: str) -> list[str]:
    """Paths of C++ and CUDA files, those for MUSA among them."""
    names = repository.git("ls-tree", "-r", "--name-only", commit, under).decode().splitlines()
    return [name for name in names if name.endswith((*NATIVE, ".mu", ".muh"))]


def mmcv_pairs(repository: Repository) -> Iterator[tuple[str, str, str]]:
    """Path and text of each original, and the text of the hand-ported file."""
    there = files(repository, MMCV_AFTER, "mmcv/ops/csrc")
    for path in there:
        if "musa" in path or path.endswith((".mu", ".muh")):
            original = path.replace("musa", "cuda").replace(".muh", ".cuh").replace(".mu", ".cu")
            if original in there:
                yield original, repository.text(MMCV_AFTER, original), repository.text(MMCV_AFTER, path)


def second_half(path: str) -> bool:
    """Halves by hash: equal figures show that no rule serves one file. Both had been looked at before the rules were written."""
    return int(hashlib.sha256(path.removeprefix("mmcv/ops/csrc/").encode()).hexdigest(), 16) % 2 == 1


def musa_identity(pairs: list[tuple[str, str, str]], misses: Path | None = None, *, halved: bool = False) -> dict[str, object]:
    """Line identity of the pairs: as they are, renamed, and converted; the last by half as well."""
    nothing = Identity(0, 0)
    ways: dict[str, Callable[[str, str], str]] = {
        "as it is": lambda path, text: text,
        "renamed": lambda path, text: text.replace("cuda", "musa").replace("CUDA", "MUSA").replace(".cuh", ".muh"),
        "converted": lambda path, text: convert(source(path, text), "musa").text,
    }
    found: dict[str, object] = {"files": len(pairs)}
    for name, way in ways.items():
        one = {path: identity(way(path, text), other) for path, text, other in pairs}
        found[name] = round(sum(one.values(), nothing).share, 4)
        if name == "converted" and halved:
            halves = {"converted, half 1": False, "converted, half 2": True}
            found |= {
                label: round(sum((x for p, x in one.items() if second_half(p) is held), nothing).share, 4) for label, held in halves.items()
            }
    if misses is not None:
        for path, text, other in pairs:
            lines = difflib.unified_diff(ways["converted"](path, text).splitlines(), other.splitlines(), path, "by hand", n=0, lineterm="")
            (misses / f"{path.replace('/', '+')}.diff").write_text("\n".join(lines) + "\n", "utf-8")
    return found


def sparse_pairs(original: Repository, port: Repository) -> Iterator[tuple[str, str, str]]:
    """The same for pytorch_sparse, which Moore Threads ported: a part of it was written anew for speed."""
    for path in files(port, SPARSE[1][1], "csrc/musa"):
        old = path.replace("musa", "cuda").replace(".muh", ".cuh").replace(".mu", ".cu")
        text = original.text(SPARSE[0][1], old)
        if text:
            yield old, text, port.text(SPARSE[1][1], path)


def hipify(repository: Repository) -> dict[str, object]:
    """CHECK lines of HIPIFY's unit tests that the conversion to HIP satisfies, and its speed on them."""
    matched = total = lines = 0
    spent = 0.0
    for path in files(repository, HIPIFY[1], "tests/unit_tests"):
        text = repository.text(HIPIFY[1], path)
        run = re.search(r"RUN:(.*)", text)
        if run is None:
            continue
        start = time.process_time()
        done = convert(Source(path=path, language="cuda", text=text), "hip", roc="-roc" in run[1])
        spent += time.process_time() - start
        one = check(done.text, text)
        matched, total, lines = matched + one.matched, total + one.total, lines + text.count("\n")
    return {"check_lines": total, "reproduced": matched, "share": round(matched / total, 4), "lines_per_cpu_s": round(lines / spent)}


def musa_names(repository: Repository) -> dict[str, object]:
    """Names of torch_musa's own table that the rules for parts of names give."""
    known = json.loads(repository.text(TORCH_MUSA[1], "torch_musa/utils/mapping/general.json"))
    names = table("musa")
    same = sum(names.word(cuda) == musa for cuda, musa in known.items())
    return {"names": len(known), "same": same, "share": round(same / len(known), 4)}


def branches(repos: Callable[[str], Repository]) -> dict[str, object]:
    """Kernels with a ROCm branch by hand: is the branch about warps, assembly or matrices, and what does the triage say?"""
    counts = {"hard": 0, "hard said to be a rename": 0, "plain": 0, "plain said to be a rename": 0}
    for name, commit, under in BRANCHED:
        repository = repos(name)
        for path in files(repository, commit, under):
            text = repository.text(commit, path)
            inside = _ROCM.findall(text)
            found = triage(source(path, text)) if inside else None
            if found is not None:
                kind = "hard" if any(_HARD.search(branch) for branch in inside) else "plain"
                counts[kind] += 1
                counts[f"{kind} said to be a rename"] += found.kind == "rename"
    return dict(counts)


def scan_speed(repository: Repository, commit: str, under: str) -> dict[str, object]:
    """Lines per CPU-second of ``port/native.find``."""
    texts = [source(path, repository.text(commit, path)) for path in files(repository, commit, under)]
    rules = rule.rules()
    for one in texts:
        native.find(one, rules)
    start = time.process_time()
    findings = sum(len(native.find(one, rules)) for one in texts)
    spent = time.process_time() - start
    lines = sum(one.text.count("\n") for one in texts)
    return {"lines": lines, "findings": findings, "lines_per_cpu_s": round(lines / spent)}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repos", type=Path, required=True, help="folder of clones")
    parser.add_argument("--clone", action="store_true", help="clone what is missing")
    parser.add_argument("--misses", type=Path, help="write what differs of each MUSA pair there")
    given = parser.parse_args()

    def repos(name: str) -> Repository:
        return Repository(name, given.repos, clone=given.clone)

    if given.misses:
        given.misses.mkdir(parents=True, exist_ok=True)
    mmcv = repos(MMCV)
    figures = {
        "musa, mmcv": musa_identity(list(mmcv_pairs(mmcv)), given.misses, halved=True),
        "musa, pytorch_sparse": musa_identity(list(sparse_pairs(repos(SPARSE[0][0]), repos(SPARSE[1][0])))),
        "musa, names": musa_names(repos(TORCH_MUSA[0])),
        "hip, HIPIFY's tests": hipify(repos(HIPIFY[0])),
        "triage, ROCm branches": branches(repos),
        "scan, mmcv": scan_speed(mmcv, MMCV_BEFORE, "mmcv/ops/csrc"),
        "scan, vLLM": scan_speed(repos(BRANCHED[0][0]), BRANCHED[0][1], BRANCHED[0][2]),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
