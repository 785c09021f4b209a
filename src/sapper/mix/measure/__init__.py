"""Measure: times and memory of each kind of layer of a model on this device, as the planner reads them.

What is measured is the runtime's own stage (:class:`sapper.mix.run.stage.Stage`), so that a profile and a run differ in nothing but luck.
"""

from __future__ import annotations

from sapper.mix.measure.profile import Question, measure

__all__ = ["Question", "measure"]
