"""Fit the efficiency priors on the published training measurements that ship, and write src/sapper/predict/data/fitted.json.

    python scripts/fit_priors.py            # writes the file
    python scripts/fit_priors.py --check    # exit 1 if the file would change

Deterministic: no random numbers, rows in file order. Only rows of confidence ``high`` are fitted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from sapper.chips import catalogue
from sapper.predict.predictor import TrainPredictor
from sapper.predict.validate import pool

TARGET = Path(__file__).resolve().parent.parent / "src/sapper/predict/data/fitted.json"


def main() -> int:
    """Fit and write, or compare."""
    fitted = TrainPredictor().fit(pool(catalogue())).fitted
    assert fitted is not None
    text = json.dumps(fitted.freeze(), indent=None) + "\n"
    if "--check" in sys.argv[1:]:
        same = TARGET.is_file() and json.loads(TARGET.read_text())["columns"] == json.loads(text)["columns"]
        drift = same and max(abs(a - b) for a, b in zip(json.loads(TARGET.read_text())["mean"], json.loads(text)["mean"], strict=True))
        print("up to date" if same and drift < 1e-3 else "fitted.json is out of date: run scripts/fit_priors.py", file=sys.stderr)
        return 0 if same and drift < 1e-3 else 1
    TARGET.write_text(text)
    print(f"{TARGET.name}: {fitted.rows} rows, {len(fitted.columns)} coefficients, noise {fitted.noise_sd:.3f}, widen {fitted.widen:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
