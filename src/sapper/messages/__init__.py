"""Every sentence that a user reads, by code, in English and Chinese.

``data/<area>.toml`` holds one table per code::

    [SP-CHIP-001]
    en = "no chip is called `{name}`"
    zh = "没有名为 `{name}` 的芯片"
    next_en = "near names: {near}; `sapper chips list` prints all"
    next_zh = "相近的名称：{near}；`sapper chips list` 列出全部"

Codes beginning with ``SP-`` are errors and warnings; other codes (``label.step_time``) are labels. A value that is
itself a sentence is given as a :class:`Phrase`, one that another library wrote in English as a :class:`Foreign`; both
are put into the language of the message that they stand in.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
import re
import tomllib
from collections.abc import Iterator
from typing import Any

LANGUAGES = ("en", "zh")
_DATA = os.path.join(os.path.dirname(__file__), "data")
_current: contextvars.ContextVar[str | None] = contextvars.ContextVar("sapper_lang", default=None)


def set_language(lang: str | None) -> None:
    """Choose ``en`` or ``zh`` for this context; None returns to the locale's."""
    _current.set(lang)


@contextlib.contextmanager
def using(lang: str) -> Iterator[None]:
    """Speak ``lang`` inside a ``with`` block."""
    token = _current.set(lang)
    try:
        yield
    finally:
        _current.reset(token)


def language() -> str:
    """The language in force: the one chosen, else the locale's, else English."""
    chosen = _current.get()
    if chosen:
        return chosen
    for name in ("SAPPER_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    if os.name == "nt":
        import locale  # only Windows keeps its language outside the environment, and the import costs milliseconds

        return "zh" if (locale.getlocale()[0] or "").lower().startswith(("zh", "chinese")) else "en"
    return "en"


class Phrase:
    """A sentence of the catalogue that is a value of another one."""

    def __init__(self, code: str, /, **values: Any) -> None:
        self.code = code
        self.values = values

    def render(self, lang: str) -> str:
        """The phrase in ``lang``."""
        return text(self.code, lang, **self.values)

    def __str__(self) -> str:
        return self.render(language())


class Foreign:
    """An English sentence of another library; its Chinese is the entry under ``area.`` whose ``en`` has its shape."""

    def __init__(self, area: str, english: str) -> None:
        self.area = area
        self.english = english

    def render(self, lang: str) -> str:
        """The sentence in ``lang``; as it came where no entry fits."""
        if lang == "en":
            return self.english
        for code in codes(f"{self.area}."):
            match = re.fullmatch(_shape(entry(code)["en"]), self.english, re.DOTALL)
            if match:
                return entry(code)[lang].format(**match.groupdict())
        return self.english

    def __str__(self) -> str:
        return self.render(language())


@functools.cache
def areas() -> tuple[str, ...]:
    """Names of the catalogue's files, without ``.toml``."""
    return tuple(sorted(name[:-5] for name in os.listdir(_DATA) if name.endswith(".toml")))


@functools.cache
def area(name: str) -> dict[str, dict[str, str]]:
    """The messages of one file, by code."""
    with open(os.path.join(_DATA, f"{name}.toml"), "rb") as file:
        return dict(_flatten(tomllib.load(file)))


@functools.cache
def catalogue() -> dict[str, dict[str, str]]:
    """All messages, by code."""
    found: dict[str, dict[str, str]] = {}
    for name in areas():
        for code, texts in area(name).items():
            if code in found:
                raise RuntimeError(f"message {code} is defined twice (again in {name}.toml)")
            found[code] = texts
    return found


@functools.cache
def entry(code: str) -> dict[str, str]:
    """The texts of ``code``: ``en``, ``zh`` and perhaps ``next_en``, ``next_zh``.

    Reads the file that the code is named after first, so that ``sapper --help`` parses one small file and not all.

    Raises:
        KeyError: No such code.
    """
    parts = code.split(".") if "." in code else code.split("-")[1:]
    hint = parts[0].lower() if parts else ""
    near = [name for name in areas() if hint and name.startswith(hint)]
    for name in (*near, *areas()):
        if code in area(name):
            return area(name)[code]
    raise KeyError(code)


def codes(prefix: str = "") -> list[str]:
    """All codes that begin with ``prefix``; only the file is read that the prefix names, where it names one."""
    name = prefix.split(".")[0]
    return [code for code in (area(name) if name in areas() else catalogue()) if code.startswith(prefix)]


def known(code: str) -> bool:
    """Whether the catalogue has ``code``."""
    try:
        entry(code)
    except KeyError:
        return False
    return True


def _flatten(table: dict[str, Any], prefix: str = "") -> list[tuple[str, dict[str, str]]]:
    own = {key: value for key, value in table.items() if isinstance(value, str)}
    found = [(prefix, own)] if own else []
    for key, sub in table.items():
        if isinstance(sub, dict):
            found += _flatten(sub, f"{prefix}.{key}" if prefix else key)
    return found


@functools.cache
def _shape(template: str) -> str:
    """The regular expression of all sentences that ``template`` can make."""
    pattern, seen = "", set()
    for index, part in enumerate(re.split(r"\{(\w+)\}", template)):
        if index % 2 == 0:
            pattern += re.escape(part)
        else:
            pattern += f"(?P={part})" if part in seen else f"(?P<{part}>.*?)"
            seen.add(part)
    return pattern


def _filled(template: str, lang: str, values: dict[str, Any]) -> str:
    return template.format(**{k: v.render(lang) if isinstance(v, (Phrase, Foreign)) else v for k, v in values.items()})


def text(code: str, lang: str | None = None, /, **values: Any) -> str:
    """The text of ``code`` with its placeholders filled."""
    lang = lang or language()
    return _filled(entry(code)[lang], lang, values)


def next_step(code: str, lang: str | None = None, /, **values: Any) -> str | None:
    """What to do about ``code``; None where the message says all."""
    lang = lang or language()
    step = entry(code).get(f"next_{lang}")
    return _filled(step, lang, values) if step else None
