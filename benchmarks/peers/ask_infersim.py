"""InferSim (alibaba/InferSim, Apache-2.0): its own six points, with the arguments of its own examples. A checkout is given.

Options: ``checkout`` (folder).
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import sys
from pathlib import Path

from protocol import NotAnswered, Row, serve

ARGUMENTS = {
    "infersim-dsv3-prefill": "deepseek_v3 H800 --world-size 32 --num-nodes 4 --use-fp8-gemm --enable-deepep --enable-tbo"
    " --target-osl 1786 --max-prefill-tokens 8192 --prefill-only",
    "infersim-dsv3-decode": "deepseek_v3 H800 --world-size 128 --num-nodes 16 --use-fp8-gemm --enable-deepep --enable-tbo"
    " --target-osl 1786 --decode-bs 64 --decode-only",
    "infersim-prefill-qwen3-30b-a3b": "qwen3-30B-A3B H20 --world-size 1 --max-prefill-tokens 16384 --prefill-only",
    "infersim-decode-qwen3-30b-a3b": "qwen3-30B-A3B H20 --world-size 4 --decode-bs 100 --decode-only",
    "infersim-prefill-qwen3-8b-fp8": "qwen3-8B H20 --world-size 1 --max-prefill-tokens 16384 --use-fp8-gemm --prefill-only",
    "infersim-decode-qwen3-8b-fp8": "qwen3-8B H20 --world-size 1 --decode-bs 64 --use-fp8-gemm --decode-only",
}
"""By row: config, device and flags, as in the scripts of its ``example`` folder."""


def answer(row: Row) -> dict[str, float]:
    """Tokens per second and chip of the phase that the row measured."""
    if row["id"] not in ARGUMENTS:
        raise NotAnswered("the row is not of the peer's own points", row["id"])
    config, device, *flags = ARGUMENTS[row["id"]].split()
    sys.argv = ["main.py", "--config-path", str(CHECKOUT / f"hf_configs/{config}_config.json"), "--device-type", device, *flags]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.chdir(CHECKOUT):
        runpy.run_path("main.py", run_name="__main__")
    found = re.search(r"Throughput \(TGS\S*\s+([\d.]+)", printed.getvalue())
    if not found:
        raise NotAnswered("no finite answer", printed.getvalue()[-100:])
    return {"tokens_per_s_per_chip": float(found[1])}


if __name__ == "__main__":
    CHECKOUT = Path(json.loads(sys.argv[1])["checkout"]).resolve()
    sys.path.insert(0, str(CHECKOUT))
    serve(answer, reasons={})
