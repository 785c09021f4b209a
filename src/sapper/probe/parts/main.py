"""The command line of the probe."""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
import time
from typing import Any, Callable

from sapper.probe.parts.attention import measure_attention
from sapper.probe.parts.clocks import measure_clocks
from sapper.probe.parts.collectives import measure_collectives, worker
from sapper.probe.parts.device import DEVICES, Device, import_torch, settings
from sapper.probe.parts.launch import measure_launch
from sapper.probe.parts.lines import Lines
from sapper.probe.parts.matmul import measure_matmul
from sapper.probe.parts.memory import measure_memory
from sapper.probe.parts.phrases import PROBE_VERSION
from sapper.probe.parts.session import Session
from sapper.probe.parts.talk import Refusal, first_line, phrase, say
from sapper.probe.parts.timing import Budget
from sapper.probe.parts.training import measure_training

SECTIONS: dict[str, Callable[[Session], None]] = {
    "launch": measure_launch, "memory": measure_memory, "matmul": measure_matmul, "clocks": measure_clocks, "attention": measure_attention,
    "training": measure_training, "collectives": measure_collectives,
}
WEIGHTS = {"launch": 0.02, "memory": 0.1, "matmul": 0.35, "attention": 0.15, "collectives": 0.1, "clocks": 0.2, "training": 0.08}


def arguments(line: list[str] | None = None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=phrase("help"))
    parser.add_argument("--device", default="cuda", help=phrase("help_device", known=", ".join(DEVICES)))
    parser.add_argument("--budget", default="120s", help=phrase("help_budget"))
    parser.add_argument("--out", help=phrase("help_out"))
    parser.add_argument("--chip", help=phrase("help_chip"))
    parser.add_argument("--note", help=phrase("help_note"))
    parser.add_argument("--only", metavar="SECTION", action="append", choices=sorted(SECTIONS), help=phrase("help_only"))
    parser.add_argument("--processes", type=int, help=phrase("help_processes"))
    parser.add_argument("--threads", type=int, help=phrase("help_threads"))
    parser.add_argument("--plugin", metavar="MODULE", help=phrase("help_plugin"))
    parser.add_argument("--backend", help=phrase("help_backend"))
    parser.add_argument("--version", action="version", version="sapper probe " + PROBE_VERSION)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args(line)


def seconds_of(text: str) -> float:
    """``90``, ``90s``, ``5m`` or ``1h`` in seconds.

    Raises:
        Refusal: None of these.
    """
    factor = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:], 0.0)
    try:
        value = float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise Refusal(phrase("bad_budget", text=text))
    return value


def header(device: Device, options: argparse.Namespace) -> dict[str, Any]:
    """What holds for the whole run. No host name and no user: the file is meant to be carried out."""
    torch = device.torch
    return {
        "type": "header", "date": datetime.date.today().isoformat(), "device": device.title(), "chip": options.chip, "note": options.note,
        "stack": device.stack(), "memory_bytes": device.memory_bytes(), "probe": PROBE_VERSION, "torch_device": device.name,
        "devices": device.count(), "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "system": platform.platform(), "machine": platform.machine(), "settings": settings(), "tool": device.tool(),
        "circumstances": {"torch_device": device.name, "threads": torch.get_num_threads()},
        "options": {"budget": options.budget, "only": options.only, "processes": options.processes},
    }


def probe(options: argparse.Namespace) -> None:
    """Measure what the options ask for."""
    total_s = seconds_of(options.budget)
    torch = import_torch()
    if options.threads:
        torch.set_num_threads(options.threads)
    name, _, index = options.device.partition(":")
    device = Device(torch, name, plugin=options.plugin, index=int(index) if index.isdigit() else 0)
    path = options.out or "sapper-probe-{}-{}.jsonl".format(device.name, time.strftime("%Y%m%d-%H%M%S"))
    try:
        lines = Lines(path)
    except OSError as error:
        raise Refusal(phrase("no_file", path=path, problem=first_line(error))) from error
    lines.write(header(device, options))
    say("begin", device=device.title(), stack=device.stack(), budget=options.budget, path=path)
    chosen = [name for name in SECTIONS if not options.only or name in options.only]
    session = Session(device, lines, budget=Budget(total_s, {name: WEIGHTS[name] for name in chosen}), options=options)
    start = time.monotonic()
    try:
        for name in chosen:
            session.budget.begin(name)
            say("section", part=name, seconds=round(session.budget.share_s))
            try:
                SECTIONS[name](session)
            except Exception as error:  # one section's trouble costs no other its results
                session.skip(f"{name}: {first_line(error)}")
        lines.write({"type": "end", "results": lines.results, "elapsed_s": time.monotonic() - start, "left_out": session.left_out})
    except KeyboardInterrupt:
        raise Refusal(phrase("interrupted", count=lines.results, path=path)) from None
    finally:
        lines.close()
    say("end", count=lines.results - 1, left=len(session.left_out), path=path)


def main(line: list[str] | None = None) -> int:
    """Run the probe; the exit code is 0, or 2 with the reason on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        options = arguments(line)
        if options.worker:
            worker(import_torch(), options)
        else:
            probe(options)
    except Refusal as refusal:
        sys.stderr.write(str(refusal) + "\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
