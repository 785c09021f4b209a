"""The baseline: couplings that a project knows of, so that CI fails only on new ones.

A coupling is known again by its rule, file, symbol and source line without its blanks, never by its number of line: lines
may move. Equal ones in one file are counted, and one more than the baseline has is new.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from sapper import files
from sapper.errors import BadFile
from sapper.port.finding import Finding

FORMAT, VERSION = "sapper-port-baseline", 1


class Known(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Couplings of one fingerprint; the words beside it are for whoever reads the file's history."""

    fingerprint: str
    count: int
    code: str
    path: str
    symbol: str


class Baseline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file."""

    format: str
    version: int
    known: tuple[Known, ...]


def fingerprint(finding: Finding) -> str:
    """16 hexadecimal digits that stay when lines move or are indented anew."""
    words = (finding.code, finding.place.path, finding.symbol, "".join(finding.excerpt.split()))
    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def made(findings: Iterable[Finding]) -> Baseline:
    """The baseline of what ties now, sorted, so that its differences read well."""
    tying = [finding for finding in findings if finding.standing == "ties"]
    counts = Counter(map(fingerprint, tying))
    one_of = {fingerprint(finding): finding for finding in tying}
    known = (
        Known(fingerprint=key, count=counts[key], code=one.code, path=one.place.path, symbol=one.symbol) for key, one in one_of.items()
    )  # fmt: skip
    ordered = sorted(known, key=lambda one: (one.path, one.code, one.symbol, one.fingerprint))
    return Baseline(format=FORMAT, version=VERSION, known=tuple(ordered))


def write(path: Path, findings: Iterable[Finding]) -> Baseline:
    """Write the baseline of ``findings`` to ``path``.

    Raises:
        BadFile: The system refuses to write.
    """
    baseline = made(findings)
    files.write_atomic(path, msgspec.json.format(msgspec.json.encode(baseline), indent=1) + b"\n")
    return baseline


def read(path: Path) -> Baseline:
    """The baseline of ``path``.

    Raises:
        BadFile: No such file, or no baseline of this version.
    """
    raw = files.read_json(path)
    if not isinstance(raw, dict) or (raw.get("format"), raw.get("version")) != (FORMAT, VERSION):
        raise BadFile("SP-SCAN-003", where=str(path), version=VERSION)
    return files.decode(Baseline, raw, path)


def split(findings: Sequence[Finding], baseline: Baseline) -> tuple[list[Finding], list[Finding], int]:
    """New findings (and all that do not tie), those that the baseline knows, and how many of it are gone.

    Of equal ones the first in the order given are the known ones.
    """
    left = Counter({one.fingerprint: one.count for one in baseline.known})
    new, known = [], []
    for finding in findings:
        key = fingerprint(finding) if finding.standing == "ties" else ""
        if key and left[key] > 0:
            left[key] -= 1
            known.append(finding)
        else:
            new.append(finding)
    return new, known, left.total()
