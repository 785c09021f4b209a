"""tinygrad: PyTorch's exporter writes an ONNX model, tinygrad's own ONNX frontend runs it on one of its devices.

The option is the name of a device of tinygrad in small letters, ``cpu`` by default.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sapper import messages
from sapper.backends.base import Executable, Executed, Missing, Unsupported
from sapper.backends.compiler import Compiler

if TYPE_CHECKING:
    from sapper.backends.computation import Computation

DEVICES = frozenset({"cpu", "cuda", "nv", "amd", "qcom", "metal", "webgpu", "cl"})


class Tinygrad(Compiler):
    """PyTorch's ONNX exporter and tinygrad, as one stack."""

    stack = "tinygrad"
    pinned = ("torch==2.13.0", "tinygrad==0.14.0", "onnx", "onnxscript")
    known_options = DEVICES

    def missing(self) -> Missing | None:
        import shutil

        lacks = super().missing()
        if lacks or self._device != "CPU" or shutil.which("clang"):
            return lacks
        return Missing(problem=messages.text("doctor.missing.program", program="clang"), remedy="apt-get install clang")

    def prepare(self, computation: Computation) -> Executable:
        from sapper.backends.stacks.onnxruntime import OnnxRuntime

        model = OnnxRuntime().exported(computation)
        os.environ["DEV"] = self._device  # read when tinygrad is imported
        from tinygrad.nn.onnx import OnnxRunner

        with tempfile.TemporaryDirectory(prefix="sapper-tinygrad-") as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(model.SerializeToString())
            runner = OnnxRunner(path)
        return _Runner(runner, [one.dtype for one in computation()], self._device)

    @property
    def _device(self) -> str:
        return min(self.options, default="cpu").upper()


class _Runner:
    def __init__(self, runner: Any, dtypes: Sequence[Any], device: str) -> None:
        self._runner = runner
        self._dtypes = dtypes
        self._device = device
        self._kernels: int | None = None

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        from tinygrad.helpers import GlobalCounters

        before = GlobalCounters.kernel_count
        names = list(self._runner.graph_inputs)
        try:
            found = self._runner({name: _given(one) for name, one in zip(names, tensors, strict=True)})
        except NotImplementedError as error:
            raise Unsupported(str(error)[:300]) from error
        outputs = [_taken(found[name], dtype) for name, dtype in zip(self._runner.graph_outputs, self._dtypes, strict=True)]
        self._kernels = GlobalCounters.kernel_count - before
        return outputs

    def executed(self) -> Executed | None:
        if self._kernels is None:
            return None
        return Executed(where=self._device, ops=self._kernels)


def _given(tensor: Any) -> Any:
    """Tinygrad's tensor; bf16 through fp32, which holds it exactly."""
    from tinygrad import Tensor, dtypes

    import torch

    plain = tensor.detach().contiguous()
    if plain.dtype == torch.bfloat16:
        return Tensor(plain.float().numpy()).cast(dtypes.bfloat16).realize()
    return Tensor(plain.numpy()).realize()


def _taken(value: Any, dtype: Any) -> Any:
    """PyTorch's tensor; a dtype other than the one that was to come is kept, since it is a result too."""
    from tinygrad import dtypes

    import torch

    if value.dtype == dtypes.bfloat16:
        return torch.from_numpy(value.cast(dtypes.float32).numpy().copy()).to(torch.bfloat16)
    return torch.from_numpy(value.numpy().copy())


def open(detail: str | None = None) -> Tinygrad:
    """Tinygrad on the device of ``detail``."""
    return Tinygrad(detail)
