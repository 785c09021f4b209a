"""Papertiger: an emulated chip that is a real device of PyTorch, with a personality that is a data file.

It takes the road of a vendor's plug-in, PrivateUse1, so that what is tested with it is what such a plug-in goes through:
``.to("npu")``, autograd, optimizers, autocast, ``torch.npu``. A process has one such device; its name stays, its personality
may be changed at any time by :func:`install`. Personalities can be read without PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sapper.backends.papertiger.personality import DEFAULT, Fault, Personality, load, names

if TYPE_CHECKING:
    from sapper.backends.papertiger.core import Chip

__all__ = ["Fault", "Personality", "chip", "install", "load", "names"]


def install(personality: Personality | str = DEFAULT) -> str:
    """Plug the chip in, or give the one that is plugged in another personality; returns the device's name.

    Raises:
        BadValue: The process has a PrivateUse1 device of another name already.
    """
    from sapper.backends.papertiger.device import install

    return install(load(personality) if isinstance(personality, str) else personality)


def chip() -> Chip:
    """The chip of this process: its counters, its personality; to be looked at after :func:`install`."""
    from sapper.backends.papertiger.core import CHIP

    return CHIP
