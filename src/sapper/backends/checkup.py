"""What a check of one stack found: whether it computes, in which versions, and how precisely. Read and written without PyTorch."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["passed", "wrong", "failed", "crash", "hang", "missing"]
"""``wrong``: it computed something else; ``failed``: it raised; ``crash``: its process died; ``hang``: it gave no answer in time."""

NOMINAL_BITS = {"fp32": 24, "bf16": 8, "fp16": 11}
"""Significant bits of a dtype, the leading one included."""
ACCUMULATOR_BITS = 20
"""From here on an accumulator counts as wide: fp32 has 24, and the order of a sum costs some."""
SLACK_BITS = {"matmul": 1, "conv": 1, "multiply": 0, "exp": 4, "gelu": 8, "layer_norm": 4, "softmax": 4}
"""Bits below the dtype's that a healthy kernel may lose. What only moves bits loses none; PyTorch's own vectorised GELU loses eight."""
FORMATS = ((4, "fp8"), (9, "bf16"), (13, "tf32"))
"""Up to so many bits a result of fp32 looks like one of this format; tf32 and fp16 have equally many."""


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """How precisely one family of ops works in one dtype, as measured."""

    family: str
    """``matmul``, ``conv``, ``multiply``, ``exp``, ``gelu``, ``sum``, ``layer_norm`` or ``softmax``."""
    dtype: str
    bits: int | None = None
    """Significant bits of the inputs that reach the result, or to which nine of ten results are right."""
    accumulator_bits: int | None = None
    """Significant bits of the running sum; where ``accumulator_capped``, at least so many."""
    accumulator_capped: bool = False

    def downgrade(self) -> str | None:
        """The format that it really runs in; None where that is the dtype's own."""
        nominal = NOMINAL_BITS[self.dtype]
        if self.bits is not None and self.bits < nominal - SLACK_BITS.get(self.family, 0):
            return next((name for most, name in FORMATS if self.bits <= most < nominal), f"{self.bits} bits")
        return None

    def narrow(self) -> bool:
        """Whether the running sum is narrower than fp32."""
        return self.accumulator_bits is not None and self.accumulator_bits < ACCUMULATOR_BITS and not self.accumulator_capped


class Precision(msgspec.Struct, frozen=True, kw_only=True):
    """A stack's effective precision."""

    families: tuple[Family, ...] = ()
    subnormals: dict[str, str] = {}
    """``fp16 matmul`` -> ``kept`` or ``flushed``."""
    hides_nan: tuple[str, ...] = ()
    """Functions that give a number where PyTorch gives NaN, or NaN where ``where`` did not choose it, as ``fp32 relu``."""
    rounding: dict[str, str] = {}
    """Of a cast from fp32: ``bf16`` -> ``nearest-even``, ``nearest-away``, ``toward-zero`` or ``other``."""
    overflow: dict[str, str] = {}
    """Of a cast from fp32: ``fp16`` -> ``infinity`` or ``saturates``."""
    unmeasured: dict[str, str] = {}
    """``bf16 conv`` -> what the stack said when it was asked."""

    def downgrades(self) -> list[tuple[Family, str]]:
        """Families that run in a lower precision than they are asked to."""
        return [(one, found) for one in self.families if (found := one.downgrade())]

    def narrow(self) -> list[Family]:
        """Families whose running sum is narrower than fp32."""
        return [one for one in self.families if one.narrow()]


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """What the check of one stack found."""

    name: str
    state: State
    problem: str | None = None
    """What is missing or went wrong, in the stack's own words where it has some."""
    remedy: str | None = None
    """The command that mends it."""
    versions: dict[str, str] = {}
    where: str | None = None
    """Device and provider by the stack's own evidence."""
    ops: int | None = None
    fallbacks: tuple[str, ...] = ()
    facts: dict[str, str] = {}
    precision: Precision | None = None
    tried: str | None = None
    """The hardware that Sapper's authors ran this stack on; None: never on a real device."""
    wall_s: float | None = None

    def findings(self) -> int:
        """How many things are wrong with a stack that is there."""
        if self.state == "missing":
            return 0
        count = int(self.state != "passed") + len(self.fallbacks) + int(self.state == "passed" and self.where is None)
        if self.precision is not None:
            count += len(self.precision.downgrades()) + len(self.precision.narrow()) + len(self.precision.hides_nan)
        return count
