"""What a command costs before it does anything: processor time of ``sapper --help`` and ``import sapper`` beside a bare Python.

    python benchmarks/startup.py

Prints JSON: least CPU seconds of each over several children, and the ratios to a bare Python of the same run.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys

RUNS = 12
LINES = {
    "python": ["-c", "pass"],
    "import click": ["-c", "import click"],
    "import sapper": ["-c", "import sapper"],
    "sapper --help": ["-m", "sapper", "--help"],
}


def cpu_s(arguments: list[str]) -> float:
    """Processor time of one child, user and system."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Takes turns, so that what else the machine does falls on all alike."""
    least = dict.fromkeys(LINES, float("inf"))
    for _ in range(RUNS):
        for name, arguments in LINES.items():
            least[name] = min(least[name], cpu_s(arguments))
    bare = least["python"]
    print(json.dumps({name: {"cpu_s": round(value, 4), "ratio": round(value / bare, 2)} for name, value in least.items()}, indent=2))


if __name__ == "__main__":
    main()
