"""Help pages and usage errors in the user's language, and the two flags that every command has."""

from __future__ import annotations

import inspect
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import click

from sapper import messages
from sapper.errors import SapperError
from sapper.messages import Foreign

_CODE = re.compile(r"[a-z]+(?:\.[a-z0-9_-]+)+")
_HINTS = re.compile(r"(.*?)(?:\s*\[([^\[\]]*)\])?", re.DOTALL)
_NEVER_FIRST = "\uff0c\u3002\uff1b\uff1a\u3001\uff1f\uff01\uff09\u300b\u300d\u300f\u201d\u2019,.;:?!)]"
"""Closing marks, full-width and ASCII: no line begins with one."""


class Formatter(click.HelpFormatter):
    """Writes headings in the user's language and wraps by the width that characters have on a terminal."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        """The line ``Usage: ...``."""
        super().write_usage(prog, args, prefix or messages.text("cli.heading.usage"))

    def write_heading(self, heading: str) -> None:
        """A heading, whose English is click's."""
        code = f"cli.heading.{heading.lower().replace(' ', '-')}"
        self.write(f"{'':>{self.current_indent}}{messages.text(code) if messages.known(code) else heading + ':'}\n")

    def write_text(self, text: str) -> None:
        """A text of paragraphs."""
        indent = " " * self.current_indent
        self.write("".join(f"{indent}{line}".rstrip() + "\n" for line in wrap(text, self.width - self.current_indent)))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        """Terms on the left, what they mean on the right."""
        rows = list(rows)
        first = min(max((width_of(term) for term, _ in rows), default=0), col_max) + col_spacing
        for term, meaning in rows:
            lines = wrap(_translated(meaning), max(self.width - first - self.current_indent, 10)) or [""]
            if width_of(term) > first - col_spacing:
                self.write(f"{'':>{self.current_indent}}{term}\n")
                head = ""
            else:
                head = term
            for line in lines:
                self.write(f"{'':>{self.current_indent}}{head}{' ' * (first - width_of(head))}{line}".rstrip() + "\n")
                head = ""


class Context(click.Context):
    """A context whose help pages are written by :class:`Formatter`."""

    formatter_class = Formatter


def _translated(meaning: str) -> str:
    """A help text with click's own ``[default: ...; required]`` put into the user's language."""
    match = _HINTS.fullmatch(meaning)
    if match is None:
        return meaning
    text = str(Foreign("cli.click", match[1]))
    if match[2] is None:
        return text
    hints = "; ".join(str(Foreign("cli.click", hint)) for hint in match[2].split("; "))
    return f"{text}  [{hints}]"


def width_of(text: str) -> int:
    """Columns that ``text`` takes on a terminal: wide characters two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def printable(text: str) -> str:
    """``text`` with control characters as escapes, since names and values come from files that anybody may have written."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode("ascii") for c in text)


def wrap(text: str, width: int) -> list[str]:
    """``text`` in lines of at most ``width`` columns; an empty line stays, a paragraph that begins with ``\\b`` is kept as it is."""
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if lines:
            lines.append("")
        if paragraph.startswith("\b"):
            lines += paragraph.removeprefix("\b").strip("\n").split("\n")
        else:
            lines += _wrap_paragraph(paragraph, width)
    return lines if text else []


def _wrap_paragraph(paragraph: str, width: int) -> list[str]:
    lines, line = [], ""
    for piece in _pieces(" ".join(paragraph.split())):
        if line and width_of((line + piece).rstrip()) > width:
            lines.append(line.rstrip())
            line = piece.lstrip()
        else:
            line += piece
    return [*lines, line.rstrip()] if line.strip() else lines


def _pieces(text: str) -> list[str]:
    """``text`` cut where a line may end: after spaces, and around wide characters."""
    pieces: list[str] = []
    for part in re.findall(r"[^\s\u2e80-\u9fff\uff00-\uffef]+\s*|\s+|[\u2e80-\u9fff\uff00-\uffef]\s*", text):
        if pieces and part[0] in _NEVER_FIRST:
            pieces[-1] += part
        else:
            pieces.append(part)
    return pieces


