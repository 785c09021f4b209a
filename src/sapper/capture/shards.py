"""How tensor parallelism cuts a captured program: known only where the module says it, as Transformers models do.

Their plan names the style of each weight (``colwise``, ``rowwise``, ...). What lies between is followed through the data:
the result of a column-cut product is cut, whatever reads it works on its part, and a row-cut product makes it whole
again (Shoeybi et al., arXiv:1909.08053, section 3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sapper.capture.fuse import Kernel
from sapper.workloads.op import Kind, Shard


@dataclass(frozen=True)
class Cut:
    """How one kernel and what it keeps are cut."""

    shard: Shard = "replicated"
    saved: Shard = "replicated"
    reduces: bool = False


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\*", r"\d+") + r"(\.weight|\.bias)?$")


class Cuts:
    """Follows cut tensors through the kernels of one trace, in order."""

    def __init__(self, plan: Mapping[str, str] | None) -> None:
        """Args:
        plan: Weight or module name with ``*`` for numbers -> style; None where nothing is known.
        """
        self.known = bool(plan)
        self._styles = [(_pattern(name), style) for name, style in (plan or {}).items()]
        self._cut: set[int] = set()

    def style(self, weight: str) -> str | None:
        """``column``, ``row`` or ``vocab`` of a weight; None where the plan leaves it whole."""
        for pattern, style in self._styles:
            if pattern.match(weight):
                if "embedding" in style:
                    return "vocab"
                return "row" if "rowwise" in style else "column" if "colwise" in style else None
        return None

    def of(self, kernel: Kernel, kind: Kind) -> Cut:
        """How ``kernel`` is cut; to be asked in order."""
        if not self.known:
            return Cut()
        cut = self._decide(kernel, kind)
        if cut.shard in ("column", "heads", "vocab") and not cut.reduces:
            self._cut |= kernel.storages
        else:
            self._cut -= kernel.storages
        return cut

    def _decide(self, kernel: Kernel, kind: Kind) -> Cut:
        styles = [style for node in kernel.nodes for value in node.reads if value.param and (style := self.style(value.param))]
        reads_cut = bool(kernel.read & self._cut)
        if kind == "embedding" and styles:
            return Cut("vocab", "sequence", True)
        if kind in ("matmul", "router", "conv") and styles:
            if styles[0] == "row":
                return Cut("row", "row", True)
            return Cut("vocab" if not kernel.unit else "column", "sequence")
        if reads_cut:
            return Cut("vocab", "vocab") if kind == "loss" else Cut("heads", "heads")
        if kind in ("norm", "elementwise", "dispatch"):
            return Cut("sequence", "sequence")
        return Cut("replicated", "sequence" if kind == "matmul" else "replicated")
