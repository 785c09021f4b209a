"""What a dry run has found: touches of all processes, beside the findings of the scan, and what ran on the chip."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import msgspec

from sapper.backends.papertiger.personality import load as load_personality
from sapper.port import target as targets
from sapper.port.dryrun.run import Record
from sapper.port.dryrun.session import Note, Outcome, Session, Touch, Unit
from sapper.port.finding import Finding, Place
from sapper.port.verdicts import verdict

Verdict = Literal["clean", "touched", "void", "unfinished"]
"""``clean``: no touch, and it ran on the chip. ``touched``: see the touches. ``void``: nothing ran on the chip, so that nothing
is proved. ``unfinished``: no touch, but the program ended with an error."""
Coverage = Literal["confirmed", "reached", "unreached", "unlooked"]
"""Of a finding: ``confirmed`` by a touch; ``reached``: the line ran, and touched nothing; ``unreached``: it did not run;
``unlooked``: no touch, and lines were not looked at."""

ORDER: tuple[Outcome, ...] = ("silent", "fails", "lacks", "ignored", "unknown", "carries", "shim", "works")
"""The silent ones first: nobody is told of them otherwise."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A touch, summed over processes, with the findings of the scan on its line."""

    touch: Touch
    processes: int
    findings: tuple[str, ...] = ()
    """Codes."""
    beyond_scan: bool = False
    """The line touches CUDA by itself, and the scan has no finding there: a fault of the scan."""
    carried: bool = False
    """A CUDA device that another line chose arrives here: this line changes with that one."""
    equivalent: str | None = None
    """Of an import: what takes the package's place."""


class Covered(msgspec.Struct, frozen=True, kw_only=True):
    """A finding of the scan, and what the run made of it."""

    finding: Finding
    coverage: Coverage


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a dry run, as ``--json`` prints it. No real chip was there."""

    target: str
    device: str
    personality: str
    personality_source: str
    """Where what the emulated chip lacks was read; empty where it lacks nothing."""
    shim: bool
    strict: bool
    command: tuple[str, ...]
    root: str
    exit_code: int
    """Of the program; negative for the signal that ended it."""
    limit_s: float | None
    """Seconds that it was given."""
    overran: bool
    """Whether it was ended because they were over."""
    verdict: Verdict
    launched_on_chip: int
    computed_on_host: int
    on_chip: dict[str, int]
    on_host: dict[str, int]
    own: tuple[Seen, ...]
    """Touches of the user's own code, the silent ones first."""
    packages: tuple[Seen, ...]
    """Touches in packages that it uses."""
    scan: tuple[Covered, ...] | None
    """None where no scan was made."""
    processes: tuple[Unit, ...]
    unwatched: tuple[str, ...]
    unlooked: tuple[str, ...]
    remarks: tuple[Note, ...]
    """What the emulation did otherwise than a chip would: ``port.try.remark.KEY`` of the messages."""

    @property
    def chip_share(self) -> float | None:
        """Share of computations that ran on the chip; None where there were none."""
        total = self.launched_on_chip + self.computed_on_host
        return self.launched_on_chip / total if total else None

    @property
    def counting(self) -> tuple[Seen, ...]:
        """Touches that make the exit code 1: the user's own, and failures in packages.

        Not those that work as they are, not flags that only ask NVIDIA's libraries for speed, which hurt nowhere, and not what packages
        try to import: where they cannot do without it, the program ends with that error.
        """
        own = [one for one in self.own if one.touch.outcome != "works" and (one.touch.kind, one.touch.outcome) != ("flag", "ignored")]
        return (*own, *(one for one in self.packages if one.touch.outcome == "fails" and one.touch.kind != "import"))


def judged(
    record: Record, session: Session, *, command: Sequence[str], findings: Sequence[Finding] | None, limit_s: float | None = None
) -> Trial:
    """The result of a run.

    Args:
        record: What the processes wrote.
        session: What they were told.
        command: The program.
        findings: Of the scan of the root; None where none was made.
        limit_s: Seconds that it was given.
    """
    seen = [_settled(one, session, findings) for one in _merged(record.touches)]
    seen.sort(key=lambda one: (not one.beyond_scan, ORDER.index(one.touch.outcome), one.touch.path, one.touch.line, one.touch.symbol))
    own = tuple(one for one in seen if not one.touch.owner)
    packages = tuple(one for one in seen if one.touch.owner)
    units = tuple(record.units.values())
    on_chip, on_host = (_summed(units, name) for name in ("on_chip", "on_host"))
    trial = Trial(
        target=session.stack.target, device=session.stack.device, personality=session.stack.personality,
        personality_source=load_personality(session.stack.personality).source, shim=session.shim,
        strict=session.strict, command=tuple(command), root=session.root, exit_code=record.exit_code,
        limit_s=limit_s, overran=record.overran, verdict="clean",
        launched_on_chip=sum(on_chip.values()), computed_on_host=sum(on_host.values()), on_chip=on_chip, on_host=on_host,
        own=own, packages=packages, scan=None if findings is None else _coverage(findings, own, record), processes=units,
        unwatched=tuple(record.unwatched), unlooked=tuple(sorted(record.unlooked)), remarks=tuple(record.remarks),
    )  # fmt: skip
    return msgspec.structs.replace(trial, verdict=_verdict(trial))


