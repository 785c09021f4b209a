"""Records: constants of the serving book that somebody measured apart from any row, as observations of the fit."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources

import msgspec

from sapper.predict.fit import Observation
from sapper.predict.serve.stacks import attention_level, ported
from sapper.predict.serve.subject import YEAR


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry of ``data/serve_records.toml``."""

    constant: str
    value: float
    sd: float
    stack: str
    vendor: str
    chip: str
    year: float
    source: str
    date: str
    why: str


@dataclass(frozen=True)
class RecordSubject:
    """A stack on a chip."""

    stack: str
    vendor: str
    year: float
    """Of the stack's release."""
    chip: str
    """Catalogue id."""

    def effects(self) -> dict[str, str]:
        """Effect family -> level; of those that bear on kernels of attention, which is what records are of."""
        found = {
            "stack_reread": self.stack, "vendor_reread": attention_level(self.vendor, self.stack, year=self.year), "chip_thin": self.chip,
        }
        return found | {"port_thin": f"{self.chip}/{self.stack}"} if ported(self.stack, self.vendor) else found

    def as_own(self) -> RecordSubject:
        """A record says where it was measured by itself."""
        return self

    def offsets(self) -> dict[str, float]:
        """Nothing is known beforehand."""
        return {}

    def covariates(self) -> dict[str, float]:
        """Values of the slopes."""
        return {"year": self.year - YEAR, "year_host": self.year - YEAR, "generation": 0.0}


def records(chips: Collection[str]) -> list[Observation]:
    """Those of ``chips`` (catalogue ids): a fit that is to answer for a chip unseen takes no measurement of it, of a kernel either."""
    return [one for one in _shipped() if isinstance(one.subject, RecordSubject) and one.subject.chip in chips]


@functools.cache
def _shipped() -> tuple[Observation, ...]:
    text = resources.files("sapper.predict").joinpath("data", "serve_records.toml").read_text("utf-8")
    found = msgspec.convert(tomllib.loads(text)["record"], dict[str, _Record])
    return tuple(
        Observation(RecordSubject(one.stack, one.vendor, one.year, one.chip), one.constant, one.value, one.sd) for one in found.values()
    )
