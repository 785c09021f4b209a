"""Ask the peers and Sapper the same measured rows, and write results.json and the answers beside this script.

    python benchmarks/peers/run.py --work ~/peers                                   # the peers of PyPI, then Sapper
    python benchmarks/peers/run.py --work ~/peers --calculon FOLDER --infersim FOLDER
    python benchmarks/peers/run.py --sapper-only                                    # Sapper anew, beside the peers' kept answers

The first run makes an environment for each peer below --work (about 2 GB) and takes the better part of an hour, most of it
aiconfigurator; an interrupted run goes on where it stopped. Peers that are not asked keep the answers of the last run.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import hashlib
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asking import Answers, Question, ask
from environments import PEERS, Peer
from keeping import Heard, keep, keep_said, kept_answers, kept_said
from own_points import calculon_own_points
from questions import BEST, CONSTANTS, QUESTIONS
from row_sets import FLAGGED, ROW_SETS, SHIPPED, Row
from sapper_side import Said, figures, sapper_on
from scoring import by_chip, errors_of, reasons, summary, views
from table import refresh

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
SCHEMA = 1
SPLITS = ("chip", "source")
"""What Sapper's prior must not have seen of a row; beside the peers stands the first."""


def main() -> int:
    """Ask, keep the answers, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="folder of the peers' environments and of answers under way")
    parser.add_argument("--peers", nargs="+", choices=sorted(PEERS), help="only these; default: all that are at hand")
    parser.add_argument("--calculon", type=Path, help="a checkout of calculon-ai/calculon")
    parser.add_argument("--infersim", type=Path, help="a checkout of alibaba/InferSim")
    parser.add_argument("--rows", type=Path, default=SHIPPED, help="folder of the measurement files; default: those that ship")
    parser.add_argument("--sets", nargs="+", choices=sorted(ROW_SETS), default=sorted(ROW_SETS), help="what Sapper is asked; default: all")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--sapper-only", action="store_true", help="ask no peer: their kept answers count")
    who.add_argument("--peers-only", action="store_true", help="do not ask Sapper: its kept answers count")
    given = parser.parse_args()
    if given.work is None and not given.sapper_only:
        parser.error("--work is needed to ask peers")
    rows = {name: row_set.rows(given.rows) for name, row_set in ROW_SETS.items()}
    wanted = {question.key for question in QUESTIONS}
    heard = {key: one for key, one in kept_answers().items() if key in wanted}
    own_points = json.loads(RESULTS.read_text("utf-8"))["own_points"] if RESULTS.exists() else []
    if not given.sapper_only:
        checkouts = {"calculon": given.calculon, "infersim": given.infersim}
        for question in QUESTIONS:
            peer = PEERS[question.peer]
            chosen = given.peers is None or question.peer in given.peers
            if chosen and (peer.package or checkouts[question.peer]):
                print(f"asking {peer.name}: {question.row_set}, {question.variant}", file=sys.stderr)
                heard[question.key] = hear(peer, question, rows[question.row_set], work=given.work, checkout=checkouts.get(question.peer))
        keep(heard.values())
        if given.calculon is not None:
            own_points = calculon_own_points(PEERS["calculon"], given.calculon, work=given.work)
    if not given.peers_only:
        together = [row for name in given.sets for row in rows[name]]
        kept = kept_said()
        said = {split: sapper_on(together, leave_out=split) for split in SPLITS}
        keep_said({split: kept[split].without(together).with_(one) if split in kept else one for split, one in said.items()})
    found = results(heard.values(), rows, kept_said()) | {"own_points": own_points}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    for page in refresh():
        print(f"wrote {page}", file=sys.stderr)
    return 0


def hear(peer: Peer, question: Question, rows: Sequence[Row], *, work: Path, checkout: Path | None) -> Heard:
    """Put a question; for the best constant, with each efficiency in turn, of which the best is kept."""
    options = dict(question.options) | ({"checkout": str(checkout.resolve())} if checkout else {})
    today = datetime.date.today().isoformat()
    if question.variant != BEST:
        said = ask(peer, dataclasses.replace(question, options=options), rows, work=work)
        return Heard(question=question, date=today, start_cpu_s=said.start_cpu_s, by_id=said.by_id)
    tried: dict[float, tuple[Question, Answers]] = {}
    for constant in CONSTANTS:
        chosen = {"flops_efficiency": constant}
        one = dataclasses.replace(question, variant=f"{BEST}-{constant}", options=options | chosen)
        said = ask(peer, one, rows, work=work)
        errors = errors_of(rows, "step_time_s", said.by_id)
        mean = statistics.fmean(abs(error) for error in errors.values())
        tried[mean] = dataclasses.replace(question, conditions=f"{constant}: {question.conditions}", options=chosen), said
    best, said = tried[min(tried)]
    return Heard(question=best, date=today, start_cpu_s=said.start_cpu_s, by_id=said.by_id)


def results(heard: Iterable[Heard], rows: Mapping[str, Sequence[Row]], said: Mapping[str, Said]) -> dict[str, Any]:
    """Everything that results.json holds but the peers' own points."""
    return {
        "schema": SCHEMA,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "row_sets": {name: described(name, rows[name]) for name in ROW_SETS},
        "figures": [
            {"view": view, **figure}
            for one in heard
            for view, seen in views(rows[one.question.row_set])
            for figure in peer_figures(one, seen, said[SPLITS[0]])
        ],
        "sapper": [
            {"view": view, "row_set": name, "leave_out": split, "version": said[split].version, **figure}
            for name in ROW_SETS
            for view, seen in views(rows[name])
            for split in SPLITS
            for figure in figures(seen, ROW_SETS[name].quantities, said[split])
        ],
    }


