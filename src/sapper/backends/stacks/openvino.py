"""OpenVINO: the exported program through its PyTorch frontend, or (``onnx``, and always with gradients) through an ONNX model.

The PyTorch frontend takes no op with several outputs inside a graph, such as the layer norm that a backward pass needs.

Options: ``f32``, ``bf16``, ``f16`` give a precision hint (none by default: OpenVINO then chooses, and on CPUs with bf16
instructions runs fp32 models in bf16; where it cannot honour a hint it ignores it, so see what the evidence says); ``gpu``,
``npu``, ``auto`` choose a device.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sapper import messages
from sapper.backends.base import Executable, Executed, Missing, Unsupported
from sapper.backends.compiler import Compiler, has_gradients, program_of, quiet

if TYPE_CHECKING:
    from sapper.backends.computation import Computation

HINTS = frozenset({"f32", "bf16", "f16"})
DEVICES = {"gpu": "GPU", "npu": "NPU", "auto": "AUTO"}
NO_NUMPY = {"torch.bfloat16": "bf16", "torch.float8_e4m3fn": "f8e4m3", "torch.float8_e5m2": "f8e5m2"}
"""Dtypes that NumPy lacks -> ``openvino.Type``."""


class OpenVino(Compiler):
    """OpenVINO's converter and one of its device plugins."""

    stack = "openvino"
    pinned = ("torch==2.13.0", "openvino==2026.4.1", "packaging", "onnx", "onnxscript")
    known_options = frozenset({*HINTS, *DEVICES, "onnx"})

    def missing(self) -> Missing | None:
        lacks = super().missing()
        if lacks or self._device in ("CPU", "AUTO"):
            return lacks
        import openvino

        known = openvino.Core().available_devices
        if self._device in known:
            return None
        return Missing(problem=messages.text("doctor.missing.provider", provider=self._device, known=", ".join(known)))

    def prepare(self, computation: Computation) -> Executable:
        import openvino

        frontend = "onnx" if "onnx" in self.options or has_gradients(computation) else "pytorch"
        names: list[str] | None = None
        with quiet():
            try:
                if frontend == "onnx":
                    model, names = _through_onnx(computation)
                else:
                    model, names = converted(computation)
            except Exception as error:
                if "No conversion rule found" in str(error):
                    raise Unsupported(_rules_lacking(error)) from error
                raise
            hints = {"INFERENCE_PRECISION_HINT": self._hint} if self._hint else {}
            return _Compiled(openvino.Core().compile_model(model, self._device, hints), computation, frontend, names)

    @property
    def _hint(self) -> str | None:
        return min(self.options & HINTS, default=None)

    @property
    def _device(self) -> str:
        return next((DEVICES[word] for word in sorted(self.options & set(DEVICES))), "CPU")


def converted(computation: Computation) -> tuple[Any, list[str]]:
    """The model of the PyTorch frontend and the names of the program's inputs, of which it drops some that nothing reads.

    With the shapes of its inputs: left unknown, convolutions with weights as inputs are refused.
    """
    import openvino

    program = program_of(computation)
    names = [str(one) for one in program.graph_signature.user_inputs]
    shapes = {name: list(one.shape) for name, one in zip(names, computation.tensors, strict=True)}
    model = openvino.convert_model(program)
    if model.inputs:
        model.reshape({port: shapes[port.get_any_name()] for port in model.inputs})
    return model, names


def _through_onnx(computation: Computation) -> tuple[Any, list[str]]:
    """The model, and the names of the inputs as the graph that it was read from has them."""
    import openvino

    from sapper.backends.stacks.onnxruntime import OnnxRuntime

    graph = OnnxRuntime().exported(computation)
    return openvino.Core().read_model(io.BytesIO(graph.SerializeToString())), [one.name for one in graph.graph.input]


def _rules_lacking(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line.startswith(("No conversion rule", "aten", "-", "prims")))[:300]


class _Compiled:
    def __init__(self, model: Any, computation: Computation, frontend: str, names: list[str] | None) -> None:
        self._model = model
        self._names = names
        self._frontend = frontend
        self._dtypes = [one.dtype for one in computation()]
        self._ran = False

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        import torch

        found = self._model(self._given(tensors))
        self._ran = True
        outputs = []
        for port, dtype in zip(self._model.outputs, self._dtypes, strict=True):
            array = found[port]
            if port.get_element_type().get_type_name() in NO_NUMPY.values():
                bits = torch.uint8 if array.dtype.itemsize == 1 else torch.int16
                outputs.append(torch.from_numpy(array.view(str(bits).removeprefix("torch.")).copy()).view(dtype))
            else:
                outputs.append(torch.from_numpy(array.copy()))
        return outputs

    def _given(self, tensors: Sequence[Any]) -> Any:
        if self._names is None:
            return [_value(one) for one in tensors]
        read = {name for port in self._model.inputs for name in port.get_names()}  # one that nothing reads is dropped
        return {name: _value(one) for name, one in zip(self._names, tensors, strict=True) if name in read}

    def executed(self) -> Executed | None:
        if not self._ran:
            return None
        kinds: dict[str, int] = {}
        precisions: dict[str, int] = {}
        for op in self._model.get_runtime_model().get_ops():
            info = {key: str(value.value if hasattr(value, "value") else value) for key, value in op.get_rt_info().items()}
            kind = info.get("layerType", "")
            if kind and kind not in ("Input", "Output", "Const"):
                kinds[kind] = kinds.get(kind, 0) + 1
                precisions[info.get("runtimePrecision", "?")] = precisions.get(info.get("runtimePrecision", "?"), 0) + 1
        hint = self._model.get_property("INFERENCE_PRECISION_HINT")
        facts = {
            "frontend": self._frontend, "inference precision": hint.get_type_name(), "node precisions": _counts(precisions),
            "nodes": _counts(kinds),
        }  # fmt: skip
        return Executed(where=", ".join(self._model.get_property("EXECUTION_DEVICES")), ops=sum(kinds.values()), facts=facts)


def _counts(found: dict[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(found.items()))


def _value(tensor: Any) -> Any:
    import openvino

    import torch

    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    kind = NO_NUMPY.get(str(plain.dtype))
    if kind is None:
        return openvino.Tensor(plain.numpy())
    bits = torch.uint8 if plain.dtype.itemsize == 1 else torch.int16
    carrier = plain.view(bits).numpy().view("uint8" if plain.dtype.itemsize == 1 else "float16")
    return openvino.Tensor(carrier, openvino.Shape(list(plain.shape)), getattr(openvino.Type, kind))


def open(detail: str | None = None) -> OpenVino:
    """OpenVINO with the options of ``detail``."""
    return OpenVino(detail)
