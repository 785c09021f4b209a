"""Assess: one question put to many chips, answered side by side with the evidence."""

from __future__ import annotations

from sapper.assess.assessment import Assessment, Option
from sapper.assess.question import Question
from sapper.assess.serve import ServeAsked
from sapper.assess.serving import ServeOption, Serving
from sapper.assess.train import assess_train

__all__ = ["Assessment", "Option", "Question", "ServeAsked", "ServeOption", "Serving", "assess_train"]
