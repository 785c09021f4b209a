"""``sapper mix``: one job over unlike chips, planned, proved small, and run.

Each subcommand is a file ``_mix_NAME.py`` of this folder that exports ``command``; none imports PyTorch before it runs.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import click


@click.group("mix", help="mix.help", no_args_is_help=True)
def command() -> None:
    """The group of what is done with unlike chips."""


for _path in sorted(Path(__file__).parent.glob("_mix_*.py")):
    command.add_command(importlib.import_module(f"sapper.cli.{_path.stem}").command)
