"""The search over plans for unlike chips.

A *column* is one copy of a pipeline: which groups its stages are on, their tensor degrees, and the exact cut of the layers
(:mod:`~sapper.mix.search.cuts`, :mod:`~sapper.mix.search.runs`). A plan is how many copies of which columns run how many micro-batches
(:mod:`~sapper.mix.search.fleet`); shapes of all groups are chosen together (:mod:`~sapper.mix.search.blends`), and small problems are
searched whole (:mod:`~sapper.mix.search.exact`). :mod:`~sapper.mix.search.bound` proves how much better any plan could be.
"""

from __future__ import annotations

from sapper.mix.search.planner import search

__all__ = ["search"]
