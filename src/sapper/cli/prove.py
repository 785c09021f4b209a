"""``sapper prove``: is what a device computes right, stable and fast; and if not, whose fault is it?

Each subcommand is a file ``_prove_NAME.py`` of this folder that exports ``command``; none imports PyTorch before it runs.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import click


@click.group("prove", help="prove.help", no_args_is_help=True)
def command() -> None:
    """The group of proofs."""


for _path in sorted(Path(__file__).parent.glob("_prove_*.py")):
    command.add_command(importlib.import_module(f"sapper.cli.{_path.stem}").command)
