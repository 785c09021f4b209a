"""One file: rounds of changes until none is left, each checked before the next."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Literal

import msgspec

from sapper.port.fix import imports, notebook, rewrite
from sapper.port.fix.change import GRADES, Change, Grade, Need
from sapper.port.fix.policy import Policy
from sapper.port.fix.rewrite.context import Context, Facts
from sapper.port.fix.text import Piece, Text, applied, spliced
from sapper.port.fix.verify import faithful, parsed
from sapper.port.python.lines import Words
from sapper.port.python.module import Module
from sapper.port.source import Source

_MAX_ROUNDS = 8
"""A rewrite may uncover another inside it. More rounds than calls nest are a fault of ours, and the file is left."""
_WORDS = Words(("cuda", "nccl", "gpu"))

Why = Literal["encoding", "syntax", "notebook", "unfaithful", "endless"]
"""``syntax``: the file does not parse. ``encoding``: its bytes cannot be kept. ``notebook``: its JSON cannot be edited line by
line. The others are faults of ours."""


@dataclass
class Rewritten:
    """What became of a file."""

    raw: bytes
    done: list[tuple[int, Change]] = field(default_factory=list)
    """With the line of the original, from 1."""
    shown: list[tuple[int, Change]] = field(default_factory=list)
    left: Why | None = None
    """Why the file stays as it is although there would be changes."""


@dataclass
class _State:
    """A file between two rounds; ``lines`` are the original's numbers of its lines."""

    text: str
    raw: bytes
    lines: list[int]
    needs: list[Need] = field(default_factory=list)


def rewritten(
    source: Source,
    raw: bytes,
    *,
    policy: Policy,
    facts: Facts,
    grade: Grade,
    wanted: Callable[[int, Change], bool],
    hard_lines: Collection[int] = (),
    rewritable_lines: Collection[int] = (),
) -> Rewritten:
    """Rewrite a file in memory.

    Args:
        source: The file as text.
        raw: Its bytes.
        policy: What takes CUDA's place.
        facts: What other files say.
        grade: The riskiest grade of change to make.
        wanted: Whether to make a change, by the line of the original that it stands on.
        hard_lines: Lines of the original with couplings that nobody can rewrite; a test for CUDA around one stays.
        rewritable_lines: Lines of the original with couplings that a rewrite is known for; one that gets none is as hard.
    """
    state = _State(source.text, raw, list(range(1, len(Text(source.text).starts) + 1)))
    result = Rewritten(raw)
    tied = set(rewritable_lines)
    for number in range(_MAX_ROUNDS):
        context = _context(state, source, policy, facts)
        if context is None:
            return Rewritten(raw, left="syntax")
        found = [(state.lines[context.source.place(change.anchor.start)[0] - 1], change) for change in rewrite.changes(context)]
        found = [(line, change) for line, change in found if wanted(line, change)]
        doing = [change for _line, change in found if change.pieces and GRADES.index(change.grade) <= GRADES.index(grade)]
        doing = _in_reach(context, doing)
        tied -= {state.lines[line - 1] for change in doing for line in context.source.lines(change.anchor)}
        lines = [line for line, original in enumerate(state.lines, 1) if original in hard_lines or original in tied]
        others = [change for _line, change in found if change not in doing]
        doing = rewrite.with_imports(context, rewrite.held(context, doing, others=others, hard_lines=lines))
        if number == 0:
            result.shown = [pair for pair in found if pair[1] not in doing]
        if not doing:
            return _finished(state, result, source)
        result.done += [(state.lines[context.source.place(change.anchor.start)[0] - 1], change) for change in doing]
        problem = _advance(state, context, doing, source.encoding)
        if problem is not None:
            return Rewritten(raw, shown=result.shown, left=problem)
    return Rewritten(raw, shown=result.shown, left="endless")


def rewritten_notebook(source: Source, raw: bytes, *, rewrite: Callable[[Source, bytes], Rewritten]) -> Rewritten:
    """``rewrite`` of a notebook's code cells as one module; the lines that it changes go into the JSON ``raw``."""
    module = msgspec.structs.replace(source, language="python", encoding="utf-8")
    try:
        document, text = raw.decode(source.encoding), source.text.encode("utf-8")
    except UnicodeError:
        return Rewritten(raw, left="encoding")
    made = rewrite(module, text)
    if made.left is not None or not made.done:
        return replace(made, raw=raw)
    changed = notebook.edited(document, source, new=made.raw.decode("utf-8"))
    if changed is None:
        return Rewritten(raw, shown=made.shown, left="notebook")
    data = changed.encode(source.encoding)
    return replace(made, raw=data) if document.encode(source.encoding) == raw else Rewritten(raw, shown=made.shown, left="encoding")


def _context(state: _State, source: Source, policy: Policy, facts: Facts) -> Context | None:
    tree = parsed(state.text)
    if tree is None:
        return None
    now = Source(path=source.path, language=source.language, text=state.text, encoding=source.encoding)
    module = Module(now, words=_WORDS, interesting=lambda name: name == "torch" or name.startswith("torch."))
    return Context(Text(state.text), module.tree, module.name_of, policy, facts)


def _in_reach(context: Context, doing: list[Change]) -> list[Change]:
    """Without what may run although the statements that it would need have not."""
    source, tree = context.source, context.tree
    starts = {needs: imports.there_from(source, tree, needs) for needs in {change.needs for change in doing}}
    return [
        change for change in doing
        if not change.needs or not imports.runs_without(source, tree, place=change.anchor, offset=starts[change.needs])
    ]  # fmt: skip


def _advance(state: _State, context: Context, doing: list[Change], encoding: str) -> Why | None:
    """Make one round's changes; returns why not."""
    pieces = [piece for change in doing for piece in change.pieces]
    state.needs += [need for change in doing for need in change.needs]
    kept = [change.anchor for change in doing if not change.removes]
    gone = [change.anchor for change in doing if change.removes]
    return _put(
        state,
        context.source,
        pieces=pieces,
        check=lambda old, new: faithful(old, new, pieces=pieces, anchors=kept, removed=gone),
        encoding=encoding,
    )


def _finished(state: _State, result: Rewritten, source: Source) -> Rewritten:
    """The file with what the changes need at its top."""
    if result.done:
        text = Text(state.text)
        tree = parsed(state.text)
        assert tree is not None
        pieces = imports.insertions(text, tree, state.needs)
        problem = _put(
            state, text, pieces=pieces, check=lambda old, new: faithful(old, new, pieces=pieces, anchors=()), encoding=source.encoding
        )
        if problem is not None:
            return Rewritten(result.raw, shown=result.shown, left=problem)
    result.raw = state.raw
    return result


def _put(state: _State, text: Text, *, pieces: list[Piece], check: Callable[[str, str], bool], encoding: str) -> Why | None:
    try:
        new = applied(state.text, pieces)
    except ValueError:
        return "unfaithful"
    if not check(state.text, new):
        return "unfaithful"
    raw = spliced(state.raw, state.text, pieces=pieces, encoding=encoding)
    if raw is None:
        return "encoding"
    for piece in sorted(pieces, reverse=True):
        first, last = text.place(piece.span.start)[0], text.place(piece.span.end)[0]
        count = len(Text(piece.text).starts)
        state.lines[first - 1 : last] = [*state.lines[first - 1 : last][:count], *[state.lines[last - 1]] * (count - (last - first + 1))]
    state.text, state.raw = new, raw
    return None
