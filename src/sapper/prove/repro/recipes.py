"""How a script runs a function on a stack, without Sapper: what to import, and the lines that make it ready and call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from sapper.backends import Backend

Options = frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One stack, as a script uses it."""

    imports: tuple[str, ...] = ()
    setup: Callable[[str, str], Sequence[str]]
    """Given the names of a function and of the list of its inputs: lines after which :attr:`callee` runs it on the stack."""
    callee: Callable[[str], str]
    """Given the function's name: the expression to call."""
    move: str = ""
    """What brings a tensor to the device, after its name."""
    back: str = ""
    """What brings the result to the CPU."""
    autograd: bool = True
    """Whether gradients may be taken of what :attr:`callee` names."""


def recipe_of(backend: Backend) -> Recipe | None:
    """The recipe of a backend: its own, if it has a method ``recipe``, or ours; None where it is out of reach without Sapper."""
    own = getattr(backend, "recipe", None)
    if own is not None:
        return cast(Recipe, own())
    name, _, detail = backend.name.partition(":")
    if name in _COMPILERS:
        return _COMPILERS[name](frozenset(detail.split("+")) - {""})
    if name == "papertiger":
        # The emulated chip is ours: no script could reach it otherwise.
        return _device((f"import sapper.backends; chip = sapper.backends.find({backend.name!r}).device()",), "chip")
    if backend.kind == "device":
        type_, index = getattr(backend, "type", name), getattr(backend, "index", "")
        modules = tuple(f"import {module}" for module in getattr(backend, "modules", ()))
        return _device(modules, repr(f"{type_}:{index}" if index else type_))
    return None


def _device(imports: tuple[str, ...], device: str) -> Recipe:
    return Recipe(
        imports=imports, setup=lambda function, inputs: (), callee=lambda function: function, move=f".to({device})", back=".cpu()"
    )


def _inductor(options: Options) -> Recipe:
    from sapper.backends.stacks.inductor import PATCHES, STOPS

    stop = next((STOPS[word] for word in sorted(options & set(STOPS))), None)
    patches = {key: value for word in sorted(options & set(PATCHES)) for key, value in PATCHES[word].items()}
    given = [f"backend={stop!r}"] if stop else []
    given += ["dynamic=True"] if "dynamic" in options else []
    given += [f"options={patches!r}"] if patches else []
    return Recipe(
        setup=lambda function, inputs: (f"{function}_compiled = torch.compile({', '.join([function, *given])})",),
        callee=lambda function: f"{function}_compiled",
    )


def _module(function: str) -> tuple[str, ...]:
    """Exporters take modules."""
    return ("class Model(torch.nn.Module):", f"    def forward(self, *tensors): return {function}(*tensors)")


_ONNX = "torch.onnx.export(Model(), tuple({inputs}), dynamo=True, verbose=False)"
_ORT_VALUE = (
    "value = lambda one: onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(one.view(torch.int16).numpy(), 16) "
    "if one.dtype == torch.bfloat16 else onnxruntime.OrtValue.ortvalue_from_numpy(one.contiguous().numpy())"
)


def _onnxruntime(options: Options) -> Recipe:
    from sapper.backends.stacks.onnxruntime import CPU, LEVELS, PROVIDERS

    providers = [*(PROVIDERS[word] for word in sorted(options & set(PROVIDERS))), CPU]
    levels = [LEVELS[word] for word in sorted(options & set(LEVELS))]

    def setup(function: str, inputs: str) -> tuple[str, ...]:
        chosen = [f"options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.{level}" for level in levels]
        return (
            *_module(function),
            f"model = {_ONNX.format(inputs=inputs)}.model_proto.SerializeToString()",
            *(["options = onnxruntime.SessionOptions()", *chosen] if chosen else []),
            f"session = onnxruntime.InferenceSession(model, {'options, ' if chosen else ''}providers={providers!r})",
            _ORT_VALUE,
            f"def {function}_onnx(*tensors):",
            "    feeds = {one.name: value(tensor) for one, tensor in zip(session.get_inputs(), tensors)}",
            "    return torch.from_dlpack(session.run_with_ort_values(None, feeds)[0]).clone()",
        )

    return Recipe(imports=("import onnxruntime",), setup=setup, callee=lambda function: f"{function}_onnx", autograd=False)


def _openvino(options: Options) -> Recipe:
    from sapper.backends.stacks.openvino import DEVICES, HINTS

    device = next((DEVICES[word] for word in sorted(options & set(DEVICES))), "CPU")
    hint = next(iter(sorted(options & HINTS)), None)
    hints = {} if hint is None else {"INFERENCE_PRECISION_HINT": hint}
    by_onnx = "onnx" in options

    def setup(function: str, inputs: str) -> tuple[str, ...]:
        export = f"torch.export.export(Model(), tuple({inputs}), strict=False)"
        source = ('"model.onnx"', (f'{_ONNX.format(inputs=inputs)}.save("model.onnx")',)) if by_onnx else (export, ())
        return (
            *_module(function),
            *source[1],
            f"compiled = openvino.Core().compile_model(openvino.convert_model({source[0]}), {device!r}, {hints!r})",
            f"def {function}_openvino(*tensors):",
            "    return torch.from_numpy(compiled([one.contiguous().numpy() for one in tensors])[0].copy())",
        )

    return Recipe(imports=("import openvino",), setup=setup, callee=lambda function: f"{function}_openvino", autograd=False)


_COMPILERS: dict[str, Callable[[Options], Recipe]] = {"inductor": _inductor, "onnxruntime": _onnxruntime, "openvino": _openvino}
