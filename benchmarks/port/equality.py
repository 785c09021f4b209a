"""How often `sapper port fix` writes what a person wrote at the same place.

    python benchmarks/port/equality.py --repos CLONES                        # the pairs of rewrites.toml
    python benchmarks/port/equality.py --repos CLONES --history FILE.jsonl   # those of a file as well (neutral styles)
    python benchmarks/port/equality.py --repos CLONES --misses

The tree before the port is rewritten whole, with its own helper where it has one. A place is a statement (of a compound
statement its head) that names CUDA before and that the person replaced by one that does not; statements are aligned in
order, by likeness. Two statements are equal where their canonical syntax (canonical.py) is; also printed without folding
the names of variables. Printed beside: files that parse after the rewrite, and bytes outside of edits that stayed.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import sys
import tempfile
import tomllib
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec
from canonical import canonical, neutral, tied, units
from history import Pair, given
from repositories import Missing, Repository

from sapper.port.finding import Finding
from sapper.port.fix.plan import plan
from sapper.port.python import analyse
from sapper.port.read import read
from sapper.port.rule import rules
from sapper.port.source import Source

HERE = Path(__file__).parent
NEUTRAL = ("torch.accelerator", "device-helper", "test-device-helper", "accelerator", "torch.autocast", "device-module")
"""Beginnings of the styles whose commits write code for any chip; the others add a branch for one."""
MIN_LIKENESS = 0.35


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """One replaced statement: before, by the person, by us."""

    path: str
    line: int
    before: str
    person: str
    ours: str
    equal: bool
    equal_strict: bool
    """Names of variables as they are."""


class Score(msgspec.Struct, kw_only=True):
    """One pair."""

    pair: Pair
    places: list[Place]
    files: int
    unparsed: int


def pairs() -> list[Pair]:
    """The pairs of rewrites.toml."""
    with open(HERE / "rewrites.toml", "rb") as file:
        return msgspec.convert(tomllib.load(file)["pair"], list[Pair])


def score(pair: Pair, repository: Repository, where: Path, *, grade: str, style: str) -> Score:
    """Rewrite the tree before and compare it with the person's."""
    root = repository.checkout(pair.before, where)
    paths = [path for path in repository.changed(pair.before, pair.after) if path.endswith(".py")]
    made = plan(root, style=style, grade=grade, only=paths, findings=_findings(root, paths))  # type: ignore[arg-type]
    unparsed = sum(not _parses(raw.decode("utf-8", "replace")) for path, raw in made.contents.items() if path.endswith(".py"))
    places: list[Place] = []
    for path in paths:
        old = repository.text(pair.before, path)
        person = repository.text(pair.after, path)
        ours = made.contents[path].decode("utf-8", "replace") if path in made.contents else old
        places += _places(path, old, person=person, ours=ours, sites=None)
    return Score(pair=pair, places=places, files=len(made.contents), unparsed=unparsed)


def _findings(root: Path, paths: list[str]) -> list[Finding]:
    """Of the changed files alone: what the rest of a large repository says of them is not worth its time here."""
    sources = [read(root / path, path) for path in paths]
    return [finding for source in sources if isinstance(source, Source) for finding in analyse(source, rules()).findings]


def _parses(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def _places(path: str, old: str, *, person: str, ours: str, sites: set[int] | None) -> Iterator[Place]:
    if not all(map(_parses, (old, person, ours))):
        return
    before, theirs, mine = (units(ast.parse(text)) for text in (old, person, ours))
    to_person, to_ours = _aligned(before, theirs), _aligned(before, mine)
    for index, node in enumerate(before):
        other = to_person.get(index)
        if not tied(node) or other is None or tied(theirs[other]):
            continue  # not tied; gone; left tied, or with a branch for another chip
        if sites is not None and not sites & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)):  # type: ignore[attr-defined]
            continue
        person_form = canonical(theirs[other])
        if not neutral(person_form):
            continue  # restructured: what stands there now is something else
        rewritten = mine[to_ours[index]] if index in to_ours else node
        yield Place(
            path=path, line=getattr(node, "lineno", 0), before=ast.unparse(node), person=ast.unparse(theirs[other]),
            ours=ast.unparse(rewritten),
            equal=person_form == canonical(rewritten),
            equal_strict=canonical(theirs[other], names=False) == canonical(rewritten, names=False),
        )  # fmt: skip


