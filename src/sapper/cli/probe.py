"""``sapper probe``: write the file that measures a device where Sapper cannot be installed."""

from __future__ import annotations

import click

from sapper.cli.output import talk


@click.command("probe", help="cli.help.probe.long")
@click.option("--emit", required=True, type=click.Path(), metavar="FILE", help="probe.option.emit")
def command(emit: str) -> None:
    """Write the file."""
    import os
    import sys

    from sapper.files import write_atomic
    from sapper.probe import probe_source

    source = probe_source()
    if emit == "-":
        sys.stdout.flush()
        sys.stdout.buffer.write(source.encode("utf-8"))
        return
    write_atomic(emit, source)
    talk("probe.emitted", path=emit, name=os.path.basename(emit))
