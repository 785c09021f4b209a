"""Fit the efficiency priors on the published measurements that ship, and write the posteriors under src/sapper/predict/data/.

    python scripts/fit_priors.py                    # writes fitted.json (training), memory_fitted.json, serve_fitted.json.gz
    python scripts/fit_priors.py --only serving     # one of them
    python scripts/fit_priors.py --check            # exit 1 if a file would change

Deterministic: no random numbers, rows in file order. Only rows of confidence ``high`` are fitted, and of serving none that the hardware
cannot have reached (``sapper validate --claims``).
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sapper.chips import catalogue
from sapper.predict.claims import check
from sapper.predict.predictor import TrainPredictor
from sapper.predict.rows.question import Question
from sapper.predict.rows.shipped import shipped_rows
from sapper.predict.serve.posterior import SHIPPED
from sapper.predict.serve.predictor import ServePredictor
from sapper.predict.serve.rows import all_cases
from sapper.predict.validate import pool

DATA = Path(__file__).resolve().parent.parent / "src/sapper/predict/data"
TABLES = ("inference", "inference_bulk")
DRIFT = 1e-3
"""Greatest difference of a coefficient that still counts as the same fit: libraries round differently."""


def newest(cases: Iterable[Question]) -> str:
    """Month of the newest software that a case ran on; a year without a month counts as its middle."""
    year, month = divmod(round(12 * max(case.job.stack_year or 0.0 for case in cases)) - 1, 12)  # the twelfth month ends the year
    return f"{year}-{month + 1:02d}"


def training() -> dict[str, Any]:
    """The posterior of the training book."""
    cases = pool(catalogue())
    fitted = TrainPredictor().fit(cases).fitted
    assert fitted is not None
    return replace(fitted, newest=newest(cases)).freeze()


def memory() -> dict[str, Any]:
    """The posterior of the memory book."""
    cases = pool(catalogue())
    fitted = TrainPredictor().fit(cases).memory_fitted
    assert fitted is not None
    return replace(fitted, newest=newest(cases)).freeze()


def serving() -> dict[str, Any]:
    """The posterior of the serving book."""
    chips = catalogue()
    rows = [row for name in TABLES for row in shipped_rows(name).rows if row.confidence == "high"]
    beyond = check(rows, chips).beyond
    cases, _ = all_cases([row for row in rows if row.id not in beyond], chips)
    posterior = ServePredictor().fit(cases).posterior
    assert posterior is not None
    return replace(posterior, fitted=replace(posterior.fitted, newest=newest(cases))).freeze()


FITS: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "training": ("fitted.json", training),
    "memory": ("memory_fitted.json", memory),
    "serving": (SHIPPED, serving),
}


def main() -> int:
    """Fit and write, or compare."""
    arguments = sys.argv[1:]
    wanted = [arguments[arguments.index("--only") + 1]] if "--only" in arguments else list(FITS)
    stale = 0
    for name in wanted:
        file, make = FITS[name]
        made = make()
        if "--check" in arguments:
            same = _same(DATA / file, made)
            print(f"{file}: {'up to date' if same else 'out of date, run scripts/fit_priors.py'}", file=sys.stderr)
            stale += not same
            continue
        _write(DATA / file, json.dumps(made) + "\n")
        fitted = made.get("fitted", made)
        print(f"{file}: {fitted['rows']} rows, {len(fitted['columns'])} coefficients, noise {fitted['noise_sd']}, widen {fitted['widen']}")
    return 1 if stale else 0


def _write(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if path.suffix == ".gz" else text.encode())


def _read(path: Path) -> Mapping[str, Any]:
    data = path.read_bytes()
    found: Mapping[str, Any] = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    return found


def _same(path: Path, made: Mapping[str, Any]) -> bool:
    if not path.is_file():
        return False
    old, new = (found.get("fitted", found) for found in (_read(path), made))
    if old["columns"] != new["columns"] or old.get("newest") != new["newest"]:
        return False
    return max(abs(a - b) for a, b in zip(old["mean"], new["mean"], strict=True)) < DRIFT


if __name__ == "__main__":
    sys.exit(main())
