"""What a converted file includes: headers of the stack, converted files of the project, and files that stay where they are."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping

from sapper.port.kernels.resolve import Edit
from sapper.port.kernels.tables import Table
from sapper.port.native.lexer import Lexed


class Includes:
    """The includes of one file.

    Args:
        old: Its path.
        new: Its path after conversion.
        twins: New paths of the project's files by their old ones.
        names: The stack's tables.
    """

    def __init__(self, old: str, new: str, twins: Mapping[str, str], names: Table) -> None:
        self._old, self._new = posixpath.dirname(old), posixpath.dirname(new)
        self._twins = twins
        self._names = names

    def edits(self, lexed: Lexed) -> Iterator[Edit]:
        """Renamed headers; one that two of CUDA's become is included once."""
        seen = {lexed.text[start:end] for start, end in lexed.headers}
        for start, end in lexed.headers:
            old = lexed.text[start:end]
            new = self._header(old)
            if new == old:
                continue
            if not new or new in seen:
                yield Edit(*_line(lexed.text, start), "")
            else:
                seen.add(new)
                yield Edit(start, end, new)

    def _header(self, header: str) -> str:
        """The header with its brackets, as the stack has it; empty where it has none."""
        opening, path, closing = header[0], header[1:-1], header[-1]
        known = self._names.headers.get(path)
        if known is not None:
            return f"{opening}{known[1:-1]}{closing}" if known.startswith("<") else known
        own = self._of_project(path)
        if own is not None:
            return f"{opening}{own}{closing}"
        return f"{opening}{self._names.paths.reworded(path)}{closing}" if self._names.prose else header

    def _of_project(self, path: str) -> str | None:
        """A file of the project as it is included now; None where it is none."""
        beside = posixpath.normpath(posixpath.join(self._old, path))
        if beside in self._twins:
            return posixpath.relpath(self._twins[beside], self._new or ".")
        tail = path.lstrip("./")
        for old, new in self._twins.items():
            if old == tail or old.endswith(f"/{tail}"):
                depth = tail.count("/") + 1
                return path[: len(path) - len(tail)] + "/".join(new.split("/")[-depth:])
        return None


def _line(text: str, at: int) -> tuple[int, int]:
    """The whole line of a place, with its end."""
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    return start, len(text) if end < 0 else end + 1
