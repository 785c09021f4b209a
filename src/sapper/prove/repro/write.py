"""From a finding to a verified script."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import itertools
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sapper
from sapper import messages
from sapper.backends import Backend, find
from sapper.backends.compiler import has_gradients, portable
from sapper.backends.computation import Computation
from sapper.prove import words
from sapper.prove.call import Call
from sapper.prove.repro.edits import neighbours
from sapper.prove.repro.oracle import Oracle, verify
from sapper.prove.repro.recipes import Recipe, recipe_of
from sapper.prove.repro.result import Repro
from sapper.prove.repro.script import Check, Plan, script_of
from sapper.prove.repro.shrink import Budget, Found, Shrinker, is_floating, one_output
from sapper.prove.suspect import Suspect, Untraceable, suspect_of
from sapper.prove.verdict import Blame, Outcome

TRIES = 400
BUDGET_S = 180.0
LIMIT_S = 60.0
"""Wall time of a try; of those that hang, ``HANG_TRY_S``."""
HANG_TRY_S = 15.0
HANG_TRIES = 8
VERIFIED_MOST = 4
"""Scripts that are verified, simplest first, before the finding counts as not reproduced."""
CHECKS: dict[Outcome, tuple[Check, ...]] = {
    "wrong": ("largest", "norm", "mean", "nan", "form", "exact"),
    "imprecise": ("largest", "norm", "mean"),
    "nan": ("nan", "largest"),
    "crash": ("dies", "fails"),
    "hang": ("hangs",),
    "memory": ("fails", "dies"),
    "nondeterministic": ("repeat", "largest", "nan"),
    "stateful": ("largest", "norm", "nan", "exact", "form", "dies", "fails"),
    "fallback": ("elsewhere",),
    "unsupported": ("fails",),
}
"""For each outcome the ways in which it may show, likeliest first."""
WITHOUT_VALUES: frozenset[Check] = frozenset({"dies", "fails", "hangs"})
"""Ways in which a program without outputs may fail."""
FRESH: frozenset[Outcome] = frozenset({"stateful", "nondeterministic"})
"""Outcomes that depend on what ran before: each try has a process of its own."""


def write_repro(
    suspect: Suspect | Call | Computation,
    backend_spec: str,
    *,
    outcome: Outcome,
    folder: Path,
    name: str | None = None,
    labels: Sequence[str] = (),
    blame: Blame | None = None,
    tries: int = TRIES,
    budget_s: float = BUDGET_S,
    limit_s: float = LIMIT_S,
    memory_bytes: int | None = None,
) -> Repro:
    """Write a script that shows a finding alone, as simple as the budget allows.

    Args:
        suspect: What was run, with the inputs on which it failed.
        backend_spec: The backend, as on the command line.
        outcome: What was seen.
        folder: Where the script goes.
        name: Its stem; the suspect's name where None.
        labels: Outputs that were found at fault; all are tried where empty.
        blame: Whose fault it is, for the script's head.
        tries: Scripts that may be run to shrink it.
        budget_s: Wall time for shrinking.
        limit_s: Wall time of one try.
        memory_bytes: Resident memory of one try.
    """
    started = time.monotonic()
    backend = find(backend_spec)
    recipe = recipe_of(backend, gradients=_differentiates(suspect))
    if recipe is None or outcome not in CHECKS or (outcome == "fallback" and not recipe.elsewhere):
        return Repro(path=None, reason="prove.repro.no_recipe" if recipe is None else "prove.repro.no_check")
    hangs = outcome == "hang"
    budget = Budget(tries=HANG_TRIES if hangs else tries, end_s=started + budget_s)
    history: list[Found] = []
    spent, said = 0, ""
    head = functools.partial(_head, backend, recipe, outcome, blame)
    limit_s = min(limit_s, HANG_TRY_S) if hangs else limit_s
    plans = _plans(suspect, recipe, CHECKS[outcome], labels, head, stateful=outcome == "stateful")
    if outcome == "nondeterministic":  # what answers differently may do so by what ran before it, and not by chance
        plans = itertools.chain(plans, _plans(suspect, recipe, CHECKS["stateful"], labels, head, stateful=True))
    with Oracle(limit_s=limit_s, fresh=outcome in FRESH, memory_bytes=memory_bytes) as oracle:
        for plan in plans:
            source = script_of(plan)
            shown = oracle.shows(source, plan.check, plan.suspect)
            spent, said = spent + 1, said or shown.words
            if shown.defect:
                history = Shrinker(oracle=oracle, budget=budget, best=Found(plan=plan, source=source, shown=shown)).run()
            if history or not budget.left():
                break
    spent += budget.spent
    if not history:
        return Repro(path=None, reason="prove.repro.not_shown", tries=spent, wall_s=time.monotonic() - started, said=said[-1000:])
    return _verified(history, folder / f"{_stem(name or suspect_name(suspect))}.py", backend, spent, started)


def _differentiates(suspect: Suspect | Call | Computation) -> bool:
    return isinstance(suspect, Computation) and has_gradients(suspect)


def suspect_name(suspect: Suspect | Call | Computation) -> str:
    """A name for the script."""
    return suspect.op if isinstance(suspect, Call) else suspect.name


def _stem(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name.replace("aten::", "")).strip("_") or "repro"


def _plans(
    suspect: Suspect | Call | Computation,
    recipe: Recipe,
    checks: Sequence[Check],
    labels: Sequence[str],
    head: Callable[[Suspect], list[str]],
    *,
    stateful: bool,
) -> Iterator[Plan]:
    """Where shrinking may start: forms of the graph, outputs, ways in which the defect may show."""
    seen: set[str] = set()
    for form in forms(suspect, recipe):
        names = form.all_labels()
        wanted = [at for at, label in enumerate(names) if label in labels] or list(range(len(names)))
        for check in checks:
            if not names and check in WITHOUT_VALUES:  # a list of no tensors, say
                yield Plan(suspect=form, check=check, recipe=recipe, head=head)
            for at in wanted:
                floating = is_floating(form, at)
                if (check == "exact" and floating) or (check in ("largest", "norm", "mean", "nan", "repeat") and not floating):
                    continue
                for one in _after_others(one_output(form, at)) if stateful else [one_output(form, at)]:
                    plan = Plan(suspect=one, check=check, recipe=recipe, head=head)
                    source = script_of(plan)
                    if source not in seen:
                        seen.add(source)
                        yield plan


def _after_others(suspect: Suspect) -> list[Suspect]:
    """A suspect after what ran before it; where that is not known, after what a cache would mistake for it: each, then all of them."""
    if suspect.before:
        return [suspect]
    others = neighbours(suspect)
    return [dataclasses.replace(suspect, before=before) for before in (*((one,) for one in others), tuple(others))]


def forms(suspect: Suspect | Call | Computation, recipe: Recipe) -> Iterator[Suspect]:
    """The graph as its user wrote it, as PyTorch dispatches it, and of core ATen ops; those that can be traced."""
    if isinstance(suspect, Suspect):
        yield suspect
        return
    computation = suspect.computation() if isinstance(suspect, Call) else suspect
    joint = dataclasses.replace(computation, differentiated=None)
    ways: list[tuple[Computation, dict[str, Any]]] = []
    if recipe.autograd or computation.differentiated is None:
        ways.append((computation, {"composite": True}))
    ways += [(joint, {"composite": False}), (joint, {"decompose": "core"})]
    for one, options in ways:
        try:
            with portable() if not recipe.autograd else contextlib.nullcontext():
                yield suspect_of(one, **options)
        except Untraceable:
            continue


def _head(backend: Backend, recipe: Recipe, outcome: Outcome, blame: Blame | None, suspect: Suspect) -> list[str]:
    ops = ", ".join(dict.fromkeys(suspect.ops()))
    named = ops if len(ops) < 80 else suspect.name
    title = messages.text("prove.repro.title", op=named, backend=backend.name, outcome=words.outcome(outcome))
    if blame:
        title += f" ({words.blame(blame)})"
    pins = " ".join(pinned(backend))
    code = "prove.repro.made_with" if recipe.needs_sapper else "prove.repro.made"
    made = messages.text(
        code, python=platform.python_version(), system=f"{platform.system()} {platform.machine()}",
        date=datetime.date.today().isoformat(), version=sapper.__version__,
    )  # fmt: skip
    return [f"{title}. {messages.text('prove.repro.codes')}", f"pip install {pins}", made]


def pinned(backend: Backend) -> list[str]:
    """Packages of PyTorch and the stack as pip takes them, at the versions that are installed."""
    found = {}
    for package in ("torch", *backend.versions()):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return [f"{name}=={version.partition('+')[0]}" for name, version in found.items()]


def _verified(history: Sequence[Found], path: Path, backend: Backend, tries: int, started: float) -> Repro:
    """The simplest script that shows the defect in a fresh process; the simplest of all where none does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    needs_sapper = history[0].plan.recipe.needs_sapper
    chosen = _spaced(history)
    said = ""
    for found in chosen:
        path.write_text(found.source, "utf-8")
        shown = verify(path, found.plan.check, sapper=needs_sapper)
        said = said or shown.words
        if shown.defect:
            return _repro(found, path, reproduced=True, tries=tries, started=started, said=shown.words)
    path.write_text(chosen[0].source, "utf-8")
    return _repro(chosen[0], path, reproduced=False, tries=tries, started=started, said=said)


def _spaced(history: Sequence[Found]) -> list[Found]:
    """The simplest, then some on the way back to the start, which is the last."""
    count = len(history)
    places = dict.fromkeys(round((count - 1) * (1 - at / (VERIFIED_MOST - 1))) for at in range(VERIFIED_MOST))
    return [history[at] for at in places]


def _repro(found: Found, path: Path, *, reproduced: bool, tries: int, started: float, said: str) -> Repro:
    return Repro(
        path=str(path), lines=len(found.source.splitlines()), reproduced=reproduced, tries=tries, check=found.plan.check,
        ops=tuple(op for part in (*found.plan.suspect.before, found.plan.suspect) for op in part.ops()), wall_s=time.monotonic() - started,
        reason=None if reproduced else "prove.repro.not_fresh", said=said[-1000:],
    )  # fmt: skip
