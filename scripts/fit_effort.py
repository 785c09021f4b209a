"""Fit the effort of a port on ports that people have made, and say how far off it is on repositories that it has not seen.

    python scripts/fit_effort.py                                 # fits, writes model.json and the tables of docs/port-effort*.md
    python scripts/fit_effort.py --check                         # exit 1 where the model would change
    python scripts/fit_effort.py --measure MIRRORS               # first measures the pairs of pairs.jsonl again, from git mirrors
    python scripts/fit_effort.py --find MIRRORS                  # first finds ports in the histories of the mirrors, and measures them

MIRRORS is a folder of git repositories, ``OWNER+NAME/repo`` or ``OWNER+NAME``. Nothing of them is imported or run: the tree before a
port is unpacked and scanned, and the difference counted. Deterministic: no random numbers; the same pairs give the same fit.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from sapper.port import effort
from sapper.port.effort import DATA, GROUPS, LEVEL, NATIVE, Errors, Model, Pair
from sapper.port.rule import rules
from sapper.port.scan import scan

ROOT = Path(__file__).resolve().parent.parent
PORT = re.compile(
    r"\b(npu|ascend|xpu|intel gpu|ipex|musa|moore threads|mlu|cambricon|rocm|hpu|gaudi|habana|gcu|enflame|kunlun\w*|iluvatar|corex"
    r"|device[- ]agnostic|hardware[- ]agnostic|accelerator api|torch\.accelerator|non[- ]cuda|cuda[- ]only)\b",
    re.IGNORECASE,
)
"""What the title of a port speaks of."""
NO_PORT = re.compile(r"^\W*(?:revert|reland|re-land)|\bbump\b", re.IGNORECASE)
CUDA = re.compile(r"cuda|nccl", re.IGNORECASE)
CODE = re.compile(r"\.(?:py|sh|ya?ml|toml|cfg|ini|json|txt|ipynb)$|(?:^|/)Dockerfile", re.IGNORECASE)
"""Files whose changed lines count; prose and C++/CUDA do not."""
LEAST_REMOVED_LINES, LEAST_SHARE = 3, 0.1
"""A port removes so many Python lines that speak of CUDA, and they are this share of the Python lines that it removes."""
MOST_OF_ONE_REPOSITORY = 30
"""The newest; one well-kept repository shall not be the history of all."""
DRIFT = 1e-6


# -- The history -------------------------------------------------------------------------------------------------------------------


def repositories(mirrors: Path) -> dict[str, Path]:
    """Git directories by ``owner/name``."""
    found = {}
    for folder in sorted(mirrors.iterdir()):
        inner = folder / "repo" if (folder / "repo").is_dir() else folder
        if folder.is_dir() and "+" in folder.name:
            found[folder.name.replace("+", "/", 1)] = inner
    return found


def git(repo: Path, *arguments: str) -> str:
    """What git prints; characters that are no UTF-8 are replaced."""
    done = subprocess.run(["git", "-C", str(repo), *arguments], capture_output=True, check=True)
    return done.stdout.decode("utf-8", "replace")


def ports(repo: Path) -> Iterator[tuple[str, str, str]]:
    """Commit before, commit after and date of each port in the history of ``repo``, the newest first."""
    found = 0
    for line in git(repo, "log", "--no-merges", "--format=%H%x09%P%x09%as%x09%s").splitlines():
        after, before, date, title = line.split("\t", 3)
        if found == MOST_OF_ONE_REPOSITORY:
            return
        if not PORT.search(title) or NO_PORT.search(title) or len(before.split()) != 1:
            continue
        if removes_cuda(repo, before, after):
            found += 1
            yield before, after, date


def removes_cuda(repo: Path, before: str, after: str) -> bool:
    """Whether a good part of the Python lines that went away spoke of CUDA."""
    rows = git(repo, "diff", "-U0", "-M", before, after, "--", "*.py").splitlines()
    removed = [row for row in rows if re.match(r"-(?!--)", row)]
    named = sum(CUDA.search(row) is not None for row in removed)
    return named >= LEAST_REMOVED_LINES and named >= LEAST_SHARE * len(removed)


def changes(repo: Path, before: str, after: str) -> tuple[dict[str, int], dict[str, int]]:
    """Changed lines by file that was there before, and lines by new file; of each hunk the greater of removed and added."""
    old: Counter[str] = Counter()
    new: Counter[str] = Counter()
    path, fresh = "", False
    for row in git(repo, "diff", "-U0", "-M", before, after).splitlines():
        if row.startswith("--- "):
            fresh, path = row == "--- /dev/null", row[6:]
        elif row.startswith("+++ "):
            path = row[6:] if fresh else path
        elif (hunk := re.match(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@", row)) and CODE.search(path):
            (new if fresh else old)[path] += max(int(count or 1) for count in hunk.groups())
    return dict(old), dict(new)


def naming_files(repo: Path, commit: str) -> set[str]:
    """Python files of ``commit`` that name CUDA."""
    done = subprocess.run(
        ["git", "-C", str(repo), "grep", "-l", "-i", "-E", "-z", CUDA.pattern, commit, "--", "*.py"], capture_output=True, check=False
    )
    return {path.partition(":")[2] for path in done.stdout.decode("utf-8", "replace").split("\0") if path}


def unpack(repo: Path, commit: str, folder: Path, *, paths: Container[str]) -> None:
    """Write files of ``commit`` into ``folder``; blobs that the mirror lacks (it keeps none of many megabytes) are left out."""
    rows = [row.split("\t", 1) for row in git(repo, "ls-tree", "-r", "-z", commit).split("\0") if row]
    blobs = [(row[0].split()[2], row[1]) for row in rows if row[0].startswith("100") and row[1] in paths]
    asked = "".join(f"{blob}\n" for blob, _ in blobs).encode()
    out = subprocess.run(["git", "-C", str(repo), "cat-file", "--batch"], input=asked, capture_output=True, check=True).stdout
    at = 0
    for _, path in blobs:
        end = out.index(b"\n", at)
        head, at = out[at:end].split(), end + 1
        if head[-1] == b"missing":
            continue
        size = int(head[2])
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(out[at : at + size])
        at += size + 1


def measured(name: str, repo: Path, before: str, after: str, date: str) -> Pair | None:
    """The facts of one port; None where our scan finds nothing in what it changed."""
    old, new = changes(repo, before, after)
    with tempfile.TemporaryDirectory() as folder:
        unpack(repo, before, Path(folder), paths=old)
        findings = [one for one in scan(folder, jobs=1).findings if one.standing == "ties" and not one.code.startswith(NATIVE)]
    if not findings:
        return None
    known, naming = rules(), naming_files(repo, before)
    return Pair(
        repository=name, before=before, after=after, date=date, source=f"https://github.com/{name}/commit/{after}",
        counts=dict(sorted(Counter(known[one.code].klass for one in findings).items())),
        in_tests=sum(one.context == "test" for one in findings), files_with_findings=len({one.place.path for one in findings}),
        lines=sum(old.values()), files=len(old), new_lines=sum(new.values()), new_files=len(new),
        naming_files=len(naming & old.keys()), naming_files_of_all=len(naming),
    )  # fmt: skip


def collected(mirrors: Path, known: Sequence[Pair] | None) -> list[Pair]:
    """All pairs measured: those ``known``, or those that are found."""
    repos = repositories(mirrors)
    asked: list[tuple[str, str, str, str]] = []
    if known is None:
        asked = [(name, *found) for name, repo in repos.items() for found in ports(repo)]
    else:
        asked = [(pair.repository, pair.before, pair.after, pair.date) for pair in known]
    pairs = []
    for number, (name, before, after, date) in enumerate(asked, 1):
        pair = measured(name, repos[name], before, after, date)
        print(f"{number}/{len(asked)} {name} {after[:9]}: {'nothing found' if pair is None else pair.lines}", file=sys.stderr)
        pairs += [pair] if pair else []
    return sorted(pairs, key=lambda pair: (pair.repository, pair.date, pair.after))


# -- The fit -----------------------------------------------------------------------------------------------------------------------

POOLED = (*GROUPS, "file")
NAMES = (*POOLED, "port")
POOLED_SD_LOG, HUBER_LOG, ROUNDS = 0.5, 0.7, 200
"""How far rates of groups may stand apart, from where an error counts linearly, and steps of the fit."""


def weights(pairs: Sequence[Pair]) -> np.ndarray:
    """Each repository counts as the square root of its pairs."""
    counts = Counter(pair.repository for pair in pairs)
    return np.array([counts[pair.repository] ** -0.5 for pair in pairs])


def design(pairs: Sequence[Pair]) -> np.ndarray:
    """Findings by group, files, and one for the port itself."""
    return np.array([[*effort.by_group(pair.counts).values(), pair.files_with_findings, 1] for pair in pairs], dtype=float)


def fitted_rates(pairs: Sequence[Pair]) -> dict[str, float]:
    """Rates by Gauss-Newton on logarithms, Huber's loss, with a common rate towards which those with few examples lean."""
    x, y, w = design(pairs), np.log([max(pair.lines, 1) for pair in pairs]), weights(pairs)
    theta = np.full(len(NAMES), np.median(y - np.log(x.sum(axis=1))))
    lean = np.zeros((len(NAMES), len(NAMES)))
    lean[: len(POOLED), : len(POOLED)] = np.eye(len(POOLED)) - 1 / len(POOLED)
    for _ in range(ROUNDS):
        rates = np.exp(theta)
        total = x @ rates
        residual = y - np.log(total)
        jacobian = x * rates / total[:, None]
        robust = w * np.minimum(1.0, HUBER_LOG / np.maximum(np.abs(residual), 1e-9))
        hessian = jacobian.T @ (jacobian * robust[:, None]) + lean / POOLED_SD_LOG**2
        gradient = jacobian.T @ (robust * residual) - lean @ theta / POOLED_SD_LOG**2
        theta = theta + np.clip(np.linalg.solve(hessian + 1e-9 * np.eye(len(NAMES)), gradient), -0.5, 0.5)
    return dict(zip(NAMES, map(float, np.exp(theta)), strict=True))


