"""What a peer says of itself: Calculon's ``llm-validation`` verb recomputes the points of its paper and prints its errors."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from environments import Peer, python_of

TABLES = {
    "*Params & Opt": ("weights, gradients and optimizer, bytes", "arXiv:2205.05198 figure 1"),
    "*Activations": ("activations, bytes", "arXiv:2205.05198 figure 1"),
    "End-to-end": ("step time", "arXiv:2205.05198 table 5"),
}
"""Its tables by the start of their heading; that of figure 7 has shares of a total and no heading of this form."""
POINTS = 8


def calculon_own_points(peer: Peer, checkout: Path, *, work: Path) -> list[dict[str, object]]:
    """Mean and maximum error of each table that it prints."""
    line = [python_of(peer, work), "bin/calculon", "llm-validation"]
    env = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": str(checkout.resolve()), "PYTHONDONTWRITEBYTECODE": "1"}
    printed = subprocess.run(line, cwd=checkout, capture_output=True, text=True, check=True, env=env).stdout
    found: list[dict[str, object]] = []
    for start, (what, source) in TABLES.items():
        table = printed[printed.index(start) :]
        mean, most = (re.search(rf"^{word},+([\d.]+)%", table, re.MULTILINE) for word in ("Ave", "Max"))
        if mean is None or most is None:
            raise ValueError(f"no Ave and Max after {start!r} in what llm-validation prints")
        found.append(
            {
                "peer": peer.name, "version": peer.version, "what": what, "source": source, "points": POINTS,
                "mean_abs": round(float(mean[1]) / 100, 4), "max_abs": round(float(most[1]) / 100, 4),
            }
        )
    return found