def scan(line: Sequence[str]) -> tuple[str | None, bool]:
    """``--lang`` and ``--debug`` of a command line, read before anything is printed, wherever they stand."""
    chosen, debug = None, False
    for index, word in enumerate(line):
        if word == "--":
            break
        if word == "--debug":
            debug = True
        elif word == "--lang" and index + 1 < len(line):
            chosen = line[index + 1]
        elif word.startswith("--lang="):
            chosen = word.removeprefix("--lang=")
    return (chosen if chosen in messages.LANGUAGES else None), debug


def localise(command: click.Command, path: str = "") -> None:
    """Put the texts of ``command`` and what is under it into the language in force, and give it ``--lang`` and ``--debug``.

    A help text that is a message code is looked up; every other text stays. May be called again in another language.
    """
    command.context_class = Context
    have = {flag for parameter in command.params for flag in parameter.opts}
    command.params += [option for option in _common() if not have & set(option.opts)]
    _translate(command, "help")
    _translate(command, "epilog")
    first = (command.help or "").strip().split("\n\n")[0].replace("\n", " ")
    if command.short_help is None or hasattr(command, "first_of_help"):
        # click cuts its own at the first full stop and a blank space, which Chinese has not.
        vars(command).update(first_of_help=True, short_help=first or None)
    else:
        _translate(command, "short_help")
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            _translate(parameter, "help")
    for sub in getattr(command, "commands", {}).values():
        localise(sub)


def _common() -> list[click.Option]:
    language = click.Choice(messages.LANGUAGES)
    return [
        click.Option(["--lang"], type=language, expose_value=False, help="cli.option.lang"),
        click.Option(["--debug"], is_flag=True, expose_value=False, help="cli.option.debug"),
    ]


def _translate(thing: Any, attribute: str) -> None:
    kept = f"code_of_{attribute}"
    code = getattr(thing, kept, None) or getattr(thing, attribute)
    if isinstance(code, str) and _CODE.fullmatch(code) and messages.known(code):
        setattr(thing, kept, code)
        setattr(thing, attribute, messages.text(code))


def report(error: Exception) -> int:
    """Print ``error`` on stderr as a message with the next step; returns the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return error.exit_code
    ours = error if isinstance(error, SapperError) else _as_ours(error)
    click.echo(printable(f"{messages.text('cli.error')}{ours.render(messages.language())}"), err=True)
    return ours.exit_code


def _as_ours(error: Exception) -> SapperError:
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "sapper"
        near = getattr(error, "possibilities", None) or _near_commands(error)
        if near:
            problem = Foreign("cli.click", error.message)
            return SapperError("SP-CLI-004", problem=problem, near=", ".join(f"`{name}`" for name in near), command=command)
        return SapperError("SP-CLI-003", problem=_problem(error), command=command)
    if isinstance(error, click.ClickException):
        return SapperError("SP-CLI-003", problem=Foreign("cli.click", error.format_message()), command="sapper")
    return SapperError("SP-CLI-001", kind=type(error).__name__, text=str(error).split("\n")[0])


def _near_commands(error: click.UsageError) -> list[str]:
    """Verbs that resemble an unknown one; click looks among loaded commands only, and ours load late."""
    found = re.fullmatch(r"No such command '(.*)'\.", error.message)
    group = error.ctx.command if error.ctx else None
    if found is None or not isinstance(group, click.Group) or error.ctx is None:
        return []
    import difflib

    return difflib.get_close_matches(found[1], group.list_commands(error.ctx))


def _problem(error: click.UsageError) -> Foreign | messages.Phrase:
    text = error.format_message()
    if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
        hint = error.param_hint or (error.param.get_error_hint(error.ctx) if error.param and error.ctx else None)
        if hint is not None:
            shown = hint if isinstance(hint, str) else " / ".join(hint)
            return messages.Phrase("cli.bad_value", hint=shown.strip("'"), problem=Foreign("cli.click", error.message))
    return Foreign("cli.click", text)