def quantile(values: Sequence[float], weight: Sequence[float], at: float) -> float:
    """A weighted quantile."""
    order = np.argsort(values)
    total = np.cumsum(np.asarray(weight)[order]) - 0.5 * np.asarray(weight)[order]
    return float(np.interp(at * np.sum(weight), total, np.asarray(values)[order]))


def left_out(pairs: Sequence[Pair]) -> list[tuple[Pair, float, float]]:
    """Each pair with the logarithm of true over predicted lines and files, by a fit that saw nothing of its repository."""
    found = []
    for name in dict.fromkeys(pair.repository for pair in pairs):
        others = [pair for pair in pairs if pair.repository != name]
        rates, ratio = fitted_rates(others), files_ratio(others)
        for pair in pairs:
            if pair.repository == name:
                lines = effort.predicted_lines(rates, pair.counts, pair.files_with_findings)
                found.append((pair, math.log(max(pair.lines, 1) / lines), math.log(pair.files / (ratio * pair.files_with_findings))))
    return found


def files_ratio(pairs: Sequence[Pair]) -> float:
    """Changed files for each file with findings."""
    logs = [math.log(pair.files / pair.files_with_findings) for pair in pairs]
    return math.exp(quantile(logs, weights(pairs).tolist(), 0.5))


def interval(errors: Sequence[tuple[Pair, float]]) -> tuple[float, float]:
    """The quantiles between which a share of :data:`LEVEL` of the errors lies."""
    values, weight = [error for _, error in errors], weights([pair for pair, _ in errors]).tolist()
    return quantile(values, weight, (1 - LEVEL) / 2), quantile(values, weight, (1 + LEVEL) / 2)


