"""Helix: reads the clusters, profiles and placements of Helix (ASPLOS 2025) and writes placements for its event simulator.

Formats as its repository has them (github.com/Thesys-lab/Helix-ASPLOS25, Apache-2.0, commit 148b733): INI files whose values are
products such as ``10 * gbps``; profiles of a machine as two CSV files of (batch, milliseconds of one layer) beside a Python file
whose literal tables say how many cache blocks are left beside k layers. Nothing of it is executed. Its ``gbps`` are 1e9 *bytes*
per second: that is how its simulator divides sizes by them.
"""

from __future__ import annotations

import ast
import configparser
import csv
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sapper.errors import BadFile
from sapper.files import read_text, write_atomic
from sapper.mix.serve.fleet import COORDINATOR, Fleet, Machine, table
from sapper.mix.serve.placement import Edge, Placement, Span

UNITS = {"kbps": 1e3, "mbps": 1e6, "gbps": 1e9, "Byte": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "Sec": 1.0, "MilliSec": 1e-3}
"""As ``simulator/event_simulator/utils.py`` defines them."""
OFFSET = 2
"""Nodes of its files are numbered from 2: 0 is the source, 1 the sink."""
BLOCK_TOKENS = 16
LONGEST_PROMPT = 2048
CONTEXT_EACH = 1000
"""Tokens of context that its profiles allow for each decoding sequence of a batch (``DECODE_PER_TOKEN_MAX_CONTEXT``)."""
TOKEN_BYTES = 2.0
COPY_BYTES_PER_S = (4e9, 5e9)
"""Concatenating and moving the activations of a batch before its first layer."""
LONE = 2.0
"""A batch of one decoding sequence takes this many times what the table's line gives (its simulator's rule)."""
MODELS = {"llama2_70b": ("LLaMA-2 70B", 80, 8192), "llama1_30b": ("LLaMA-1 30B", 60, 6656)}
"""Folder of a profile -> (name, layers, hidden size)."""


def read_fleet(cluster: str | os.PathLike[str], *, machines: str | os.PathLike[str], profiles: str | os.PathLike[str]) -> Fleet:
    """A cluster with the profiles of one model.

    Args:
        cluster: The cluster's INI file, such as ``cluster24.ini``.
        machines: The INI file of machines, for their network cards.
        profiles: The folder of a model's profiles, such as ``simulator/model_manager/llama2_70b``.

    Raises:
        BadFile: One of them is missing, or is not of this format.
    """
    folder = Path(profiles)
    if folder.name not in MODELS:
        raise BadFile("SP-MIX-250", where=os.fspath(folder), known=", ".join(MODELS))
    name, layers, hidden = MODELS[folder.name]
    ini, cards = _ini(cluster), _ini(machines)
    count = int(_section(ini, "NodeNames", cluster)["total_compute_nodes"])
    kinds = [_section(ini, f"ComputeNode-{node}", cluster)["type"] for node in range(count)]
    known = {kind: read_machine(folder / kind.lower(), kind, activation_bytes=2.0 * hidden) for kind in dict.fromkeys(kinds)}
    latency_s, bandwidth = np.full((count + 1, count + 1), np.inf), np.zeros((count + 1, count + 1))
    for section in ini.sections():
        if section.startswith("Link-"):
            first, second = (COORDINATOR if end in ("source", "sink") else int(end) for end in section.split("-")[1:3])
            # links between nodes work both ways; the source's go out and the sink's come back
            for pair in {(first, second), (first, second) if COORDINATOR in (first, second) else (second, first)}:
                latency_s[pair], bandwidth[pair] = _number(ini[section]["latency"]), _number(ini[section]["bandwidth"])
    nic = min(_number(_section(cards, kind, machines)["outbound_nic_speed"]) for kind in known)
    return Fleet(
        model=name,
        layers=layers,
        machines=tuple(known[kind] for kind in kinds),
        names=tuple(f"{kind}-{node}" for node, kind in enumerate(kinds)),
        latency_s=latency_s,
        bandwidth_bytes_per_s=bandwidth,
        activation_bytes=2.0 * hidden,
        token_bytes=TOKEN_BYTES,
        nic_bytes_per_s=nic,
        sources=(f"Helix profiles of {name}: {folder}",),
    )


def read_machine(folder: Path, name: str, *, activation_bytes: float) -> Machine:
    """The profile of one machine.

    Raises:
        BadFile: A table is missing or no table.
    """
    decode, prompt = (_csv(folder / f"{phase}_bs2time.csv") for phase in ("decode", "prompt"))
    facts = _literals(folder)
    most = facts["max_num_layers"]
    blocks, prompts, sequences = facts["vllm_num_blocks_dict"], facts["prompt_max_requests_dict"], facts["decode_max_tokens_dict"]
    decode_s = table(decode)
    decode_s[1] *= LONE
    held = range(1, most + 1)
    return Machine(
        name=name,
        decode_s=decode_s,
        prompt_s=table(prompt),
        cache_tokens=tuple(float(BLOCK_TOKENS * blocks[k] * k) for k in held),
        prompts=tuple(int(prompts[k]) for k in held),
        sequences=tuple(int(sequences[k]) for k in held),
        contexts=tuple(CONTEXT_EACH * int(sequences[k]) for k in held),
        entry_s=sum(activation_bytes / rate for rate in COPY_BYTES_PER_S),
        source=f"Helix profile {folder.parent.name}/{folder.name}",
    )


