"""Recipes: what a benchmark states about its runs beside its figures, found again by what a row has in common with them.

InferenceX publishes latencies without the number of prefill and decode workers, the drafts and the batch limit of a run; its
recipes state them. ``data/inferencex.jsonl.gz`` holds them with the days on which each was current
(``scripts/inferencex_recipes.py`` reads them from the history of github.com/SemiAnalysisAI/InferenceX, Apache-2.0). No
measured figure is in there, and none of a row is looked at.
"""

from __future__ import annotations

import datetime
import functools
import gzip
import re
from collections import defaultdict
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import msgspec

from sapper.predict.rows.row import Row
from sapper.predict.serve.rows.rules import serve_rule, stack_of
from sapper.predict.serve.rows.twins import product

FAMILY = "InferenceX"
MODELS = {
    "dsr1": "deepseek-(r1|v3)(?!\\.)", "gptoss": "gpt-oss-120b", "kimik2.5": "kimi-k2\\.5", "minimaxm2.5": "minimax-m2\\.5",
    "qwen3.5": "qwen3\\.5-397b", "glm5": "glm-5(?!\\.)", "dsv4": "deepseek-v4",
}
"""The benchmark's own names -> the models of its rows."""
SLACK = datetime.timedelta(days=10)
"""Between a run and the days on which its recipe stood in the repository: it is tried before and repeated after."""


class Workers(NamedTuple):
    """Workers of one kind."""

    workers: int
    chips: int
    """Of one worker."""
    ranks: int
    """Of its attention."""
    experts: int
    """Degree of expert parallelism."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of a benchmark's plan."""

    model: str
    chip: str
    precision: str
    stack: str
    image: str
    input_len: int
    output_len: int
    loads: tuple[int, ...]
    """Concurrent requests of its runs."""
    prefill: Workers | None
    """None: prompts and generation share the workers of ``decode``."""
    decode: Workers
    drafts: int | None
    """Tokens drafted for each that is generated; None: some, in a file that the recipe names."""
    most: int | None
    """Requests that may decode together on one attention rank."""
    first: str
    last: str

    @property
    def speculative(self) -> bool:
        """Whether tokens are drafted."""
        return self.drafts != 0

    @property
    def table(self) -> dict[str, int]:
        """The workers as a row's ``extra.disagg`` has them."""
        pools = {"prefill": self.prefill or self.decode, "decode": self.decode}
        return {f"{which}_{name}": value for which, pool in pools.items() for name, value in (
            ("num_workers", pool.workers), ("tp_size", pool.chips // pool.ranks), ("pp_size", 1), ("attention_dp_size", pool.ranks),
            ("moe_ep_size", pool.experts),
        )}

    @property
    def shown(self) -> str:
        """The workers in the words of the benchmark: ``1 x 4 prefill, 2 x 8 decode``."""
        pools = (("prefill", self.prefill), ("decode", self.decode))
        return ", ".join(f"{pool.workers} x {pool.chips} {which}" for which, pool in pools if pool is not None)


def recipes_of(row: Row) -> tuple[Recipe, ...]:
    """Recipes with workers of their own for prompts that agree with everything a row states; those nearest to its day first."""
    found = [recipe for recipe in _index().get(_key(row), ()) if _fits(recipe, row)]
    words = (row.framework or "").split()
    version = words[1] if len(words) > 1 else ""
    named = [recipe for recipe in found if version and version in recipe.image]
    found = named or found
    day = row.date
    if day is not None:
        found.sort(key=lambda recipe: _apart(recipe, day))
        current = [recipe for recipe in found if _apart(recipe, day) <= SLACK]
        found = current or found
    return tuple(found)


def chosen(found: Sequence[Recipe], *, speculative: bool) -> Recipe:
    """The first recipe that drafts tokens, or that does not; where all agree in that, the first."""
    return next((recipe for recipe in found if recipe.speculative == speculative), found[0])


def _apart(recipe: Recipe, day: datetime.date) -> datetime.timedelta:
    first, last = datetime.date.fromisoformat(recipe.first), datetime.date.fromisoformat(recipe.last)
    return max(first - day, day - last, datetime.timedelta())


def _fits(recipe: Recipe, row: Row) -> bool:
    """Whether the chips that the row states are those of one worker of each kind, or of all."""
    pools = {"prefill": recipe.prefill, "decode": recipe.decode}
    whole = sum(pool.workers * pool.chips for pool in pools.values() if pool is not None)
    table = row.extra.get("disagg")
    if not isinstance(table, dict):
        return whole == product(row.parallel)
    return all(
        pool is not None and (found := _chips(table, which)) is not None and found in (pool.chips, pool.workers * pool.chips, whole)
        for which, pool in pools.items()
    )


def _chips(table: dict[str, object], which: str) -> int | None:
    sizes = [str(table.get(f"{which}_{name}") or 1) for name in ("tp_size", "attention_dp_size")]
    return int(sizes[0]) * int(sizes[1]) if all(size.isdecimal() for size in sizes) else None


class _Key(NamedTuple):
    """What a row and its recipe must agree in."""

    model: str
    chip: str
    precision: str
    stack: str
    input_len: float
    output_len: float
    load: float


def _key(row: Row) -> _Key | None:
    rule, load = serve_rule(row), row.number("concurrency")
    name = row.model.name.lower()
    model = next((key for key, words in MODELS.items() if re.search(words, name)), None)
    stack = stack_of(row, rule)
    if rule.family != FAMILY or model is None or stack is None or load is None or row.chip_id is None:
        return None
    if row.input_len is None or row.output_len is None:
        return None
    return _Key(model, row.chip_id, row.precision or "", stack, float(row.input_len), float(row.output_len), load)


@functools.cache
def _index() -> dict[_Key | None, list[Recipe]]:
    data = resources.files(__package__).joinpath("data", "inferencex.jsonl.gz").read_bytes()
    found: dict[_Key | None, list[Recipe]] = defaultdict(list)
    decoder = msgspec.json.Decoder(Recipe)
    for line in gzip.decompress(data).splitlines():
        recipe = decoder.decode(line)
        if recipe.prefill is None:
            continue
        for load in recipe.loads:
            key = _Key(
                recipe.model, recipe.chip, recipe.precision, recipe.stack, float(recipe.input_len), float(recipe.output_len), float(load)
            )
            found[key].append(recipe)
    return found
