"""An environment of its own for each peer, so that none is ever a dependency of Sapper, and none meets another."""

from __future__ import annotations

import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Peer:
    """A predictor that is asked the same rows as Sapper."""

    name: str
    package: str | None
    """On PyPI; None where it is not there and the user brings a checkout."""
    version: str
    """Of the package, or the checkout's commit."""
    licence: str
    url: str

    @property
    def slug(self) -> str:
        """Name in files and on the command line."""
        return self.name.lower()

    @property
    def adapter(self) -> Path:
        """The script that asks it, run inside its environment."""
        return HERE / f"ask_{self.slug.replace('-', '_')}.py"


PEERS = {
    peer.slug: peer
    for peer in (
        Peer("GenZ", "genz-llm", "0.0.16", "MIT", "https://pypi.org/project/genz-llm/"),
        Peer("llm-analysis", "llm-analysis", "0.2.2", "Apache-2.0", "https://pypi.org/project/llm-analysis/"),
        Peer("aiconfigurator", "aiconfigurator", "0.12.0", "Apache-2.0", "https://pypi.org/project/aiconfigurator/"),
        Peer("Calculon", None, "caa4b11", "Apache-2.0", "https://github.com/calculon-ai/calculon"),
        Peer("InferSim", None, "f2293da", "Apache-2.0", "https://github.com/alibaba/InferSim"),
    )
}


def python_of(peer: Peer, folder: Path) -> Path:
    """The interpreter of the peer's environment below ``folder``; made, with exactly the pinned packages, where it is not there."""
    place = folder / f"venv-{peer.slug}"
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pins = HERE / "requirements" / f"{peer.slug}.txt"
    if not python.exists():
        venv.create(place, with_pip=pins.exists())
        if pins.exists():
            subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", "-r", pins], check=True)
    return python
