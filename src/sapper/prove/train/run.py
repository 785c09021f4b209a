"""prove train: the reference's runs and the device's, each in a process of its own, and what they say together."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

import sapper
from sapper import files
from sapper.backends import Backend
from sapper.errors import BadFile, SapperError
from sapper.prove.isolate import Answer, Job, Pool
from sapper.prove.journal import Journal
from sapper.prove.ready import ready
from sapper.prove.train.plan import Experiment, Settings, digest_of
from sapper.prove.train.result import FORMAT, VERSION, Note, TrainProof
from sapper.prove.train.verdict import Judged, Run, judged, read
from sapper.prove.verdict import Blame, Outcome

RESULT = "train.json"
FOLDER = "train"
"""In the run's folder: start, batches, and a journal for each run."""
_RUN = "sapper.prove.train.worker:run"

Told = Callable[..., None]
"""Progress: a message code and its values."""


def prove_train(
    settings: Settings, out: Path, *, told: Told, workers: int = 1, limit_s: float = 600.0, memory_bytes: int | None = None
) -> TrainProof:  # fmt: skip
    """Train on the reference and on the device, and write ``train.json`` into ``out``.

    Killed at any time, the same call goes on from the last state of each run.

    Args:
        settings: What is asked.
        out: The run's folder.
        told: Told of progress.
        workers: Runs of the reference at a time.
        limit_s: Wall time that one step may take, compilation included.
        memory_bytes: Resident memory that the device's process may have; None: no limit.

    Raises:
        SapperError: The program, the loader, the backend or the folder cannot be used, or the reference itself cannot train.
    """
    backend = ready(settings.on)
    experiment = Experiment(out / FOLDER, settings)
    experiment.check()
    with Pool("sapper.prove.train.worker:on_backend", {"on": settings.on}, limit_s=limit_s, memory_bytes=memory_bytes) as pool:
        versions: dict[str, str] = pool.start()["versions"]
        header = _header(experiment, versions)
        with Journal(out / FOLDER / "runs.jsonl", header) as journal:
            experiment.write()
            _reference(experiment, journal, told=told, workers=workers, limit_s=limit_s)
            told("prove.train.progress.device", backend=settings.on, steps=settings.steps)
            answer = _device(experiment, journal, pool)
            proof = _proof(experiment, backend, journal.header, answer)
    files.write_atomic(out / RESULT, msgspec.json.format(msgspec.json.encode(proof), indent=1) + b"\n")
    return proof


def _header(experiment: Experiment, versions: dict[str, str]) -> dict[str, Any]:
    """What must be the same for a run to go on."""
    settings = experiment.settings
    loader = None if settings.data is None else digest_of(settings.data.rpartition(":")[0] or settings.data)
    return {
        "sapper": sapper.__version__, "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": msgspec.to_builtins(settings), "digest": experiment.opened.digest, "loader": loader, "versions": versions,
    }  # fmt: skip


def _job(experiment: Experiment, role: str, number: int = 0) -> Job:
    payload = {
        "folder": str(experiment.folder.resolve()), "settings": msgspec.to_builtins(experiment.settings), "role": role, "number": number,
    }  # fmt: skip
    return Job(id=f"{role}-{number}" if role == "member" else role, function=_RUN, payload=payload)


def _reference(experiment: Experiment, journal: Journal, *, told: Told, workers: int, limit_s: float) -> None:
    """The truth first, since the others are held against it, then the peer and the perturbed runs."""
    members = experiment.settings.members
    others = [_job(experiment, "peer"), *(_job(experiment, "member", at) for at in range(members))]
    with Pool("sapper.prove.train.worker:on_cpu", {"threads": 1}, workers=workers, limit_s=limit_s) as pool:
        told("prove.train.progress.truth", steps=experiment.settings.steps)
        for _ in _done(pool, [_job(experiment, "truth")], journal):
            pass
        for count, _ in enumerate(_done(pool, others, journal)):
            told("prove.train.progress.member", count=count + 1, of=members + 1)


def _done(pool: Pool, jobs: Iterable[Job], journal: Journal) -> Iterator[str]:
    """Runs of the reference that were not done before, written down as they end."""
    for answer in pool.run([job for job in jobs if job.id not in journal.done]):
        _check_room(answer, journal)
        if answer.status != "done":
            raise SapperError("SP-TRAIN-006", where=answer.id, status=answer.status, problem=answer.said or "-")
        journal.add(answer.id, {"status": answer.status})
        yield answer.id