def _aligned(old: list[ast.AST], new: list[ast.AST]) -> dict[int, int]:
    """Index in ``new`` of each statement of ``old`` that is still there, equal or changed."""
    left, right = [ast.unparse(node) for node in old], [ast.unparse(node) for node in new]
    found: dict[int, int] = {}
    for tag, first, last, start, end in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag == "equal":
            found |= {first + step: start + step for step in range(last - first)}
        elif tag == "replace":
            found |= _alike(old, new, left, right, range(first, last), range(start, end))
    return found


def _alike(old: list[ast.AST], new: list[ast.AST], left: list[str], right: list[str], rows: range, columns: range) -> dict[int, int]:
    """The pairing in order that is likest in sum."""
    likeness = {
        (row, column): difflib.SequenceMatcher(None, left[row], right[column], autojunk=False).ratio()
        for row in rows
        for column in columns
        if type(old[row]) is type(new[column]) and len(rows) * len(columns) < 40_000
    }
    best: dict[tuple[int, int], float] = defaultdict(float)
    for row in reversed(rows):
        for column in reversed(columns):
            pair = likeness.get((row, column), 0.0)
            taken = pair + best[row + 1, column + 1] if pair >= MIN_LIKENESS else 0.0
            best[row, column] = max(taken, best[row + 1, column], best[row, column + 1])
    found: dict[int, int] = {}
    row, column = rows.start, columns.start
    while row < rows.stop and column < columns.stop:
        pair = likeness.get((row, column), 0.0)
        if pair >= MIN_LIKENESS and abs(best[row, column] - pair - best[row + 1, column + 1]) < 1e-9:
            found[row] = column
            row, column = row + 1, column + 1
        elif best[row, column] == best[row + 1, column]:
            row += 1
        else:
            column += 1
    return found


def main() -> int:
    """Print a row per pair, and the sums by role."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repos", type=Path, required=True)
    parser.add_argument("--clone", action="store_true")
    parser.add_argument("--history", type=Path)
    parser.add_argument("--only", default="", help="pairs whose id holds this")
    parser.add_argument("--role", default="")
    parser.add_argument("--grade", default="safe", choices=("safe", "unsafe"))
    parser.add_argument("--style", default="auto")
    parser.add_argument("--misses", action="store_true")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", SyntaxWarning)
    wanted = pairs()
    if arguments.history:
        known = {(pair.repository, pair.after) for pair in wanted}
        wanted += [
            pair
            for pair, _sites in given(arguments.history)
            if pair.style.startswith(NEUTRAL) and (pair.repository, pair.after) not in known
        ]
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
    with tempfile.TemporaryDirectory() as folder:
        for pair in wanted:
            if arguments.only not in pair.id or arguments.role not in pair.role:
                continue
            try:
                one = score(
                    pair,
                    Repository(pair.repository, arguments.repos, clone=arguments.clone),
                    Path(folder),
                    grade=arguments.grade,
                    style=arguments.style,
                )
            except Missing as problem:
                print(f"{pair.id}: {problem}", file=sys.stderr)
                continue
            equal, strict = sum(place.equal for place in one.places), sum(place.equal_strict for place in one.places)
            row = [len(one.places), equal, strict, one.files, one.unparsed]
            sums[pair.role] = [*map(sum, zip(sums[pair.role], row, strict=True))]
            print(f"{pair.id:28} {pair.role:9} {pair.style:22} {_row(row)}", flush=True)
            if arguments.misses:
                for place in one.places:
                    if not place.equal:
                        print(f"    {place.path}:{place.line}\n      - {place.before}\n      p {place.person}\n      s {place.ours}")
    for role, row in sorted(sums.items()):
        print(f"{role:28} {'':9} {'':22} {_row(row)}")
    return 0


def _row(row: list[int]) -> str:
    places, equal, strict, files, unparsed = row
    share = [f"{count / places:.3f}" if places else "-" for count in (equal, strict)]
    return f"{equal:4}/{places:<4} {share[0]}  strict {share[1]}  files {files:4}  unparsed {unparsed}"


if __name__ == "__main__":
    sys.exit(main())
