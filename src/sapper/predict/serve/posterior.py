"""The serving posterior: constants as fitted, and the model of power."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from typing import Any

import numpy as np

from sapper.predict.fit import Fitted
from sapper.predict.serve.power import PRIOR, Draw
from sapper.predict.serve.subject import STACK_PARTS, serve_book

UNTOUCHED = 0.95
"""Posterior over prior variance of an effect from which on the measurements have said nothing of it."""
SHIPPED = "serve_fitted.json.gz"


@dataclass(frozen=True)
class Posterior:
    """What a fit of serving cases leaves."""

    fitted: Fitted
    draw: Draw = field(default_factory=Draw)
    """Power over TDP."""

    def freeze(self) -> dict[str, object]:
        """As JSON data, without the book."""
        return {"fitted": slim(self.fitted).freeze(), "draw": [round(w, 4) for w in self.draw.weights]}

    @classmethod
    def thaw(cls, raw: Mapping[str, Any]) -> Posterior:
        """What :meth:`freeze` made."""
        return cls(fitted=Fitted.thaw(raw["fitted"], serve_book()), draw=Draw(tuple(raw.get("draw", PRIOR))))


def slim(fitted: Fitted) -> Fitted:
    """``fitted`` without the effects that no measurement has touched: they count as unseen levels, whose prior is the same."""
    _, deviation = fitted.book.prior_of(fitted.columns)
    known = np.diag(fitted.covariance) < UNTOUCHED * deviation**2
    kept = [i for i, name in enumerate(fitted.columns) if known[i] or ":" not in name]
    return replace(
        fitted, columns=tuple(fitted.columns[i] for i in kept), mean=fitted.mean[kept], covariance=fitted.covariance[np.ix_(kept, kept)]
    )


def prior_posterior() -> Posterior:
    """The serving book before any measurement."""
    found = serve_book()
    columns = (*found.constants, *found.slope)
    mean, deviation = found.prior_of(columns)
    fitted = Fitted(book=found, columns=columns, mean=mean, covariance=np.diag(deviation**2), noise_sd=0.1, widen=1.0, rows=0, chips=())
    return Posterior(fitted=fitted)


@functools.cache
def shipped_posterior() -> Posterior:
    """The posterior that ships (data/serve_fitted.json.gz, written by scripts/fit_priors.py)."""
    path = resources.files("sapper.predict").joinpath("data", SHIPPED)
    if not path.is_file():
        return prior_posterior()
    return Posterior.thaw(json.loads(gzip.decompress(path.read_bytes())))


def shipped_serve_fit() -> Fitted:
    """The constants of :func:`shipped_posterior`."""
    return shipped_posterior().fitted


@functools.cache
def measured_stacks() -> tuple[str, ...]:
    """The inference engines of which measurements have told something, by name."""
    families = {"stack", *(f"stack_{part}" for part in STACK_PARTS)}
    effects = (name.partition(":") for name in shipped_serve_fit().columns)
    return tuple(sorted({level for family, _, level in effects if level and family in families}))