def scored(errors: Sequence[tuple[Pair, float]]) -> tuple[Errors, dict[str, list[bool]]]:
    """Errors with their coverage: a repository's pairs are held against the quantiles of the others."""
    inside: dict[str, list[bool]] = defaultdict(list)
    for name in dict.fromkeys(pair.repository for pair, _ in errors):
        low, high = interval([one for one in errors if one[0].repository != name])
        inside[name] = [low <= error <= high for pair, error in errors if pair.repository == name]
    low, high = interval(errors)
    weight = weights([pair for pair, _ in errors]).tolist()
    return Errors(
        low_log=low, high_log=high, median_abs_log=quantile([abs(error) for _, error in errors], weight, 0.5),
        coverage_share=float(np.mean([np.mean(hits) for hits in inside.values()])),
    ), dict(inside)  # fmt: skip


def fitted(pairs: Sequence[Pair]) -> tuple[Model, dict[str, list[bool]], dict[str, list[bool]]]:
    """The fit, and by repository which pairs its interval held: lines, files."""
    errors = left_out(pairs)
    lines, lines_inside = scored([(pair, error) for pair, error, _ in errors])
    changed, files_inside = scored([(pair, error) for pair, _, error in errors])
    model = Model(
        rates=fitted_rates(pairs), files_ratio=files_ratio(pairs), lines=lines, files=changed, pairs=len(pairs),
        repositories=len(lines_inside), most_findings=max(sum(pair.counts.values()) for pair in pairs),
    )  # fmt: skip
    return model, lines_inside, files_inside


