"""Profiles: measured times of a model's layers on one chip, in our own format and in those that the field's planners publish.

A :class:`Profile` is one model on one chip; :func:`problem_of` makes the planner's problem of one profile for each group of a
cluster. ``sapper.mix.profiles.read`` knows the formats.
"""

from __future__ import annotations

from sapper.mix.profiles.problem import problem_of
from sapper.mix.profiles.profile import FORMAT, HeldBytes, LayerCost, Profile, Timed, read_own, write_own
from sapper.mix.profiles.read import FORMATS, read_profiles

__all__ = ["FORMAT", "FORMATS", "HeldBytes", "LayerCost", "Profile", "Timed", "problem_of", "read_own", "read_profiles", "write_own"]