def _check_room(answer: Answer, journal: Journal) -> None:
    """A full disk ends no run of a device: the next call goes on.

    Raises:
        BadFile: It is full.
    """
    problem = answer.no_room()
    if problem is not None:
        raise BadFile("SP-FILE-015", where=str(journal.path.parent), problem=problem)


def _device(experiment: Experiment, journal: Journal, pool: Pool) -> Answer:
    if "device" in journal.done:
        return msgspec.convert(journal.done["device"]["answer"], Answer)
    (answer,) = pool.run([_job(experiment, "device")])
    _check_room(answer, journal)
    answer = msgspec.structs.replace(answer, parts=(), value=None)
    journal.add("device", {"answer": msgspec.to_builtins(answer)})
    return answer


def _proof(experiment: Experiment, backend: Backend, header: dict[str, Any], answer: Answer) -> TrainProof:
    settings, folder = experiment.settings, experiment.folder
    truth, peer, device = (read(folder / f"{name}.jsonl") for name in ("truth", "peer", "device"))
    members = [one for at in range(settings.members) if (one := read(folder / f"member-{at}.jsonl")) is not None]
    assert truth is not None and peer is not None and len(members) == settings.members
    found = None if device is None else judged(device, truth=truth, peer=peer, members=members, dtype=settings.dtype)
    where: dict[str, Any] = {} if device is None else device.first["where"]
    outcome = _outcome(answer, found, where)
    names = truth.first["names"]
    return TrainProof(
        format=FORMAT, version=VERSION, sapper=header["sapper"], date=header["date"], target=settings.target,
        digest=experiment.opened.digest, backend=settings.on, versions=header["versions"], where=where.get("device"),
        path="eager" if backend.kind == "device" else "graph", seed=settings.seed, dtype=settings.dtype, optimizer=settings.optimizer,
        lr=settings.step_size, data=settings.data, asked=settings.steps, members=settings.members, outcome=outcome,
        blame=_blame(outcome, found), said=None if answer.status == "done" else answer.said,
        first=found.departures[0] if found and found.departures else None, departures=found.departures if found else (),
        rows=found.rows if found else (), factors=found.factors if found else {}, peer_ratio=found.peer_ratio if found else 0.0,
        notes=tuple(_notes(experiment, truth, device, found)),
        covered={kind: sum(name.split(" ")[0] == kind for name in names) for kind in ("output", "loss", "buffer", "grad", "update")},
        wall_s=device.wall_s if device else 0.0, reference_wall_s=peer.wall_s,
    )  # fmt: skip


def _outcome(answer: Answer, found: Judged | None, where: dict[str, Any]) -> Outcome:
    """How the run ended comes first; then what it computed."""
    if answer.status in ("crash", "hang", "memory"):
        return answer.status
    if answer.status == "raised":
        return "unsupported" if (answer.said or "").startswith("Unsupported") else "crash"
    if found is None or not found.rows:
        return "void"
    if found.departures:
        return "nan" if found.departures[0].manner == "nan" else "wrong"
    if where.get("fallbacks"):
        return "fallback"
    return "ok" if where.get("executed") else "void"


def _blame(outcome: Outcome, found: Judged | None) -> Blame | None:
    if found is not None and found.ends == 0:
        return "model"
    return "unknown" if outcome not in ("ok", "void") else None


def _notes(experiment: Experiment, truth: Run, device: Run | None, found: Judged | None) -> Iterator[Note]:
    """What to know before the verdict is believed."""
    settings, off = experiment.settings, experiment.opened.dropout_off
    if off or truth.first["silenced"]:
        yield Note(code="prove.train.note.dropout", values={"modules": off, "calls": truth.first["silenced"]})
    if truth.first["fed"]:
        yield Note(code="prove.train.note.fed", values={"draws": truth.first["fed"]})
    batches = len(experiment.batches())
    yield Note(code="prove.train.note.drawn" if settings.data is None else "prove.train.note.loaded", values={"batches": batches})
    if found is not None and found.ends is not None:
        yield Note(code="prove.train.note.diverges", values={"step": found.ends})
    elif truth.loss[-1] > truth.loss[0]:
        yield Note(code="prove.train.note.rises", values={"first": float(truth.loss[0]), "last": float(truth.loss[-1])})
    if found is not None and found.peer_ratio > 1:
        yield Note(code="prove.train.note.peer", values={"ratio": found.peer_ratio})
    if device is not None and len(device) < settings.steps:
        yield Note(code="prove.train.note.short", values={"steps": len(device), "asked": settings.steps})
    if device is not None and not device.first["where"].get("executed"):
        yield Note(code="prove.train.note.no_evidence")
