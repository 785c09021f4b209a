"""ONNX Runtime: the computation through PyTorch's exporter into an ONNX model, then through a session.

Options: ``noopt``, ``basic``, ``extended`` set the level of graph optimisations (all by default); ``cuda``, ``tensorrt``, ``rocm``,
``cann``, ``coreml``, ``openvino``, ``qnn``, ``dml`` choose an execution provider, which falls back to the CPU for the nodes that
it does not take: those are reported as fallbacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sapper import messages
from sapper.backends.base import Executable, Executed, Missing, Unsupported
from sapper.backends.compiler import Compiler, program_of, quiet

if TYPE_CHECKING:
    from sapper.backends.computation import Computation

CPU = "CPUExecutionProvider"
PROVIDERS = {
    "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider", "rocm": "ROCMExecutionProvider",
    "cann": "CANNExecutionProvider", "coreml": "CoreMLExecutionProvider", "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider", "dml": "DmlExecutionProvider",
}  # fmt: skip
LEVELS = {"noopt": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "extended": "ORT_ENABLE_EXTENDED"}
AS_BITS = {"torch.bfloat16": ("int16", 16), "torch.float8_e4m3fn": ("uint8", 17), "torch.float8_e5m2": ("uint8", 19)}
"""Dtypes that NumPy lacks: how to view their bits, and ``onnx.TensorProto``'s number."""


class OnnxRuntime(Compiler):
    """PyTorch's ONNX exporter and ONNX Runtime, as one stack."""

    stack = "onnxruntime"
    pinned = ("torch==2.13.0", "onnxruntime==1.32.0", "onnx", "onnxscript")
    known_options = frozenset({*PROVIDERS, *LEVELS})

    def missing(self) -> Missing | None:
        lacks = super().missing()
        if lacks or not self._provider:
            return lacks
        import onnxruntime

        known = onnxruntime.get_available_providers()
        if self._provider in known:
            return None
        return Missing(problem=messages.text("doctor.missing.provider", provider=self._provider, known=", ".join(known)))

    def exported(self, computation: Computation) -> Any:
        """The ``onnx.ModelProto`` that the exporter writes, which ``onnx.reference`` can evaluate: its evidence against the runtime.

        Raises:
            Unsupported: The exporter has no translation of an op.
        """
        import torch

        program = program_of(computation)
        try:
            with quiet():
                made = torch.onnx.export(program, dynamo=True, verbose=False)
        except torch.onnx.OnnxExporterError as error:
            raise _refusal(error) from error
        return made.model_proto

    def prepare(self, computation: Computation) -> Executable:
        return self.session(self.exported(computation), computation)

    def session(self, model: Any, computation: Computation) -> Executable:
        """A session for a model that :meth:`exported` gave."""
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as states

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        for word in self.options & set(LEVELS):
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[word])
        providers = [self._provider, CPU] if self._provider else [CPU]
        try:
            session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers)
        except states.NotImplemented as error:
            raise Unsupported(_first_line(error)) from error
        return _Session(session, computation, providers[0])

    @property
    def _provider(self) -> str | None:
        return next((PROVIDERS[word] for word in sorted(self.options & set(PROVIDERS))), None)


def _refusal(error: BaseException) -> BaseException:
    """:class:`Unsupported` where the exporter has no translation; its own error where it has one that fails."""
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ == "DispatchError":
            return Unsupported(_first_line(cause))
        cause = cause.__cause__
    return error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class _Session:
    def __init__(self, session: Any, computation: Computation, provider: str) -> None:
        self._session = session
        self._complex = [one.dtype.is_complex for one in computation()]
        self._provider = provider
        self._ran = False

    def __call__(self, tensors: Sequence[Any]) -> list[Any]:
        from onnxruntime.capi import onnxruntime_pybind11_state as states

        import torch

        names = [one.name for one in self._session.get_inputs()]
        feeds = {name: _value(one) for name, one in zip(names, tensors, strict=True)}
        try:
            values = self._session.run_with_ort_values(None, feeds)
        except states.NotImplemented as error:
            raise Unsupported(_first_line(error)) from error
        self._ran = True
        outputs = [_taken(one) for one in values]
        return [torch.view_as_complex(one) if pair else one for one, pair in zip(outputs, self._complex, strict=True)]

    def executed(self) -> Executed | None:
        if not self._ran:
            return None
        nodes: dict[str, list[str]] = {}
        for part in self._session.get_provider_graph_assignment_info():
            nodes.setdefault(part.ep_name, []).extend(node.op_type for node in part.get_nodes())
        elsewhere = [op for name, ops in nodes.items() if name != self._provider for op in ops]
        partitions = ", ".join(f"{name}: {len(ops)}" for name, ops in nodes.items())
        return Executed(
            where=self._provider, ops=sum(map(len, nodes.values())), fallbacks=tuple(dict.fromkeys(elsewhere)),
            facts={"providers": ", ".join(self._session.get_providers()), "nodes": partitions},
        )


def _taken(value: Any) -> Any:
    """PyTorch's tensor; the releases of ONNX Runtime that hand booleans over as bytes mark them."""
    import torch

    found = torch.from_dlpack(value).clone()
    return found.view(torch.bool) if value.data_type() == "tensor(bool)" else found


def _value(tensor: Any) -> Any:
    import onnxruntime

    import torch

    plain = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    plain = plain.detach().resolve_neg().contiguous()
    if str(plain.dtype) in AS_BITS:
        view, number = AS_BITS[str(plain.dtype)]
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(plain.view(getattr(torch, view)).numpy(), number)
    return onnxruntime.OrtValue.ortvalue_from_numpy(plain.numpy())


def open(detail: str | None = None) -> OnnxRuntime:
    """ONNX Runtime with the options of ``detail``."""
    return OnnxRuntime(detail)
