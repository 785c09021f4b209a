"""``sapper chips``: list, show, compare and check what the catalogue knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sapper import messages
from sapper.cli._help import wrap
from sapper.cli.output import Column, console, emit, emit_json, format_option, talk

if TYPE_CHECKING:
    from sapper.chips.catalogue import Catalogue
    from sapper.chips.schema import Chip, System

F = TypeVar("F", bound=Callable[..., Any])


def _use_dirs(_context: click.Context, _option: click.Parameter, dirs: tuple[str, ...]) -> tuple[str, ...]:
    from sapper.chips import use_dirs

    use_dirs(dirs)
    return dirs


def chips_dir_option(function: F) -> F:
    """Adds ``--chips-dir FOLDER`` (repeatable): its chips join the catalogue of the whole command."""
    return click.option(
        "--chips-dir", multiple=True, type=click.Path(), expose_value=False, callback=_use_dirs, is_eager=True, help="chips.option.dir"
    )(function)


@click.group("chips", help="cli.help.chips", no_args_is_help=True)
def command() -> None:
    """The group of verbs."""


@command.command("list", help="chips.help.list")
@click.option("--vendor", help="chips.option.vendor")
@click.option("--arch", help="chips.option.arch")
@click.option("--dtype", help="chips.option.dtype")
@click.option("--systems", is_flag=True, help="chips.option.systems")
@format_option
@chips_dir_option
def list_(vendor: str | None, arch: str | None, dtype: str | None, systems: bool, fmt: str) -> None:
    """One line per chip, or per system."""
    from sapper.chips import catalogue

    known = catalogue()
    if systems:
        rows = [_system_row(system) for system in known.systems.values()]
        emit(rows, [Column(key, f"chips.column.{key}") for key in ("id", "name", "chip", "count")], fmt=fmt)
        return
    peak = _choose(dtype, _dtypes(), "SP-CHIP-037") or "bf16"
    chips = _chosen(known, vendor=vendor, arch=arch)
    if dtype is not None:
        chips = [chip for chip in chips if peak in chip.peak_flops_per_s]
    if not chips:
        talk("chips.list.none")

    rows = [_chip_row(chip, peak, fallback=dtype is None) for chip in chips]
    emit(rows, _list_columns(peak, fmt=fmt), fmt=fmt)
    if fmt == "table" and chips:
        click.echo("\n" + "\n".join(wrap(messages.text("chips.legend"), console().width)))
        talk("chips.list.more", count=len(chips))


@command.command("show", help="chips.help.show")
@click.argument("name")
@format_option
@chips_dir_option
def show(name: str, fmt: str) -> None:
    """Everything that is known of one chip or system."""
    from sapper.chips import catalogue
    from sapper.cli import _chips

    known = catalogue()
    if known.system_names.find(name) and not known.names.find(name):
        _chips.show_system(known.resolve_system(name), known, fmt=fmt)
    else:
        _chips.show_chip(known.resolve(name), fmt=fmt)


@command.command("compare", help="chips.help.compare")
@click.argument("names", nargs=-1, required=True)
@format_option
@chips_dir_option
def compare(names: tuple[str, ...], fmt: str) -> None:
    """Chips side by side, with the ratio to the first."""
    from sapper.chips import catalogue
    from sapper.cli import _chips

    _chips.compare_chips(_columns(catalogue(), names), fmt=fmt)


@command.command("check", help="chips.help.check")
@click.argument("files", nargs=-1, type=click.Path())
@format_option
@chips_dir_option
def check(files: tuple[str, ...], fmt: str) -> int:
    """Each fault of chip files, with its line and what is expected."""
    from sapper.chips.catalogue import BUNDLED, catalogue
    from sapper.chips.check import check_files

    report = check_files(files or (BUNDLED,), among=catalogue())
    rows = [
        {"file": fault.file, "line": fault.line, "field": fault.field, "value": fault.value, "code": fault.code,
         "problem": fault.problem(), "expected": fault.expected()}
        for fault in report.faults
    ]
    if fmt == "json":
        emit_json(rows)
    elif fmt == "csv":
        emit(rows, [Column(key, "chips.column.id") for key in ("file", "line", "field", "value", "code", "problem", "expected")], fmt=fmt)
    else:
        for fault in report.faults:
            place = fault.file if fault.line is None else f"{fault.file}:{fault.line}"
            click.echo(f"{place}: {fault.problem()} [{fault.code}]")
            if fault.expected():
                click.echo(f"  -> {fault.expected()}")
    talk("chips.check.clean" if not rows else "chips.check.found", files=report.files, faults=len(rows))
    return 2 if report.unreadable else 1 if rows else 0


def _dtypes() -> tuple[str, ...]:
    from sapper.chips import DTYPES

    return DTYPES


def _choose(value: str | None, known: Sequence[str], code: str) -> str | None:
    """``value`` as one of ``known``, in any case.

    Raises:
        UnknownName: It is none of them.
    """
    if value is None or value.lower() in known:
        return value and value.lower()
    from sapper.chips.faults import nearest_first
    from sapper.errors import UnknownName

    raise UnknownName(code, name=value, near=", ".join(f"`{name}`" for name in nearest_first(value.lower(), known)[:9]))


def _chosen(known: Catalogue, *, vendor: str | None, arch: str | None) -> list[Chip]:
    from sapper.chips.names import fold
    from sapper.chips.schema import ARCH_CLASSES

    heads = list(known.names.heads.values())
    if vendor is not None:
        wanted = fold(vendor)
        heads = [
            head for head in heads if wanted and any(fold(name).startswith(wanted) for name in (head.vendor, head.vendor_zh or "", head.id))
        ]
        if not heads:
            _choose(vendor, sorted({head.vendor for head in known.names.heads.values()}), "SP-CHIP-036")
    kind = _choose(arch, ARCH_CLASSES, "SP-CHIP-038")
    chips = [known.chips[head.id] for head in heads]
    return chips if kind is None else [chip for chip in chips if chip.arch_class == kind]


def _list_columns(peak: str, *, fmt: str) -> list[Column]:
    from sapper.chips.compare import short

    def scaled(factor: float) -> Callable[[Any], str]:
        return lambda value: short(value / factor)

    numbers = [
        Column("memory_bytes", "chips.column.memory", "right", scaled(2.0**30)),
        Column("memory_bytes_per_s", "chips.column.bandwidth", "right", scaled(1e12)),
        Column("scale_up_bytes_per_s", "chips.column.scale_up", "right", scaled(1e9)),
        Column("topology", "chips.column.topology", "left", lambda name: messages.text(f"chips.topology.{name}")),
        Column("tdp_w", "chips.column.power", "right", scaled(1.0)),
    ]
    if fmt != "csv":
        return [Column("id", "chips.column.id"), Column("peak_shown", f"chips.column.peak_{peak}", "right"), *numbers]
    head = ("id", "vendor", "name", "kind", "arch", "peak_dtype", "peak_flops_per_s", "peak_grade", "peak_status")
    return [*(Column(key, "chips.column.id") for key in head), *numbers, Column("release", "chips.column.release")]


def _chip_row(chip: Chip, peak: str, *, fallback: bool) -> dict[str, Any]:
    from sapper.chips.compare import grade_mark, short
    from sapper.chips.derived import number

    dtype = peak
    if fallback and number(chip.peak_flops_per_s.get(peak)) is None and number(chip.peak_flops_per_s.get("fp16")) is not None:
        dtype = "fp16"
    fact = chip.peak_flops_per_s.get(dtype)
    value = number(fact)
    known = fact if fact is not None and value is not None else None
    parts = [short(value / 1e12), dtype if dtype != peak else "", grade_mark(known.grade, known.status)] if known and value else []
    up = chip.scale_up
    return {
        "id": chip.id, "vendor": chip.vendor, "vendor_zh": chip.vendor_zh, "name": chip.name, "aliases": chip.aliases,
        "kind": chip.kind, "arch": chip.arch_class, "peak_dtype": dtype if known else None, "peak_flops_per_s": value,
        "peak_grade": known.grade if known else None, "peak_status": fact.status if fact else None,
        "peak_shown": " ".join(part for part in parts if part) or None,
        "memory_bytes": number(chip.memory.capacity_bytes), "memory_bytes_per_s": number(chip.memory.bandwidth_bytes_per_s),
        "scale_up_bytes_per_s": number(up.bandwidth_bytes_per_s) if up else None,
        "topology": up.topology if up and up.topology != "unknown" else None,
        "tdp_w": number(chip.tdp_w), "release": chip.release.value if chip.release else None,
    }


def _system_row(system: System) -> dict[str, Any]:
    return {
        "id": system.id, "vendor": system.vendor, "name": system.name, "aliases": system.aliases, "chip": system.chip,
        "count": system.count, "notes": system.notes,
    }


def _reach(chip: Chip) -> tuple[float, float]:
    """Link and memory: of namesakes the one with the most stands first, and so is what the others are held against."""
    from sapper.chips.derived import number

    link = number(chip.scale_up.bandwidth_bytes_per_s) if chip.scale_up else None
    return link or 0.0, number(chip.memory.capacity_bytes) or 0.0


def _columns(known: Catalogue, names: Sequence[str]) -> list[Chip]:
    """The chips to compare: a name of several chips of like peaks gives each of them a column.

    Raises:
        AmbiguousName: A name of several chips that differ in their peaks.
        UnknownName: A name of none.
    """
    from sapper.chips.compare import comparable

    found: dict[str, Chip] = {}
    for name in names:
        chips = known.find(name)
        if len(chips) > 1:
            if not comparable(chips):
                raise known.ambiguous(name, chips)
            talk("chips.compare.several", name=name, count=len(chips))
            chips.sort(key=_reach, reverse=True)
        found |= {chip.id: chip for chip in chips}
    return list(found.values())