# -- What is written ---------------------------------------------------------------------------------------------------------------

MARKS = ("<!-- figures:begin -->\n", "<!-- figures:end -->")
WORDS = {
    "en": {
        "fit": "{pairs} ports of {repositories} repositories, from {first} to {last}; {findings:,} findings in what they changed, "
        "{lines:,} changed lines in {files:,} files.",
        "rates": ["group", "classes", "in the history", "changed lines each"],
        "file": "each file with findings", "port": "the port itself",
        "quality": ["quantity", "median error", "80% interval", "truths inside, in unseen repositories"],
        "lines": "lines", "files": "files", "factor": "a factor of {value:.2f}", "interval": "{low:.2f} to {high:.2f} times the estimate",
        "repositories": ["repository", "ports", "findings", "changed lines", "true / predicted, median", "lines inside", "files inside"],
        "scope": "Of the Python files that name CUDA, a port changed {median:.0%} (median; quarter {low:.0%}, three quarters {high:.0%}).",
    },
    "zh": {
        "fit": "共 {repositories} 个仓库的 {pairs} 次移植，时间为 {first} 至 {last}；所改文件中有 {findings:,} 处发现，"
        "改动 {lines:,} 行，涉及 {files:,} 个文件。",
        "rates": ["组", "类别", "历史中的数量", "每个改动行数"],
        "file": "每个有发现的文件", "port": "移植本身",
        "quality": ["量", "误差中位数", "80% 区间", "未见过的仓库中落入区间的比例"],
        "lines": "行数", "files": "文件数", "factor": "{value:.2f} 倍", "interval": "估计值的 {low:.2f} 至 {high:.2f} 倍",
        "repositories": ["仓库", "移植次数", "发现", "改动行数", "实际 / 预测行数，中位数", "行数落入区间", "文件数落入区间"],
        "scope": "在提到 CUDA 的 Python 文件中，一次移植改动了其中的 {median:.0%}（中位数；四分位 {low:.0%} 与 {high:.0%}）。",
    },
}  # fmt: skip


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; numbers stand right."""
    marks = ("---:" if rows and not isinstance(cell, str) else "---" for cell in rows[0])
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join(marks)} |"]
    lines += [f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else str(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)




def figures(pairs: Sequence[Pair], lang: str) -> str:
    """The tables of docs/port-effort.md."""
    model, lines_inside, files_inside = fitted(pairs)
    word = WORDS[lang]
    counts = Counter[str]()
    for pair in pairs:
        counts.update(effort.by_group(pair.counts))
    rates = [[f"`{name}`", ", ".join(GROUPS[name]), counts[name], f"{model.rates[name]:.2f}"] for name in GROUPS]
    rates.append([word["file"], "-", sum(pair.files_with_findings for pair in pairs), f"{model.rates['file']:.2f}"])
    rates.append([word["port"], "-", len(pairs), f"{model.rates['port']:.2f}"])
    quality = [_quality(word, name, errors) for name, errors in (("lines", model.lines), ("files", model.files))]
    shares = sorted(pair.naming_files / pair.naming_files_of_all for pair in pairs if pair.naming_files_of_all)
    low, median, high = (quantile(shares, [1.0] * len(shares), at) for at in (0.25, 0.5, 0.75))
    head = str(word["fit"]).format(
        pairs=len(pairs), repositories=model.repositories, first=min(pair.date for pair in pairs), last=max(pair.date for pair in pairs),
        findings=sum(sum(pair.counts.values()) for pair in pairs), lines=sum(pair.lines for pair in pairs),
        files=sum(pair.files for pair in pairs),
    )  # fmt: skip
    parts = [
        head, table(word["rates"], rates), table(word["quality"], quality), str(word["scope"]).format(low=low, median=median, high=high),
        table(word["repositories"], _by_repository(pairs, lines_inside, files_inside)),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _quality(word: Mapping[str, object], name: str, errors: Errors) -> list[object]:
    factor = str(word["factor"]).format(value=math.exp(errors.median_abs_log))
    span = str(word["interval"]).format(low=math.exp(errors.low_log), high=math.exp(errors.high_log))
    return [word[name], factor, span, f"{errors.coverage_share:.0%}"]


Inside = Mapping[str, list[bool]]


def _by_repository(pairs: Sequence[Pair], lines_inside: Inside, files_inside: Inside) -> list[list[object]]:
    errors = left_out(pairs)
    rows: list[list[object]] = []
    for name in lines_inside:
        own = [pair for pair in pairs if pair.repository == name]
        ratio = math.exp(float(np.median([error for pair, error, _ in errors if pair.repository == name])))
        inside = [f"{sum(hits[name])} / {len(hits[name])}" for hits in (lines_inside, files_inside)]
        findings = sum(sum(pair.counts.values()) for pair in own)
        rows.append([name, len(own), findings, sum(pair.lines for pair in own), f"{ratio:.2f}", *inside])
    return rows


def write_figures(pairs: Sequence[Pair]) -> None:
    """Put the tables between the marks of the two pages."""
    for lang, suffix in (("en", ".md"), ("zh", ".zh.md")):
        page = ROOT / "docs" / f"port-effort{suffix}"
        text = page.read_text("utf-8")
        start, end = text.index(MARKS[0]) + len(MARKS[0]), text.index(MARKS[1])
        page.write_text(text[:start] + "\n" + figures(pairs, lang) + "\n" + text[end:], "utf-8")


def same(one: object, other: object) -> bool:
    """Equal but for the last digits, which libraries round differently."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float) or isinstance(other, float):
        return math.isclose(float(one), float(other), rel_tol=DRIFT)  # type: ignore[arg-type]
    return one == other


def main() -> int:
    """Collect if asked, fit, write or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--find", type=Path, metavar="MIRRORS")
    parser.add_argument("--measure", type=Path, metavar="MIRRORS")
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    if asked.find or asked.measure:
        pairs = collected(asked.find or asked.measure, None if asked.find else effort.pairs())
        (DATA / "pairs.jsonl").write_bytes(b"".join(msgspec.json.encode(pair) + b"\n" for pair in pairs))
        effort.pairs.cache_clear()
    pairs = list(effort.pairs())
    model = msgspec.to_builtins(fitted(pairs)[0])
    path = DATA / "model.json"
    if asked.check:
        fresh = same(model, json.loads(path.read_text("utf-8")))
        print(f"{path.name}: {'up to date' if fresh else 'out of date, run scripts/fit_effort.py'}", file=sys.stderr)
        return 0 if fresh else 1
    path.write_text(json.dumps(model, indent=1) + "\n", "utf-8")
    write_figures(pairs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