def machine() -> dict[str, object]:
    """What the times depend on."""
    return {
        "cores": os.cpu_count(), "python": platform.python_version(), "system": platform.system(),
        "load_1min": round(os.getloadavg()[0], 1), "note": "CPU seconds of one process, one thread; the machine was shared",
    }


def described(name: str, rows: Sequence[Row]) -> dict[str, object]:
    """A set of rows, so that a reader can tell whether his is the same."""
    ids = hashlib.sha256("\n".join(sorted(row["id"] for row in rows)).encode()).hexdigest()
    row_set = ROW_SETS[name]
    return {
        "what": row_set.what, "file": row_set.file, "rows": len(rows), "flagged": sum(row["id"] in FLAGGED for row in rows),
        "quantities": row_set.quantities, "ids_sha256": ids,
    }


def peer_figures(heard: Heard, rows: Sequence[Row], said: Said) -> list[dict[str, object]]:
    """A peer's figures for each quantity, and beside them both sides' figures on the rows that both answered."""
    question, peer = heard.question, PEERS[heard.question.peer]
    answers = [heard.by_id[row["id"]] for row in rows]
    answered = [answer["cpu_s"] for answer in answers if "reason" not in answer]
    found = []
    for quantity in ROW_SETS[question.row_set].quantities:
        errors = errors_of(rows, quantity, heard.by_id)
        ours = said.errors.get(quantity, {})
        both = [row["id"] for row in rows if row["id"] in errors and row["id"] in ours]
        found.append(
            {
                "peer": peer.name, "package": peer.package, "version": peer.version, "licence": peer.licence, "url": peer.url,
                "date": heard.date, "row_set": question.row_set, "variant": question.variant, "quantity": quantity,
                "conditions": question.conditions,
                "options": {name: value for name, value in question.options.items() if name != "checkout"},
                **summary(len(rows), errors.values()),
                "both_answered": len(both),
                "peer_on_both": summary(len(both), [errors[row_id] for row_id in both]),
                "sapper_on_both": summary(len(both), [ours[row_id] for row_id in both]),
                "cpu_s_per_answer": statistics.median(answered) if answered else None,
                "start_cpu_s": heard.start_cpu_s,
                "not_answered": reasons(answers),
                "by_chip": by_chip(rows, errors),
            }
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
