"""The stacks that a dry run can play, put together from the targets, the verdict tables and the chip's personalities."""

from __future__ import annotations

from sapper.backends.papertiger.personality import DEFAULT, TAKEN
from sapper.backends.papertiger.personality import load as load_personality
from sapper.errors import BadValue
from sapper.port import target as targets
from sapper.port import verdicts
from sapper.port.dryrun.session import Answer, Stack
from sapper.port.plugin import plugins
from sapper.port.rule import rules

_LAZY = frozenset({"tpu"})
"""Targets whose tensors are recorded and compiled, not computed one op at a time; an eager chip cannot play them."""

_PERSONALITIES = {"ascend": "ascend-a2"}
"""What chips lack, where a vendor's table of it was read; of others nothing is known, and theirs lacks nothing."""


def playable() -> list[str]:
    """Targets that a dry run can play."""
    return [name for name in targets.targets() if name not in _LAZY]


def stack_for(name: str, *, personality: str | None = None) -> Stack:
    """The stack of a target.

    Args:
        name: Of the target, or an alias.
        personality: Of the emulated chip, a name or a ``.toml`` file.

    Raises:
        UnknownName: No such target, or no such personality.
        BadValue: The target's tensors are lazy.
    """
    target = targets.find(name)
    if target.name in _LAZY:
        raise BadValue("SP-TRY-003", where="--as", name=target.name, known=", ".join(playable()))
    chip = personality or _PERSONALITIES.get(target.name, DEFAULT)
    load_personality(chip)  # a mistake in it is told here, not in each process of the program
    plugin = plugins().get(target.name)
    return Stack(
        target=target.name, device=target.device, collective=target.collective,
        plugins=(target.plugin,) if target.plugin else (), device_modules=plugin.device_modules if plugin else (),
        plugin_names=plugin.names if plugin else {}, shim_module=target.shim, personality=chip,
        native=target.device not in TAKEN, as_cuda=target.device == "cuda", answers=_answers(target.name),
    )  # fmt: skip


def _answers(name: str) -> dict[str, Answer]:
    """What the shim makes of names of PyTorch's, as the verdict tables have it."""
    found: dict[str, Answer] = {}
    for table in verdicts.tables().values():
        for row in table.cells:
            answer: Answer = "shim" if row.status in ("shim", "works") else "unknown" if row.status == "unknown" else "not"
            keys = [key for target, key in verdicts.keys_of(row, table.targets) if target == name and key.startswith("torch.")]
            found.update(dict.fromkeys(keys, answer))
    return found


def packages() -> tuple[str, ...]:
    """Modules whose import is told: those that the verdict tables know, and those that rules look for."""
    known: set[str] = {module for names in verdicts.packages().values() for module in names.get("imports", [])}
    known |= {module for one in rules().values() for module in one.match.imports}
    return tuple(sorted(known))
