"""``--profile GROUP=FILE``: measured times in the place of predicted ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sapper.errors import BadValue

if TYPE_CHECKING:
    from sapper.clusters import Cluster
    from sapper.mix.problem import Problem
    from sapper.mix.profiles import Profile
    from sapper.predict.job import TrainJob


def read(flags: Sequence[str], *, format: str, model: str) -> dict[str, Profile]:
    """Group -> profile, from ``GROUP=FILE`` or ``GROUP=FILE:DEVICE`` where a file holds several.

    Raises:
        BadValue: A flag that cannot be read, or a device that the file does not have.
        BadFile: What the reader refuses.
    """
    from sapper.mix.profiles import read_profiles

    found: dict[str, Profile] = {}
    for flag in flags:
        group, equals, rest = flag.partition("=")
        if not equals or not group or not rest or group in found:
            raise BadValue("SP-MIX-014", where="--profile", text=flag)
        path, device = _path(rest)
        held = read_profiles(path, format=format, model=model)
        if device is None and len(held) == 1:
            device = next(iter(held))
        if device not in held:
            raise BadValue("SP-MIX-015", where=path, device=device or "-", known=", ".join(f"`{name}`" for name in held))
        found[group] = held[device]
    return found


def _path(text: str) -> tuple[str, str | None]:
    """The file, and the device where one is named behind a colon."""
    import os

    path, colon, device = text.rpartition(":")
    return (path, device) if colon and path and not os.path.exists(text) else (text, None)


def problem(profiles: dict[str, Profile], job: TrainJob, cluster: Cluster) -> Problem:
    """The planner's problem by measured times.

    Raises:
        BadValue: A group without a profile, or a profile of another model, length, precision or optimizer than the job's.
        MissingFact: Nobody states the memory of a chip.
    """
    from dataclasses import replace

    from sapper.errors import MissingFact
    from sapper.mix.costs import network_of
    from sapper.mix.identity import identity_of, workload_digest
    from sapper.mix.profiles import problem_of
    from sapper.mix.profiles.problem import Fleet

    names = [group.name for group in cluster.groups]
    for name in (*(one for one in profiles if one not in names), *(one for one in names if one not in profiles)):
        raise BadValue("SP-MIX-016", where="--profile", group=name, known=", ".join(f"`{one}`" for one in names))
    fleets = []
    for group in cluster.groups:
        profile = profiles[group.name]
        _same(profile, "layers", len(profile.layers) - 2, sum(one.count for one in job.workload.blocks if one.role == "layer"))
        _same(profile, "seq_len", profile.seq_len, job.workload.seq_len)
        if profile.model_digest:
            _same(profile, "model_digest", profile.model_digest, workload_digest(job.workload))
        memory = profile.capacity_bytes or (group.chip.memory.capacity_bytes and group.chip.memory.capacity_bytes.number)
        if not memory:
            raise MissingFact("SP-MIX-017", where=group.name, chip=group.chip.id)
        fleets.append(
            Fleet(
                name=group.name, profile=profile, chips=group.chips, chips_per_node=group.chips_per_node, capacity_bytes=float(memory)
            )
        )  # fmt: skip
    first = fleets[0].profile
    identity = replace(identity_of(job, cluster), precision=first.precision, optimizer=first.optimizer)
    return replace(problem_of(fleets, network_of(cluster), global_batch=job.global_batch), identity=identity)


def _same(profile: Profile, field: str, found: Any, asked: Any) -> None:
    if found != asked:
        raise BadValue("SP-MIX-018", where="--profile", device=profile.device, field=field, found=found, asked=asked)
