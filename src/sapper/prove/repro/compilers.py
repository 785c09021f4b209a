"""The recipes of stacks that take whole graphs: each compiles a module whose ``forward`` is the script's function."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from sapper.prove.repro.recipes import Given, Options, Recipe


def _inductor(options: Options) -> Recipe:
    from sapper.backends.stacks.inductor import PATCHES, STOPS

    stop = next((STOPS[word] for word in sorted(options & set(STOPS))), None)
    patches = {key: value for word in sorted(options & set(PATCHES)) for key, value in PATCHES[word].items()}
    arguments = [f"backend={stop!r}"] if stop else []
    arguments += ["dynamic=True"] if "dynamic" in options else []
    arguments += [f"options={patches!r}"] if patches else []
    return Recipe(
        setup=lambda given: (f"{given.function}_compiled = torch.compile({', '.join([given.function, *arguments])})",),
        callee=lambda function: f"{function}_compiled", elsewhere='list(torch._dynamo.utils.counters["graph_break"])',
    )  # fmt: skip


def _exported(given: Given) -> tuple[str, str]:
    """A line that makes a module, since exporters take nothing else, and the expression that exports it."""
    return _module(given), f"torch.export.export(Model(), tuple({given.inputs}), strict=False)"


def _module(given: Given) -> str:
    return f"class Model(torch.nn.Module): forward = staticmethod({given.function})"


def _onnx(given: Given) -> tuple[str, str]:
    """Likewise, to an ONNX model in bytes."""
    exported = f"torch.onnx.export(Model(), tuple({given.inputs}), dynamo=True, verbose=False)"
    return _module(given), f"{exported}.model_proto.SerializeToString()"


def _array(given: Given, *, bits: str = "") -> str:
    """The expression of an input, ``one``, as NumPy's array.

    Args:
        given: The function.
        bits: What follows the 16 bits of a bf16 tensor, which NumPy lacks.
    """
    dtypes = {one.dtype for one in given.tensors}
    plain = "one.contiguous().numpy()"
    if torch.bfloat16 not in dtypes or not bits:
        return plain
    narrow = f"one.contiguous().view(torch.int16).numpy(){bits}"
    return narrow if dtypes == {torch.bfloat16} else f"{narrow} if one.dtype == torch.bfloat16 else {plain}"


def _onnxruntime(options: Options) -> Recipe:
    from sapper.backends.stacks.onnxruntime import CPU, LEVELS, PROVIDERS

    providers = [*(PROVIDERS[word] for word in sorted(options & set(PROVIDERS))), CPU]
    levels = [LEVELS[word] for word in sorted(options & set(LEVELS))]

    def setup(given: Given) -> tuple[str, ...]:
        module, model = _onnx(given)
        chosen = [f"options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.{level}" for level in levels]
        return (
            module,
            *(["options = onnxruntime.SessionOptions()", *chosen] if chosen else []),
            f"session = onnxruntime.InferenceSession({model}, {'options, ' if chosen else ''}providers={providers!r})",
            f"def {given.function}_onnx(*tensors):",
            f"    feeds = {{put.name: {_ort_value(given)} for put, one in zip(session.get_inputs(), tensors)}}",
            *_ort_result(given),
        )

    return Recipe(imports=("import onnxruntime",), setup=setup, callee=lambda function: f"{function}_onnx", autograd=False)


def _ort_value(given: Given) -> str:
    """The expression of an input, ``one``, as ONNX Runtime takes it; a complex number is a pair of reals in ONNX."""
    dtypes = {one.dtype for one in given.tensors}
    plain = "onnxruntime.OrtValue.ortvalue_from_numpy(one.contiguous().numpy())"
    for odd, value in (
        (torch.bfloat16, "onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(one.contiguous().view(torch.int16).numpy(), 16)"),
        (torch.complex64, "onnxruntime.OrtValue.ortvalue_from_numpy(torch.view_as_real(one.resolve_conj()).contiguous().numpy())"),
    ):
        if odd in dtypes:
            return value if dtypes == {odd} else f"{value} if one.dtype == {odd} else {plain}"
    return plain


def _ort_result(given: Given) -> list[str]:
    found = "torch.from_dlpack(session.run_with_ort_values(None, feeds)[0]).clone()"
    if not given.may_be_complex:
        return [f"    return {found}"]
    return [f"    found = {found}", "    return torch.view_as_complex(found) if expected.is_complex() else found"]


def _openvino(options: Options) -> Recipe:
    from sapper.backends.stacks.openvino import DEVICES, HINTS

    device = next((DEVICES[word] for word in sorted(options & set(DEVICES))), "CPU")
    hint = next(iter(sorted(options & HINTS)), None)
    hints = {} if hint is None else {"INFERENCE_PRECISION_HINT": hint}

    def setup(given: Given) -> tuple[str, ...]:
        module, exported = _onnx(given) if "onnx" in options else _exported(given)
        shapes = f"input=[tuple(one.shape) for one in {given.inputs}]"  # left unknown, weights that are inputs are refused
        model = f"openvino.Core().read_model({exported})" if "onnx" in options else f"openvino.convert_model({exported}, {shapes})"
        return (
            module,
            f"compiled = openvino.Core().compile_model({model}, {device!r}, {hints!r})",
            f"def {given.function}_openvino(*tensors):",
            f"    found = compiled([{_openvino_value(given)} for one in tensors])[0].copy()",
            f"    return {_openvino_result(given)}",
        )

    return Recipe(imports=("import openvino",), setup=setup, callee=lambda function: f"{function}_openvino", autograd=False)


def _openvino_value(given: Given) -> str:
    """The expression of an input, ``one``, as OpenVINO takes it; NumPy has no bf16, so its bits travel as fp16's."""
    dtypes = {one.dtype for one in given.tensors}
    plain = "one.contiguous().numpy()"
    bits = 'one.contiguous().view(torch.int16).numpy().view("float16")'
    narrow = f"openvino.Tensor({bits}, openvino.Shape(list(one.shape)), openvino.Type.bf16)"
    if torch.bfloat16 not in dtypes:
        return plain
    return narrow if dtypes == {torch.bfloat16} else f"{narrow} if one.dtype == torch.bfloat16 else {plain}"


