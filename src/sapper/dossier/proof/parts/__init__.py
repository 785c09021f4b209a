"""What each part of a folder of proofs adds to the report: its checks, findings and gaps."""

from __future__ import annotations

from sapper.dossier.proof.parts import change, doctor, model, ops, speed, train
from sapper.dossier.proof.summary import Section
from sapper.prove.results import Results


def sections_of(results: Results) -> list[Section]:
    """Sections of the parts that there are, in the order of the road."""
    found = []
    if results.doctor is not None:
        found.append(doctor.section(results.doctor))
    if results.ops is not None:
        found.append(ops.section(results.ops))
    if results.model is not None:
        found.append(model.section(results.model))
    if results.train is not None:
        found.append(train.section(results.train))
    if results.change is not None:
        found.append(change.section(results.change))
    if results.speed is not None:
        found.append(speed.section(results.speed))
    return found
