"""Speculative decoding: a draft proposes tokens, the model checks them all in one iteration."""

from __future__ import annotations

import math

import msgspec

from sapper.errors import BadValue

MOST_DRAFTED = 64


class Speculation(msgspec.Struct, frozen=True, kw_only=True):
    """What a draft gains and what it costs (Leviathan et al., arXiv:2211.17192)."""

    draft: int
    """Tokens that the draft proposes for each iteration (gamma of the paper)."""
    accept_share: float
    """Chance that a proposed token is accepted (alpha), taken to be independent from token to token as in the paper's section 3.1."""
    cost_ratio: float
    """Time of one pass of the draft over one decoding iteration of the model (c of the paper's section 3.3)."""

    @property
    def tokens_per_iteration(self) -> float:
        """Expected new tokens of a request in an iteration: (1 - alpha^(gamma+1)) / (1 - alpha), the paper's equation 1."""
        if self.accept_share == 1.0:
            return self.draft + 1.0
        return float((1.0 - self.accept_share ** (self.draft + 1)) / (1.0 - self.accept_share))

    @property
    def rows(self) -> int:
        """New tokens that the model computes for each decoding request and iteration, accepted or not."""
        return self.draft + 1

    @property
    def slowdown(self) -> float:
        """What the draft's passes multiply a decoding iteration's time by."""
        return 1.0 + self.draft * self.cost_ratio


def head_cost_ratio(*, layers: int, layer_params: float, head_params: float, active_params: float) -> float:
    """Cost of a draft that is one layer of the model with its head (EAGLE, arXiv:2401.15077; multi-token prediction, DeepSeek-V3,
    arXiv:2412.19437, section 2.2), as its share of the parameters that a token touches."""
    if layers < 1 or active_params <= 0:
        return 1.0
    return min(1.0, (layer_params + head_params) / active_params)


def parse_speculation(text: str, *, head_cost: float, where: str) -> Speculation:
    """Read ``draft=4,accept=0.7[,cost=0.05]``; without a cost the draft is taken to be a head of one layer, ``head_cost``.

    Raises:
        BadValue: A part that is missing, unknown or cannot be meant.
    """
    given: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key, sign, value = (piece.strip() for piece in part.partition("="))
        try:
            number = float(value) if sign else math.nan
        except ValueError:
            number = math.nan
        if key not in ("draft", "accept", "cost") or not math.isfinite(number):
            raise BadValue("SP-SERVE-040", where=where, text=part)
        given[key] = number
    if "draft" not in given or "accept" not in given:
        raise BadValue("SP-SERVE-040", where=where, text=text)
    draft, accept, cost = given["draft"], given["accept"], given.get("cost", head_cost)
    if draft != int(draft) or not 1 <= draft <= MOST_DRAFTED or not 0 <= accept <= 1 or not 0 <= cost <= 1:
        raise BadValue("SP-SERVE-041", where=where, text=text, most=MOST_DRAFTED)
    return Speculation(draft=int(draft), accept_share=accept, cost_ratio=cost)
