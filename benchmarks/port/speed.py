"""How fast a scan is: lines per CPU-second over whole repositories, every language, beside ``ast.parse`` alone.

    python benchmarks/port/speed.py FOLDER...

Prints one row per folder and the total: lines and files that were read, CPU seconds of the scan (one process), lines per
CPU-second, and the same for parsing its Python files and doing nothing else. The ratio is what a slower machine keeps.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import json
import time
import warnings
from pathlib import Path

from sapper.port.scan import scan


def parse_all(root: Path) -> tuple[int, float]:
    """Lines and CPU seconds of ``ast.parse`` on every Python file below."""
    lines, start = 0, time.process_time()
    for path in sorted(root.rglob("*.py")):
        with contextlib.suppress(SyntaxError, ValueError, OSError, RecursionError):
            text = path.read_bytes()
            ast.parse(text)
            lines += text.count(b"\n")
    return lines, time.process_time() - start


def row(root: Path) -> dict[str, object]:
    """One folder."""
    scan(root, jobs=1)  # reads the files into the system's cache, and rules and tables into memory
    start = time.process_time()
    result = scan(root, jobs=1)
    spent = time.process_time() - start
    parsed, parsing = parse_all(root)
    rate, alone = result.lines / spent, parsed / parsing
    return {
        "folder": root.name,
        "lines": result.lines,
        "files": result.files,
        "findings": len(result.findings),
        "cpu_s": round(spent, 2),
        "lines_per_cpu_s": round(rate),
        "ast_parse_lines_per_cpu_s": round(alone),
        "ratio": round(rate / alone, 2),
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    warnings.simplefilter("ignore")
    rows = [row(root) for root in parser.parse_args().folders]
    lines, spent = sum(int(str(item["lines"])) for item in rows), sum(float(str(item["cpu_s"])) for item in rows)
    whole = {"folder": "all", "lines": lines, "cpu_s": round(spent, 2), "lines_per_cpu_s": round(lines / spent)}
    print(json.dumps([*rows, whole], indent=2))


if __name__ == "__main__":
    main()