def _openvino_result(given: Given) -> str:
    plain = "torch.from_numpy(found)"
    if not any(one.dtype == torch.bfloat16 for one in given.tensors):
        return plain
    narrow = 'torch.from_numpy(found.view("int16")).view(torch.bfloat16)'
    return f"{narrow} if compiled.outputs[0].get_element_type() == openvino.Type.bf16 else {plain}"


def _tvm(options: Options) -> Recipe:
    def setup(given: Given) -> Sequence[str]:
        module, exported = _exported(given)
        program = f"tvm.relax.frontend.torch.from_exported_program({exported})"
        if "zero" in options:
            program = f'tvm.relax.get_pipeline("zero")({program})'
        return (
            module,
            f'built = tvm.compile({program}, target="llvm")',
            'main = tvm.relax.VirtualMachine(built, tvm.cpu())["main"]',
            f"def {given.function}_tvm(*tensors):",
            "    given = [tvm.runtime.from_dlpack(one.clone(memory_format=torch.contiguous_format)) for one in tensors]",
            "    return torch.from_dlpack(main(*given)[0]).clone()",
        )

    return Recipe(
        imports=("import tvm, tvm.relax.frontend.torch",), setup=setup, callee=lambda function: f"{function}_tvm", autograd=False
    )


def _iree(options: Options) -> Recipe:
    from sapper.backends.stacks.iree import FLAGS

    flags = [FLAGS[word] for word in sorted(options)]
    flags += [] if "host" in options else ["--iree-llvmcpu-target-cpu=generic"]

    def setup(given: Given) -> Sequence[str]:
        array = _array(given, bits=".view(ml_dtypes.bfloat16)")
        return (
            _module(given),
            f"exported = str(iree.turbine.aot.export(Model(), args=tuple({given.inputs})).mlir_module).encode()",
            f'compiled = iree.compiler.compile_str(exported, target_backends=["llvm-cpu"], extra_args={flags!r})',
            'module = iree.runtime.load_vm_flatbuffer(compiled, driver="local-task")',
            f"def {given.function}_iree(*tensors):",
            f"    return torch.from_numpy(module.main(*({array} for one in tensors)).to_host().copy())",
        )

    return Recipe(
        imports=("import iree.compiler, iree.runtime, iree.turbine.aot, ml_dtypes",), setup=setup,
        callee=lambda function: f"{function}_iree", autograd=False,
    )  # fmt: skip


def _tinygrad(options: Options) -> Recipe:
    device = min(options, default="cpu").upper()

    def setup(given: Given) -> Sequence[str]:
        module, exported = _onnx(given)
        return (
            module,
            f"runner = tinygrad.nn.onnx.OnnxRunner(tinygrad.Tensor({exported}))",
            f"def {given.function}_tinygrad(*tensors):",
            "    feeds = {name: tinygrad.Tensor(one.contiguous().numpy()) for name, one in zip(runner.graph_inputs, tensors)}",
            "    return torch.from_numpy(runner(feeds)[runner.graph_outputs[0]].numpy().copy())",
        )

    return Recipe(
        imports=(f'import os; os.environ["DEV"] = "{device}"; import tinygrad.nn.onnx',), setup=setup,
        callee=lambda function: f"{function}_tinygrad", autograd=False,
    )  # fmt: skip


def _jax(options: Options) -> Recipe:
    """The lowering to JAX is Sapper's own, which the script then needs."""
    compiled = "run" if "eager" in options else "jax.jit(run)"
    if "noopt" in options:
        compiled = 'jax.jit(run, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True})'
    precision = 'jax.config.update("jax_default_matmul_precision", "highest")'

    def setup(given: Given) -> Sequence[str]:
        module, exported = _exported(given)
        return (
            *([precision] if "highest" in options else []),
            module,
            f"run = function_of({exported})",
            f"{given.function}_jax = lambda *tensors: tensor_of({compiled}(*map(array_of, tensors))[0])",
        )

    imports = (
        'import jax; jax.config.update("jax_enable_x64", True)', "from sapper.backends.arrays import array_of, tensor_of",
        "from sapper.backends.lax import function_of",
    )  # fmt: skip
    return Recipe(imports=imports, setup=setup, callee=lambda function: f"{function}_jax", autograd=False)


COMPILERS: dict[str, Callable[[Options], Recipe]] = {
    "inductor": _inductor, "onnxruntime": _onnxruntime, "openvino": _openvino, "tvm": _tvm, "iree": _iree, "tinygrad": _tinygrad,
    "jax": _jax,
}  # fmt: skip
"""By the name of the stack, given its options."""
