"""Progress and refusals on stderr, in the language of the machine."""

from __future__ import annotations

import os
import sys
from typing import Any

from sapper.probe.parts.phrases import PHRASES


class Refusal(Exception):
    """What stops the probe; the phrase says what to do."""


class Unsupported(Exception):
    """What this PyTorch or this device does not have; the answer for a case, not a fault."""


def phrase(name: str, **values: Any) -> str:
    """The phrase ``name`` with its placeholders filled."""
    chosen = next((os.environ[key] for key in ("SAPPER_LANG", "LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(key)), "en")
    return PHRASES[name]["zh" if chosen.lower().startswith("zh") else "en"].format(**values)


def say(name: str, **values: Any) -> None:
    """Print the phrase ``name`` on stderr at once."""
    sys.stderr.write(phrase(name, **values) + "\n")
    sys.stderr.flush()


def first_line(error: BaseException) -> str:
    """What an error says, short enough for a record."""
    lines = str(error).strip().splitlines()
    return "{}: {}".format(type(error).__name__, lines[0] if lines else "")[:200]
