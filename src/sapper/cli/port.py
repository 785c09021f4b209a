"""``sapper port``: what ties code to CUDA, what becomes of it on each target, and the rewrite.

Each subcommand is a file ``_port_NAME.py`` of this folder that exports ``command``; none imports PyTorch before it runs.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import click


@click.group("port", help="port.help", no_args_is_help=True)
def command() -> None:
    """The group of porting."""


for _path in sorted(Path(__file__).parent.glob("_port_*.py")):
    command.add_command(importlib.import_module(f"sapper.cli.{_path.stem}").command)