def read_placement(path: str | os.PathLike[str], fleet: Fleet) -> Placement:
    """The placement of a solution file (``ilp_sol.ini``).

    Raises:
        BadFile: It is none, or of other nodes.
    """
    ini = _ini(path)
    offset = int(_section(ini, "Settings", path)["offset"])
    spans: list[Span | None] = [None] * fleet.nodes
    for name, text in _section(ini, "Solution", path).items():
        node, held = int(name.rsplit("_", 1)[1]) - offset, ast.literal_eval(text)
        if not 0 <= node < fleet.nodes:
            raise BadFile("SP-MIX-251", where=os.fspath(path), node=name, nodes=fleet.nodes)
        spans[node] = (min(held), max(held) + 1) if held else None
    return Placement(fleet.layers, tuple(spans))


def write_solution(path: str | os.PathLike[str], placement: Placement) -> None:
    """``ilp_sol.ini``: the layers of every node."""
    lines = ["[Settings]", f"offset={OFFSET}", "", "[Solution]"]
    lines += [f"compute_node_{node + OFFSET}={list(range(*span)) if span else []}" for node, span in enumerate(placement.spans)]
    write_atomic(path, "\n".join(lines) + "\n")


def write_cluster(
    path: str | os.PathLike[str], placement: Placement, *, fleet: Fleet, machines: str | os.PathLike[str], flows: Mapping[Edge, float]
) -> None:
    """``simulator_cluster.ini``: the nodes that hold layers, their room for the cache, and the links that requests take."""
    cards = _ini(machines)
    kinds = [section for section in cards.sections() if section not in ("SourceNode", "SinkNode")]
    used = [node for node, span in enumerate(placement.spans) if span is not None]
    lines = ["[Coordinator]"]
    lines += [
        f"{key}={_number(cards[section][key])}"
        for section, key in (("SinkNode", "inbound_nic_speed"), ("SourceNode", "outbound_nic_speed"))
    ]
    lines += [
        "",
        "[MachineTypes]",
        f"types={kinds}",
        "",
        "[ComputeNodes]",
        f"names={[f'compute_node_{node + OFFSET}' for node in used]}",
        "",
    ]
    for node in used:
        machine, span = fleet.machines[node], placement.spans[node]
        assert span is not None
        lines.append(f"[compute_node_{node + OFFSET}]")
        for key in ("vram_size", "inbound_nic_speed", "outbound_nic_speed", "disk_speed"):
            lines.append(f"{key}={_number(cards[machine.name][key])}")
        lines += [f'machine_type="{machine.name}"', f"kv_cache_capacity={int(machine.cache_tokens[span[1] - span[0] - 1])}"]
        lines += ["activation_backup_capacity=0", ""]
    named = {edge: f"link_{_end(edge[0], 'source')}_{_end(edge[1], 'sink')}" for edge, flow in flows.items() if flow > 0}
    lines += ["[Links]", f"names={list(named.values())}", ""]
    for (source, target), name in named.items():
        lines += [f"[{name}]", f"in={_end(source, 'source')}", f"out={_end(target, 'sink')}"]
        lines += [
            f"latency={float(fleet.latency_s[source, target])}",
            f"bandwidth={float(fleet.bandwidth_bytes_per_s[source, target])}",
            "",
        ]
    write_atomic(path, "\n".join(lines))


def _end(node: int, coordinator: str) -> str:
    return coordinator if node == COORDINATOR else f"compute_node_{node + OFFSET}"


def _ini(path: str | os.PathLike[str]) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    try:
        parser.read_string(read_text(path))
    except configparser.Error as error:
        raise BadFile("SP-MIX-252", where=os.fspath(path), problem=str(error).splitlines()[0]) from None
    return parser


def _section(ini: configparser.ConfigParser, name: str, path: str | os.PathLike[str]) -> configparser.SectionProxy:
    if name not in ini:
        raise BadFile("SP-MIX-253", where=os.fspath(path), section=name)
    return ini[name]


def _number(text: str) -> float:
    """A product of numbers and units."""
    value = 1.0
    for part in text.split("*"):
        word = part.strip()
        value *= UNITS[word] if word in UNITS else float(word)
    return value


def _csv(path: Path) -> list[tuple[float, float]]:
    rows = []
    for number, row in enumerate(csv.reader(read_text(path).splitlines()), start=1):
        try:
            rows.append((float(row[0]), float(row[1]) * 1e-3))
        except (ValueError, IndexError):
            raise BadFile("SP-MIX-254", where=f"{path}:{number}", text=",".join(row)) from None
    return rows


_ASSIGNED = re.compile(r"^\s*(\w+)(?:\s*:[^=]+)?\s*=\s*(\{[^}]*\}|\d+)", re.MULTILINE)


def _literals(folder: Path) -> dict[str, Any]:
    """The literal tables and numbers that the machine's Python file assigns."""
    path = folder / f"{folder.parent.name}_{folder.name}.py"
    found: dict[str, Any] = {}
    for name, text in _ASSIGNED.findall(read_text(path)):
        try:
            found.setdefault(name, ast.literal_eval(text))
        except (ValueError, SyntaxError):
            continue
    missing = [
        name
        for name in ("max_num_layers", "vllm_num_blocks_dict", "prompt_max_requests_dict", "decode_max_tokens_dict")
        if name not in found
    ]
    if missing:
        raise BadFile("SP-MIX-253", where=os.fspath(path), section=missing[0])
    return found
