"""``sapper port try``: the user's own program on an accelerator that does not exist."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sapper.cli.output import emit_json, talk

if TYPE_CHECKING:
    from sapper.port.dryrun.session import Session, Stack
    from sapper.port.finding import Finding

_RUNNABLE = ("python", "notebook")
"""Languages of which a run executes lines."""


@click.command("try", help="port.try.help", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- PROGRAM ...")
@click.option("--as", "target", default="ascend", show_default=True, metavar="TARGET", help="port.try.option.as")
@click.option("--shim/--no-shim", default=False, help="port.try.option.shim")
@click.option("--keep-going/--strict", default=True, help="port.try.option.strict")
@click.option("--root", type=click.Path(file_okay=False), default=".", show_default=True, help="port.try.option.root")
@click.option("--personality", default=None, metavar="NAME|FILE.toml", help="port.try.option.personality")
@click.option("--scan/--no-scan", "scans", default=True, help="port.try.option.scan")
@click.option("--timeout", "limit_s", type=click.FloatRange(min=0), default=1800, show_default=True, help="port.try.option.timeout")
@click.option("--json", "as_json", is_flag=True, help="port.try.option.json")
@click.option("--keep", type=click.Path(), default=None, metavar="DIR", help="port.try.option.keep")
def command(
    command: tuple[str, ...], target: str, shim: bool, keep_going: bool, root: str, personality: str | None, scans: bool,
    limit_s: float, as_json: bool, keep: str | None,
) -> int:  # fmt: skip
    """Exit code 0: no touch; 1: touches; 2: nothing can be said."""
    import msgspec

    from sapper.port.dryrun import result, run, stacks

    stack = stacks.stack_for(target, personality=personality)
    folder = _folder(root)
    findings = _findings(folder) if scans else None
    with tempfile.TemporaryDirectory(prefix="sapper-try-") as scratch:
        session = _session(stack, folder=Path(keep or scratch), root=folder, shim=shim, strict=not keep_going, findings=findings)
        record = run.run(command, session, quiet=as_json, limit_s=limit_s or None)
    trial = result.judged(record, session, command=command, findings=findings, limit_s=limit_s or None)
    if as_json:
        emit_json({"real_chip": False, "chip_share": trial.chip_share, **msgspec.to_builtins(trial)})
    else:
        from sapper.cli import _try_show

        _try_show.show(trial)
    return result.exit_code(trial)


def _folder(root: str) -> str:
    """The project's folder as the processes will see it.

    Raises:
        BadFile: It is not there.
    """
    from sapper.errors import BadFile

    path = os.path.realpath(root)
    if not os.path.isdir(path):
        raise BadFile("SP-TRY-004", where=root)
    return path


def _findings(folder: str) -> list[Finding]:
    """What the scan finds in files of which a run executes lines."""
    from sapper.port.languages import language_of
    from sapper.port.scan import scan

    found = scan(folder)
    talk("port.try.scanned", files=f"{found.files:,}", findings=f"{len(found.findings):,}")
    return [one for one in found.findings if language_of(one.place.path) in _RUNNABLE]


def _session(stack: Stack, *, folder: Path, root: str, shim: bool, strict: bool, findings: list[Finding] | None) -> Session:
    from sapper.cli.main import AUTOLOAD
    from sapper.port.dryrun import stacks
    from sapper.port.dryrun.session import Session

    folder.mkdir(parents=True, exist_ok=True)
    watched: dict[str, set[int]] = {}
    exempt: dict[str, set[int]] = {}
    for one in findings or ():
        lines = range(one.place.line, one.place.end_line + 1)
        watched.setdefault(one.place.path, set()).update(lines)
        if one.standing != "ties":
            exempt.setdefault(one.place.path, set()).update(lines)
    for one in findings or ():
        if one.standing == "ties" and one.place.path in exempt:
            exempt[one.place.path] -= set(range(one.place.line, one.place.end_line + 1))
    return Session(
        folder=str(folder.resolve()), root=root, stack=stack, shim=shim, strict=strict, autoload=AUTOLOAD != "0",
        watched={path: tuple(sorted(lines)) for path, lines in watched.items()},
        packages=stacks.packages(), exempt={path: tuple(sorted(lines)) for path, lines in exempt.items() if lines},
    )  # fmt: skip
