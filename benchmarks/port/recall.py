"""How many of the lines that people had to change a scan finds, and how many of its findings are no code.

    python benchmarks/port/recall.py --repos CLONES                       # the pairs of cases.toml
    python benchmarks/port/recall.py --repos CLONES --history FILE.jsonl  # those of a file as well
    python benchmarks/port/recall.py --repos CLONES --misses              # and each line that was missed

The whole tree before the port is scanned, as a user would. A line is found where a finding's span covers it.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec
from history import Pair, Site, digest, given, mined, prose_lines, traced_back
from repositories import Missing, Repository

from sapper.port.finding import Scan
from sapper.port.scan import scan

HERE = Path(__file__).parent


class Count(msgspec.Struct, kw_only=True):
    """Of one pair: sites and found sites by tier, findings, and findings that stand in prose."""

    pair: Pair
    sites: dict[str, int]
    found: dict[str, int]
    findings: int
    in_prose: int
    missed: list[Site]


class Passes(msgspec.Struct, frozen=True, kw_only=True):
    """Ports of one repository that followed each other, all scored on the tree before the first."""

    id: str
    repository: str
    base: str
    pairs: list[str]


class Cases(msgspec.Struct, frozen=True):
    """What cases.toml holds."""

    pair: list[Pair]
    passes: list[Passes]


def cases() -> Cases:
    """The pairs of cases.toml."""
    return msgspec.toml.decode((HERE / "cases.toml").read_text("utf-8"), type=Cases)


def agreed() -> set[tuple[str, str, str]]:
    """Candidates of tier C that a reader took for couplings: pair, file, digest of the line."""
    labels = tomllib.loads((HERE / "labels.toml").read_text("utf-8"))
    return {(pair, file, line) for pair, files in labels.items() for file, lines in files.items() for line in lines}


def covered(result: Scan) -> dict[str, set[int]]:
    """Lines under a finding, by file."""
    lines: dict[str, set[int]] = defaultdict(set)
    for finding in result.findings:
        lines[finding.place.path] |= set(range(finding.place.line, finding.place.end_line + 1))
    return lines


def count(pair: Pair, sites: Iterable[Site], tree: Path) -> Count:
    """Scan the tree before the port and compare."""
    result = scan(tree)
    lines = covered(result)
    total: Counter[str] = Counter()
    found: Counter[str] = Counter()
    missed = []
    for site in sites:
        total[site.tier] += 1
        if site.line in lines[site.file]:
            found[site.tier] += 1
        else:
            missed.append(site)
    prose = {path: prose_lines((tree / path).read_text("utf-8", "replace")) for path in lines if path.endswith(".py")}
    in_prose = sum(finding.place.line in prose.get(finding.place.path, ()) for finding in result.findings)
    return Count(pair=pair, sites=dict(total), found=dict(found), findings=len(result.findings), in_prose=in_prose, missed=missed)


def labelled(pair: Pair, sites: list[Site], repository: Repository, known: set[tuple[str, str, str]]) -> list[Site]:
    """Mined sites without the candidates of tier C that no reader agreed to."""
    kept = []
    for site in sites:
        if site.tier == "C":
            line = repository.text(pair.before, site.file).splitlines()[site.line - 1]
            if (pair.id, site.file, digest(line)) not in known:
                continue
        kept.append(site)
    return kept


def run(options: argparse.Namespace) -> list[Count]:
    """All pairs that can be had."""
    counts = []
    with tempfile.TemporaryDirectory() as scratch:
        for pair, sites in jobs(options):
            if options.only and options.only not in pair.id:
                continue
            try:
                repository = Repository(pair.repository, options.repos, clone=options.clone)
                tree = repository.checkout(pair.before, options.trees or Path(scratch))
                done = count(pair, [site for site in sites(repository) if site.code], tree)
            except Missing as problem:
                print(problem, file=sys.stderr)
                continue
            counts.append(done)
            show(done, tree if options.misses else None)
    return counts


def jobs(options: argparse.Namespace) -> Iterator[tuple[Pair, Callable[[Repository], list[Site]]]]:
    """Pairs, each with what finds its sites."""
    known, public = agreed(), cases()
    for pair, sites in given(options.history) if options.history else ():
        yield pair, lambda _, sites=sites: sites
    for pair in public.pair:
        yield pair, lambda repository, pair=pair: labelled(pair, mined(pair, repository), repository, known)
    for passes in public.passes:
        parts = [pair for pair in public.pair if pair.id in passes.pairs]
        whole = Pair(id=passes.id, repository=passes.repository, before=passes.base, after=parts[-1].after, role="passes")
        yield whole, functools.partial(before_the_first, parts, passes.base)


def before_the_first(parts: list[Pair], base: str, repository: Repository) -> list[Site]:
    """Lines of tier A that any of the ports changed, at their places in the tree before the first; none twice."""
    sites: set[Site] = set()
    for pair in parts:
        changed = [site for site in mined(pair, repository) if site.tier == "A"]
        sites |= set(traced_back(changed, repository, since=pair.before, base=base))
    return sorted(sites, key=lambda site: (site.file, site.line))


def show(done: Count, tree: Path | None) -> None:
    """One line per pair; with a tree the missed lines too."""
    share = {tier: f"{done.found.get(tier, 0)}/{done.sites[tier]}" for tier in sorted(done.sites)}
    print(f"{done.pair.id:26} {done.pair.role:9} {share} findings {done.findings} in prose {done.in_prose}", flush=True)
    for site in done.missed if tree else ():
        line = (tree / site.file).read_text("utf-8", "replace").splitlines()[site.line - 1] if tree else ""
        print(f"    {site.tier} {site.file}:{site.line}: {line.strip()[:140]}")


def totals(counts: list[Count]) -> dict[str, dict[str, float | int]]:
    """Recall by role and tier, and findings in prose per 1,000."""
    table: dict[str, dict[str, float | int]] = {}
    for role in ("dev", "heldout", "withheld", "blind", "passes"):
        chosen = [done for done in counts if done.pair.role == role]
        if not chosen:
            continue
        row: dict[str, float | int] = {}
        for tier in sorted({tier for done in chosen for tier in done.sites}):
            sites = sum(done.sites.get(tier, 0) for done in chosen)
            row[f"{tier} sites"] = sites
            row[f"{tier} recall"] = round(sum(done.found.get(tier, 0) for done in chosen) / sites, 4)
        findings = sum(done.findings for done in chosen)
        row["findings"] = findings
        row["in prose per 1000"] = round(1000 * sum(done.in_prose for done in chosen) / max(1, findings), 2)
        table[role] = row
    return table


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repos", type=Path, required=True, help="folder of clones: OWNER/NAME or NAME")
    parser.add_argument("--history", type=Path, help="pairs with sites, one JSON object per line")
    parser.add_argument("--trees", type=Path, help="keep the checked out trees here")
    parser.add_argument("--clone", action="store_true", help="clone what is missing from GitHub")
    parser.add_argument("--only", help="pairs whose id contains this")
    parser.add_argument("--misses", action="store_true", help="print each missed line")
    return parser.parse_args()


if __name__ == "__main__":
    print(json.dumps(totals(run(parse())), indent=2))
