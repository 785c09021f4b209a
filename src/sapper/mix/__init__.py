"""Mix: one job over unlike chips, planned (plan, problem, objective, search) and run (order, run).

The nouns are in :mod:`sapper.mix.plan`: a plan is a set of pipelines, a pipeline a chain of stages, a stage a range of the model's
layers on chips of one group. Nothing here imports PyTorch except ``run`` and what lies under it.
"""

from __future__ import annotations