def _verdict(trial: Trial) -> Verdict:
    if trial.counting and trial.launched_on_chip:
        return "touched"
    if not trial.launched_on_chip:
        return "void"
    return "unfinished" if trial.exit_code else "clean"


def exit_code(trial: Trial) -> int:
    """0: ran on the chip without a touch. 1: touches. 2: nothing can be said."""
    if trial.counting:
        return 1
    return 0 if trial.verdict == "clean" and not trial.unwatched else 2


def _summed(units: Sequence[Unit], name: str) -> dict[str, int]:
    total: Counter[str] = Counter()
    for unit in units:
        total.update(getattr(unit, name))
    return dict(total.most_common())


def _merged(touches: Sequence[Touch]) -> list[tuple[Touch, int]]:
    """Touches of all processes by place, each with the number of processes; a name that is read to be called counts once."""
    groups: dict[tuple[str, str, str, int], list[Touch]] = {}
    for touch in touches:
        groups.setdefault((touch.symbol, touch.outcome, touch.path, touch.line), []).append(touch)
    told = {
        (touch.symbol, touch.path, line)
        for touch in touches if touch.outcome != "carries"
        for line in range(touch.line, touch.end_line + 1)
    }  # fmt: skip
    merged = []
    for (symbol, outcome, path, line), group in groups.items():
        if outcome == "carries" and (symbol, path, line) in told:
            continue
        touch = msgspec.structs.replace(group[0], count=sum(one.count for one in group))
        merged.append((touch, len({one.process for one in group})))
    return merged


def _settled(merged: tuple[Touch, int], session: Session, findings: Sequence[Finding] | None) -> Seen:
    touch, processes = merged
    if touch.outcome == "carries" and session.stack.as_cuda:
        touch = msgspec.structs.replace(touch, outcome="works")  # a name that is read there is good for use
    equivalent = None
    if touch.kind == "import":
        touch, equivalent = _import(touch, session)
    near = tuple(dict.fromkeys(one.code for one in findings or () if _on_line(one, touch)))
    carried = not touch.literal and touch.kind in ("device", "collective", "checkpoint", "autocast")
    scanned = findings is not None and touch.kind != "chip" and not touch.owner and not touch.path.startswith(("<", "/"))
    beyond = scanned and not carried and not near and touch.outcome != "works"
    return Seen(touch=touch, processes=processes, findings=near, carried=carried, equivalent=equivalent, beyond_scan=beyond)


def _import(touch: Touch, session: Session) -> tuple[Touch, str | None]:
    """What becomes of a package, by the verdict tables."""
    finding = Finding(code="", place=Place("", 1, 0, 1, 0), symbol=touch.symbol, excerpt="")
    cell = verdict(finding, targets.find(session.stack.target))
    outcome: Outcome = "unknown"
    if cell.status in ("works", "shim"):
        outcome = "works"
    elif cell.status != "unknown":
        outcome = "fails"
    return msgspec.structs.replace(touch, outcome=outcome), cell.equivalent


def _on_line(finding: Finding, touch: Touch) -> bool:
    place = finding.place
    return place.path == touch.path and place.line <= touch.end_line and touch.line <= place.end_line


def _coverage(findings: Sequence[Finding], own: Sequence[Seen], record: Record) -> tuple[Covered, ...]:
    def of(finding: Finding) -> Coverage:
        if any(_on_line(finding, one.touch) and one.touch.kind != "chip" for one in own):
            return "confirmed"
        if any((finding.place.path, line) in record.reached for line in range(finding.place.line, finding.place.end_line + 1)):
            return "reached"
        return "unlooked" if record.unlooked else "unreached"

    return tuple(Covered(finding=one, coverage=of(one)) for one in findings)
