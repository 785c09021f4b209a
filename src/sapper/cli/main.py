"""The command ``sapper``: finds the verbs, imports only the one that is called, and answers for every error.

A verb is a file of this folder that exports ``command``. Help texts that are message codes are put into the user's
language when they are shown; ``--lang`` and ``--debug`` are given to every command, wherever they stand on the line.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from sapper import __version__, messages
from sapper.cli import _help
from sapper.errors import SapperError

_NOT_VERBS = {"main", "output"}
_ORDER = ("chips", "models", "capture", "clusters", "predict", "assess", "validate", "port", "prove", "mix", "probe", "evidence", "explain")
"""The road that a newcomer walks; other verbs follow by name."""

AUTOLOAD = os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD")
"""As the user has set it, before we set it for ourselves."""
_INTERRUPTED = 130
_PIPE_CLOSED = 141
"""128 + the signal's number, as shells count."""


def verbs() -> list[str]:
    """Names of the verbs that are there: files of this folder, ``_`` read as ``-``."""
    names = (name[:-3] for name in os.listdir(os.path.dirname(__file__)) if name.endswith(".py"))
    return sorted(name.replace("_", "-") for name in names if name not in _NOT_VERBS and not name.startswith("_"))


class Sapper(click.Group):
    """The group of verbs."""

    context_class = _help.Context

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, those of the daily road first."""
        return sorted(verbs(), key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, imported now."""
        if cmd_name not in verbs():
            return None
        import importlib

        command = importlib.import_module(f"sapper.cli.{cmd_name.replace('-', '_')}").command
        assert isinstance(command, click.Command)
        _help.localise(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Verbs with their short help from the catalogue: nothing is imported for it."""
        rows = []
        for name in self.list_commands(ctx):
            code = f"cli.help.{name}"
            rows.append((name, messages.text(code) if messages.known(code) else ""))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the line ``args`` and leave with 0 (fine), 1 (findings), 2 (could not), 130 (Ctrl-C) or 141 (pipe closed)."""
        line = list(sys.argv[1:] if args is None else args)
        if not standalone_mode or "_SAPPER_COMPLETE" in os.environ:
            return super().main(args=line, prog_name="sapper", complete_var=complete_var, standalone_mode=standalone_mode, **extra)
        # A vendor's plug-in without its driver breaks `import torch`; the backends import the one that is asked for.
        os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
        _survive_any_character()
        chosen, debug = _help.scan(line)
        with messages.using(chosen or messages.language()):
            _help.localise(self)
            sys.exit(self._run(line, debug=debug, **extra))

    def _run(self, line: list[str], *, debug: bool, **extra: Any) -> int:
        try:
            with self.make_context("sapper", line, **extra) as context:
                result = self.invoke(context)
            sys.stdout.flush()
            return result if isinstance(result, int) and not isinstance(result, bool) else 0
        except click.exceptions.Exit as leave:
            return int(leave.exit_code)
        except (KeyboardInterrupt, click.Abort):
            _say(messages.text("cli.interrupted"))
            return _INTERRUPTED
        except OSError as error:
            return self._refused(error, debug)
        except Exception as error:
            if debug and not isinstance(error, click.ClickException):
                import traceback

                traceback.print_exc()
            return _help.report(error)

    def _refused(self, error: OSError, debug: bool) -> int:
        if error.errno == errno.EPIPE:
            # What is still in the buffer has no reader; without this Python complains of it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _PIPE_CLOSED
        if debug:
            import traceback

            traceback.print_exc()
        place = error.filename if isinstance(error.filename, str) else None
        return _help.report(SapperError("SP-CLI-002", where=place, problem=error.strerror or str(error)))


def _say(text: str) -> None:
    click.echo(text, err=True)


def _survive_any_character() -> None:
    """Write what the terminal's encoding lacks as an escape, and do not fail on it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _print_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        click.echo(f"sapper {__version__}")
        context.exit()


cli = Sapper(
    name="sapper",
    help="cli.help",
    no_args_is_help=True,
    params=[
        click.Option(
            ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="cli.option.version"
        )
    ],
)


def main() -> NoReturn:
    """Entry point of the console script."""
    if "--debug" not in sys.argv and not sys.warnoptions:
        import warnings

        warnings.simplefilter("ignore")  # they speak to programmers; what a user must know is a message of ours
    cli.main()
    raise AssertionError("unreachable: main leaves by SystemExit")
