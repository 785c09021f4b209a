"""Install commands in scripts, containers, CI and notebooks: which packages do they ask for?"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sapper.port.text.lists import Entry
from sapper.port.text.names import CPU_BUILD, Dependency, Kind, dependency, normalised

_TOOL = re.compile(
    r"(?P<tool>pip[\d.]*|uv|poetry|pdm|pipenv|rye|pipx|conda|mamba|micromamba|pixi|"
    r"apt-get|apt|aptitude|yum|dnf|microdnf|tdnf|zypper|apk|git)(?=[ \t])"
)
_INSIDE = re.compile(r"[\w.-]")
"""What stands before a tool's name where it is but the end of another name. Asked last, since few places come so far."""
TOOLS = ("pip", "uv", "poetry", "pdm", "rye", "conda", "mamba", "pixi", "apt", "yum", "dnf", "zypper", "apk", "git")
"""One of them stands in every text with an install command."""
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("conda", "mamba", "micromamba", "pixi"), "conda"),
    **dict.fromkeys(("apt-get", "apt", "aptitude", "yum", "dnf", "microdnf", "tdnf", "zypper", "apk"), "system"),
}
_VERBS = ("install", "uninstall", "remove", "add", "create", "update", "upgrade", "clone", "download", "wheel", "in", "groupinstall")
_WORD = re.compile(r"(?P<gap>(?:[ \t]|\\[ \t]*\r?\n(?:[ \t]*\r?\n)*)+)(?P<word>\"[^\"\n]*\"|'[^'\n]*'|[^\s;&|()\"'`\\]+)")
_MOST_WORDS = 2000


def installed(text: str) -> Iterator[Entry]:
    """The packages that the install commands of ``text`` name."""
    read = 0
    for found in _TOOL.finditer(text):
        if found.start() < read:  # a word of the command before, as pip is in `uv pip install`
            continue
        if found.start() and _INSIDE.match(text, found.start() - 1):
            continue
        tool = re.sub(r"[\d.]+$", "", found["tool"])
        kind = _KINDS.get(tool, "pip")
        words = list(_words(text, found.end()))
        read = words[-1][0] if words else read
        verb = next((at for at, (_, word) in enumerate(words) if word != "pip" and not word.startswith("-")), len(words))
        if verb == len(words) or words[verb][1] not in _VERBS:
            continue
        for_cpu = any("/whl/cpu" in word for _, word in words)
        for start, word in words[verb + 1 :]:
            asked = _asked(word, start, kind)
            if asked is not None:
                if for_cpu and asked.version is not None:
                    asked = asked._replace(version=f"{asked.version}{CPU_BUILD}")
                yield Entry(asked, kind)


def _words(text: str, at: int) -> Iterator[tuple[int, str]]:
    """Offset and text, without quotes, of the words of a command up to its end, over lines that a backslash joins."""
    for _ in range(_MOST_WORDS):
        found = _WORD.match(text, at)
        if found is None:
            return
        word, start = found["word"], found.start("word")
        at = found.end()
        yield (start + 1, word[1:-1]) if word[0] in "\"'" else (start, word)


def _asked(word: str, start: int, kind: Kind) -> Dependency | None:
    if word.startswith("-") or not word:
        return None
    if kind == "system":
        name = re.split(r"[=<>:]", word)[0]
        return Dependency(normalised(name), (), None, start, start + len(name)) if re.fullmatch(r"[\w.+*${}-]+", name) else None
    channel = re.match(r"[\w./-]+::", word) if kind == "conda" else None
    if channel is not None:
        word, start = word[channel.end() :], start + channel.end()
    return dependency(word, start)
