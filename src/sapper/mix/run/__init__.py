"""The runtime: one training job over unlike chips, each process with its seat of a :class:`~sapper.mix.plan.MixPlan`.

A process builds its stage of the model (:mod:`~sapper.mix.run.split`), follows the order of work of its seat
(:mod:`~sapper.mix.run.executor`), and commits a step by the optimizer once all gradients are summed (:mod:`~sapper.mix.run.runner`).
"""

from __future__ import annotations
