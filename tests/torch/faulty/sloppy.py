"""A stack with one fault, written into each script: its detail names an op and what becomes of it."""

from __future__ import annotations

from sapper.backends.base import Backend, Missing
from sapper.prove.repro.recipes import Given, Recipe

FAULTS = {
    "scaled": "out * 1.01",
    "nan": "torch.utils._pytree.tree_map(lambda one: one * float('nan'), out)",
    "large": "out + 1.0 * (args[0].abs().max() > 100)",
    "no-infinity": "torch.where(out.isinf(), float('nan'), out)",
    "wide": "out * (1.01 if args[0].shape[-1] % 8 else 1)",
    "raises": "(_ for _ in ()).throw(RuntimeError('no kernel'))",
    "dies": "__import__('os').kill(__import__('os').getpid(), 11)",
    "hangs": "__import__('time').sleep(1000)",
    "noisy": "out + out * __import__('random').random()",
    "cached": "CACHE.setdefault((str(func), out.shape), out)",
}



class Sloppy(Backend):
    kind = "device"
    real = False

    def __init__(self, detail):
        self.name = f"sloppy:{detail}"
        self.op, self.fault = detail.split("=")

    def missing(self) -> Missing | None:
        return None

    def versions(self) -> dict[str, str]:
        return {}

    def prepare(self, computation):
        raise AssertionError("only its scripts run")

    def recipe(self) -> Recipe:
        lines = (
            "class Sloppy(torch.utils._python_dispatch.TorchDispatchMode):",
            "    def __torch_dispatch__(self, func, types, args=(), kwargs=None):",
            "        out = func(*args, **(kwargs or {}))",
            f"        return {FAULTS[self.fault]} if func is torch.ops.aten.{self.op} else out",
            "def on_sloppy(*inputs):",
            "    with Sloppy(): return f(*inputs)",
        )


        def setup(given: Given) -> tuple[str, ...]:
            cache = ("CACHE = globals().setdefault('CACHE', {})",) if self.fault == "cached" else ()
            return (*cache, *lines[:-1], lines[-1].replace("f(", f"{given.function}("))

        return Recipe(setup=setup, callee=lambda function: "on_sloppy")


def open(detail: str | None = None) -> Sloppy:
    return Sloppy(detail)
