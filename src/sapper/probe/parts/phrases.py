"""What the probe says. In the emitted file this part is the phrases themselves."""

from __future__ import annotations

from sapper import __version__, messages

PROBE_VERSION: str = __version__
NAMES = [code.split(".", 2)[2] for code in messages.codes("probe.say.")]
PHRASES: dict[str, dict[str, str]] = {
    name: {lang: messages.entry(f"probe.say.{name}")[lang] for lang in messages.LANGUAGES} for name in NAMES
}
"""Name of a phrase -> language -> text with placeholders."""
