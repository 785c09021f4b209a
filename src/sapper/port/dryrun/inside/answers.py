"""What the vendor's stack would answer to a touch, and what the program gets: that answer, or the one that ported code would get."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sapper.port.dryrun.inside import journal
from sapper.port.dryrun.inside.frames import Where
from sapper.port.dryrun.session import Answer, Kind, Note, Outcome, current

STEERING = frozenset({
    "torch.cuda.is_available", "torch.cuda.device_count", "torch.cuda.is_initialized", "torch.cuda.is_bf16_supported",
    "torch.cuda.is_tf32_supported", "torch.cuda.get_arch_list", "torch.cuda.amp.GradScaler", "torch.cuda.amp.autocast",
    "torch.cuda.amp.common.amp_definitely_not_available", "torch.distributed.is_nccl_available", "torch.version.cuda",
    "torch.Tensor.is_cuda", "torch.cuda.default_generators", "torch.backends.cuda.is_built", "torch.backends.cudnn.is_available",
    "torch.backends.cudnn.version", "torch.cuda.nccl.is_available", "torch.cuda.get_gencode_flags", "torch.autocast",
    "torch.amp.GradScaler",
})  # fmt: skip
"""Names whose answer decides what the program does next; from others that raise nothing nothing is had."""
CARRYING = frozenset({"torch.set_default_device", "torch.Generator", "torch.get_device_module"})
"""Names that take a CUDA device without a word, and fail where it is used."""
HARMLESS = frozenset(
    {"torch.cuda.OutOfMemoryError", "torch.cuda.CudaError", "torch.cuda.DeferredCudaCallError", "torch.cuda.AcceleratorError"}
)
"""Names that are the same on every stack."""


_OFF = {"autocast": Note("autocast_off"), "GradScaler": Note("scaling_off")}
"""What PyTorch warns of when these are made for CUDA without there being any."""


@dataclass(frozen=True)
class Truth:
    """What PyTorch without CUDA did, when it was asked just now."""

    value: Any = None
    error: Exception | None = None

    @property
    def says(self) -> str | Note | None:
        """The error, or the answer where it is one, as text."""
        if self.error is not None:
            return f"{type(self.error).__name__}: {str(self.error).splitlines()[0][:200] if str(self.error) else ''}"
        if type(self.value).__name__ in _OFF:
            return _OFF[type(self.value).__name__]
        return None if self.value is None or not isinstance(self.value, (bool, int, float, str, list, dict)) else repr(self.value)[:80]

    def give(self) -> Any:
        """Return or raise it."""
        if self.error is not None:
            raise self.error
        return self.value


class _Shim:
    on = False


def shim_is_on() -> bool:
    """Whether the vendor's redirection is in force: asked for on the command line, or imported by the program."""
    return _Shim.on


def switch_on_shim() -> None:
    """The program has imported the shim, or the command line asks for it."""
    _Shim.on = True


def asked(real: Callable[[], Any]) -> Truth:
    """What PyTorch says, this one being without CUDA; entered and left where it is a context, since many fail only then."""
    try:
        with journal.asking(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = real()
            enter = getattr(type(value), "__enter__", None)
            if enter is not None and type(value).__module__.startswith("torch"):
                enter(value)
                type(value).__exit__(value, None, None, None)
    except Exception as error:
        return Truth(error=error)
    return Truth(value=value)


@functools.cache
def shim_answer(symbol: str) -> Answer:
    """What the shim makes of a name.

    Names below ``torch.cuda`` are answered by the tables; everything else that is watched here (devices, autocast, collectives)
    is what a shim is there for.
    """
    answers = current().stack.answers
    if symbol in answers:
        return answers[symbol]
    for pattern in sorted((one for one in answers if one.endswith("*")), key=len, reverse=True):
        if symbol.startswith(pattern[:-1]):
            return answers[pattern]
    return "unknown" if symbol.startswith(("torch.cuda.", "torch.version.", "torch.backends.", "torch.utils.")) else "shim"


def judge(symbol: str, truth: Truth | None, *, redirectable: bool) -> tuple[Outcome, str | Note | None]:
    """Outcome of a touch, and what the stack says."""
    stack = current().stack
    if symbol in HARMLESS:
        return "works", None
    if stack.as_cuda:
        return ("works", None) if redirectable else ("unknown", None)
    if shim_is_on():
        answer = shim_answer(symbol)
        if answer == "unknown":
            return "unknown", None
        if answer == "shim":
            return "shim", None
    if truth is None:
        return "unknown", None
    if truth.error is not None:
        return "fails", truth.says
    if symbol in CARRYING:
        return "carries", None
    return ("silent" if symbol in STEERING else "ignored"), truth.says


def respond(kind: Kind, symbol: str, *, where: Where, real: Callable[[], Any], instead: Callable[[], Any] | None) -> Any:
    """Record a touch and give the program its answer.

    Args:
        kind: What was touched.
        symbol: Its qualified name.
        where: The place.
        real: Asks PyTorch, which has no CUDA; may raise.
        instead: Does the same on the emulated chip; None where there is no such thing.
    """
    stack = current().stack
    truth = None if stack.as_cuda and instead is not None else asked(real)
    if journal.exempt(where):
        # A guard is answered truly; what is behind one that the program has passed all the same goes on.
        goes = instead is not None and (stack.as_cuda or not (symbol in STEERING or current().strict))
        return instead() if goes and instead is not None else (truth or asked(real)).give()
    outcome, says = judge(symbol, truth, redirectable=instead is not None)
    journal.JOURNAL.touch(kind, symbol, outcome=outcome, where=where, says=says)
    if instead is not None and goes_on(where, outcome):
        return instead()
    return (truth or asked(real)).give()


def goes_on(where: Where, outcome: Outcome) -> bool:
    """Whether the program gets the chip's answer in CUDA's place.

    Packages are answered truly, for they choose their own roads by it; only what would stop the program there is lifted.
    """
    if outcome in ("shim", "works"):
        return True
    if current().strict:
        return False
    return not where.package or outcome == "fails"
