"""Write src/sapper/port/data/kernels/hip.tsv: CUDA's names and HIP's, as the tables of HIPIFY have them.

    python scripts/hip_table.py PATH-TO-A-CHECKOUT-OF-HIPIFY

The names of an interface are facts; HIPIFY (AMD, MIT licence) is their source, and the head of the table says at which commit.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "src" / "sapper" / "port" / "data" / "kernels" / "hip.tsv"

_ROW = re.compile(r'^\s*\{"([^"]+)",\s*\{"([^"]*)",\s*"([^"]*)",\s*(CONV_\w+),\s*(API_\w+),\s*[^,}]+(?:,\s*([^}]+))?\}\},?', re.MULTILINE)
_NAME = re.compile(r'^(?:const )?std::string (s\w+) = "([^"]+)";', re.MULTILINE)
_CASTS = re.compile(r"^  \{(s\w+),\n((?:    .*\n)+?)  \},?\n", re.MULTILINE)
_CAST = re.compile(r"\{(\d+), \{(e_HIP_SYMBOL|e_reinterpret_cast|e_reinterpret_cast_size_t), cw_None\}\}")
_ROC = {"API_BLAS", "API_DNN", "API_SPARSE", "API_SOLVER", "API_RUNTIME", "API_COMPLEX", "API_RAND"}
"""Interfaces for which HIPIFY can also write the names of the roc libraries."""
HEAD = """\
# CUDA's names and HIP's, from the tables of HIPIFY (Advanced Micro Devices, MIT licence).
# source: https://github.com/ROCm/HIPIFY/tree/{commit}/src
# date: {date}
# Written by scripts/hip_table.py; do not edit. Columns, by tabs: kind, CUDA, HIP, roc library.
# Kinds: header; name; v2 (a name that HIP has only in the second interface of cuBLAS); argument (of a function, from 0, that has to
# be wrapped: HIP_SYMBOL, reinterpret_cast<const void*>). `-` has no counterpart; an empty roc column is as the HIP column.
"""


def main() -> None:
    """Read the checkout that the command line names."""
    if len(sys.argv) != 2:
        sys.exit(str(__doc__))
    checkout = Path(sys.argv[1])
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(HEAD.format(commit=git(checkout, "%H"), date=git(checkout, "%cs")) + "\n".join(rows(checkout)) + "\n", "utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}")


def git(checkout: Path, form: str) -> str:
    """A property of the newest commit."""
    return subprocess.run(
        ["git", "-C", str(checkout), "log", "-1", f"--format={form}"], check=True, capture_output=True, text=True
    ).stdout.strip()


def rows(checkout: Path) -> list[str]:
    """The lines of the table, in order of kind and name."""
    found: dict[tuple[str, str], str] = {}
    for path in sorted((checkout / "src").glob("CUDA2HIP*.cpp")):
        for match in _ROW.finditer(path.read_text("utf-8")):
            cuda, hip, roc, kind, api, support = match.groups()
            row = _row(cuda, hip, roc, header=kind.startswith("CONV_INCLUDE"), api=api, support=set(re.findall(r"\w+", support or "")))
            if row:
                found.setdefault((row[0], cuda), "\t".join(row))
    lines = [found[key] for key in sorted(found)]
    return lines + sorted(_arguments((checkout / "src" / "HipifyAction.cpp").read_text("utf-8")))


def _row(cuda: str, hip: str, roc: str, *, header: bool, api: str, support: set[str]) -> tuple[str, str, str, str] | None:
    """Kind, CUDA, HIP, roc; None where nothing is to be said (the name is the same, or the framework is Caffe2)."""
    if api == "API_CAFFE2":
        return None
    hip_name = "-" if support & {"HIP_UNSUPPORTED", "UNSUPPORTED"} else hip or ("" if header else "-")
    roc_name = roc or hip_name if api in _ROC else hip_name
    if api in _ROC and support & {"ROC_UNSUPPORTED", "UNSUPPORTED"}:
        roc_name = "-"
    if hip_name == cuda and roc_name in (cuda, hip_name):
        return None
    kind = "header" if header else "v2" if "HIP_SUPPORTED_V2_ONLY" in support else "name"
    return kind, cuda, hip_name, "" if roc_name == hip_name else roc_name or "-"


def _arguments(action: str) -> list[str]:
    """The arguments that HIP wants wrapped, of calls whose roc library is not meant alone."""
    names = dict(_NAME.findall(action))
    wraps = {"e_HIP_SYMBOL": "HIP_SYMBOL", "e_reinterpret_cast": "reinterpret_cast<const void*>"}
    start = action.index("FuncArgCasts {")
    found = []
    for match in _CASTS.finditer(action, start, action.index("\n};", start)):
        for index, cast in _CAST.findall(match[2]):
            if cast in wraps and match[1] in names:
                found.append("\t".join(("argument", names[match[1]], index, wraps[cast])))
    return found


if __name__ == "__main__":
    main()
