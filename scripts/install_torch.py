"""Installs PyTorch's CPU build and Transformers for the tests in tests/torch, or says why not.

A plain ``pip install torch`` fetches gigabytes of CUDA on most machines. This asks pip first what it would take, and takes
it only when it is a CPU build. A PyTorch that is already there, of any vendor, is left alone.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

CONSTRAINTS = Path(__file__).parent / "test-constraints.txt"
PIN = next(line for line in CONSTRAINTS.read_text("utf-8").splitlines() if line.startswith("torch=="))


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs pip of this interpreter."""
    line = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq", *arguments]
    return subprocess.run(line, text=True, capture_output=True, check=False)


def installed(name: str) -> str | None:
    """Version of a package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def offered() -> tuple[str | None, str]:
    """The version of torch that pip would install, and pip's own words where it finds none."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        done = pip("install", "--dry-run", "--no-deps", "--ignore-installed", "--only-binary", ":all:", "--report", str(report), PIN)
        if done.returncode or not report.exists():
            return None, (done.stderr.strip().splitlines() or ["pip found nothing"])[-1]
        return json.loads(report.read_text("utf-8"))["install"][0]["metadata"]["version"], ""


def is_cpu_build(version: str) -> bool:
    """Whether this build of torch comes without CUDA."""
    return "+cpu" in version or platform.system() == "Darwin" or os.environ.get("TORCH_BUILD") == "any"


def main() -> int:
    """Installs what is missing; 1 only on a CI machine that cannot have it."""
    if installed("torch") is None:
        version, problem = offered()
        if version is None or not is_cpu_build(version):
            reason = problem or f"pip offers torch {version}, which is not a CPU build"
            print("=" * 100)
            print(f"NO CPU BUILD OF PYTORCH: tests/torch will be skipped. {reason}")
            print("Point pip at an index with CPU builds, or allow any build with TORCH_BUILD=any, and run again.")
            print("=" * 100)
            return 1 if os.environ.get("CI") else 0
        done = pip("install", "--only-binary", ":all:", PIN)
        if done.returncode:
            print(done.stderr)
            return 1
    held = installed("torch")
    done = pip("install", "-c", str(CONSTRAINTS) if held and PIN.endswith(held.split("+")[0]) else os.devnull, "transformers>=5.0,<6")
    if done.returncode:
        print(done.stderr)
        return 1
    if held and installed("torch") != held:
        print(f"torch {held} was replaced by {installed('torch')}: refusing to go on")
        return 1
    print(f"torch {held}, transformers {installed('transformers')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
