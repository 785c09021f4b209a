"""``sapper port fix``: rewrite couplings into code for any accelerator."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from sapper import messages
from sapper.cli.output import emit_json, talk

if TYPE_CHECKING:
    from sapper.port.fix.plan import Line, Plan

STYLES = ("auto", "helper", "accelerator", "file")
MOST_SHOWN = 20


@click.command("fix", help="port.fix.help")
@click.argument("path", metavar="[PATH]", default=".", type=click.Path())
@click.option("--style", type=click.Choice(STYLES), default="auto", show_default=True, help="port.fix.option.style")
@click.option("--unsafe", is_flag=True, help="port.fix.option.unsafe")
@click.option("--select", multiple=True, metavar="CODE", help="port.fix.option.select")
@click.option("--kernels", type=click.Choice(("musa", "hip")), default=None, help="port.fix.option.kernels")
@click.option("--diff", "as_diff", is_flag=True, help="port.fix.option.diff")
@click.option("--force", is_flag=True, help="port.fix.option.force")
@click.option("--undo", "take_back", is_flag=True, help="port.fix.option.undo")
@click.option("--json", "as_json", is_flag=True, help="port.fix.option.json")
def command(
    path: str, style: str, unsafe: bool, select: tuple[str, ...], kernels: Literal["musa", "hip"] | None, as_diff: bool, force: bool,
    take_back: bool, as_json: bool,
) -> int:  # fmt: skip
    """Exit code 0 where nothing is left to do, 1 where something is (with --diff: where there is a difference)."""
    from sapper.port.fix import run
    from sapper.port.fix.plan import plan

    where = Path(path)
    if take_back:
        return _undo(where, force=force)
    if kernels is not None:
        from sapper.cli import _fix_kernels

        return _fix_kernels.convert(where, kernels, as_diff=as_diff, force=force, as_json=as_json)
    tree = run.opened(where)
    if not as_diff and not force:
        run.check_clean(tree)
    made = plan(where, style=style, grade="unsafe" if unsafe else "safe", select=select)  # type: ignore[arg-type]
    if not as_diff:
        run.apply(tree, made)
    if as_json:
        emit_json(_as_json(made))
    elif as_diff:
        click.echo(difference(made), nl=False)
    else:
        _print(made)
    _say(made, where, written=not as_diff)
    return int(bool(made.contents)) if as_diff else int(bool(made.shown or made.left))


def _undo(path: Path, *, force: bool) -> int:
    from sapper.port.fix import run

    undone = run.undo(path, force=force)
    talk("port.fix.undone", restored=len(undone.restored), removed=len(undone.removed))
    return 0


def difference(made: Plan) -> str:
    """A unified diff of all files, which ``git apply`` and ``patch -p1`` take; each line keeps its own line end."""
    parts = []
    for path, raw in made.contents.items():
        old = made.project.raw.get(path)
        encoding = made.project.sources[path].encoding.removesuffix("-sig") if path in made.project.sources else "utf-8"
        before = _lines((old or b"").decode(encoding))
        names = (f"a/{path}" if old is not None else "/dev/null", f"b/{path}")
        for line in difflib.unified_diff(before, _lines(raw.decode(encoding)), *names):
            parts.append(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n")
    return "".join(parts)


def _lines(text: str) -> list[str]:
    """Lines as ``patch`` counts them: LF ends one, nothing else."""
    parts = text.split("\n")
    return [*(f"{part}\n" for part in parts[:-1]), *([parts[-1]] if parts[-1] else [])]


def _print(made: Plan) -> None:
    from sapper.port.fix.plan import by_path

    text = messages.text
    for path, lines in by_path(made.done).items():
        if path in made.contents:
            click.echo(f"{path}: {text('port.fix.rewrites', count=len(lines))}")
    for path in made.contents:
        if path not in made.project.raw:
            click.echo(f"{path}: {text('port.fix.new')}")
    for path, why in sorted(made.left.items()):
        click.echo(f"{path}: {text(f'port.fix.left.{why}')}")
    if made.shown:
        click.echo()
        click.echo(text("port.fix.shown"))
        for line in sorted(made.shown, key=lambda line: (line.path, line.cell or 0, line.line))[:MOST_SHOWN]:
            cell = f"{text('port.cell', number=line.cell)}:" if line.cell else ""
            click.echo(f"  {line.path}:{cell}{line.line}: {line.code or '-'} {line.symbol} ({text(f'port.fix.grade.{line.grade}')})")
        if len(made.shown) > MOST_SHOWN:
            click.echo(f"  {text('port.fix.more', count=len(made.shown) - MOST_SHOWN)}")


def _say(made: Plan, path: Path, *, written: bool) -> None:
    """What was chosen, what PyTorch it needs, and how to take it back."""
    if not made.contents:
        talk("port.fix.nothing")
        return
    talk(f"port.fix.style.{made.choice.style}", name=_named(made))
    if made.torch is not None:
        talk("port.fix.torch", version=".".join(map(str, made.torch)))
    if written:
        talk("port.fix.wrote", files=len(made.contents), rewrites=len(made.done), path=path)


def _named(made: Plan) -> str:
    helpers = ", ".join(f"`{one.module}.{one.name}`" for one in made.choice.helpers.by_role.values())
    return {"helper": helpers, "file": f"`{made.choice.helper_path()}`"}.get(made.choice.style, "`torch.accelerator`")


def _as_json(made: Plan) -> dict[str, Any]:
    def lines(found: list[Line]) -> list[dict[str, Any]]:
        return [dataclasses.asdict(one) for one in found]

    return {
        "style": made.choice.style, "files": sorted(made.contents), "done": lines(made.done), "shown": lines(made.shown),
        "left": made.left, "torch": ".".join(map(str, made.torch)) if made.torch else None,
    }  # fmt: skip
