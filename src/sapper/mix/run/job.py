"""What is trained, on what and for how long: everything of a job but how it is cut, which its plan says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sapper.mix.plan import MixPlan
from sapper.mix.run.data import Data
from sapper.mix.run.models import Model
from sapper.mix.run.rates import Rates

Optimizer = Literal["adamw", "sgd"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A training job. Two jobs that differ in nothing but their plans train the same model on the same samples."""

    plan: MixPlan
    model: Model
    data: Data
    steps: int
    seed: int = 0
    """Of weights and dropout."""
    optimizer: Optimizer = "adamw"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    momentum: float = 0.9
    """Of SGD."""
    rates: Rates = field(default_factory=Rates)
    """How the step size changes."""
    clip: float | None = None
    """Longest gradient (the norm over all weights); None: as it comes."""
    replan: float | None = None
    """Change the split when another one saves more than this share of a step by the measured times; None: keep the plan's."""
    dtypes: Mapping[str, str] = field(default_factory=dict)
    """Group -> working dtype, where it is not the plan's precision."""
    device: str = "cpu"

    @property
    def scaled(self) -> bool:
        """Whether any group computes in fp16, so that losses are scaled."""
        return "fp16" in {self.dtype_of(group) for group in self.plan.chips}

    def dtype_of(self, group: str) -> str:
        """The working dtype of a group."""
        return self.dtypes.get(group, self.plan.precision)
