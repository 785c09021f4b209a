from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapper.port import kernels
from sapper.port.kernels import Converted
from sapper.port.kernels.resolve import truth
from sapper.port.kernels.tables import STACKS, Stack, table
from sapper.port.source import Language, Source


def convert(text: str, to: Stack, *, path: str = "kernel.cu", language: Language = "cuda") -> Converted:
    return kernels.convert(Source(path=path, language=language, text=text), to)


def musa(text: str) -> str:
    return convert(text, "musa").text


def hip(text: str, path: str = "kernel.cuh") -> str:
    return convert(text, "hip", path=path).text


@pytest.mark.parametrize(
    ("cuda", "expected"),
    [
        ("cudaMalloc(&p, n);", "musaMalloc(&p, n);"),
        ("cublasSgemm(handle, CUBLAS_OP_N);", "mublasSgemm(handle, MUBLAS_OP_N);"),
        ("CUdeviceptr p; cuMemAlloc(&p, CU_MEM_LOCATION_TYPE_DEVICE);", "MUdeviceptr p; muMemAlloc(&p, MU_MEM_LOCATION_TYPE_DEVICE);"),
        ("auto s = at::cuda::getCurrentCUDAStream();", "auto s = c10::musa::getCurrentMUSAStream();"),
        ("TORCH_CHECK(x.is_cuda());", "TORCH_CHECK(x.is_privateuseone());"),
        ("x.options().device(at::kCUDA)", "x.options().device(::at::musa::kMUSA)"),
        ("#include <ATen/cuda/CUDAContext.h>\n", '#include "torch_musa/csrc/aten/musa/MUSAContext.h"\n'),
        ('#include "ball_query_cuda_kernel.cuh"\n', '#include "ball_query_musa_kernel.muh"\n'),
        ("// see https://github.com/x/cuda/a.cu: CUDA\n", "// see https://github.com/x/cuda/a.cu: MUSA\n"),
        ("#ifndef BALL_QUERY_CUDA_CUH_\n#endif\n", "#ifndef BALL_QUERY_MUSA_MUH_\n#endif\n"),
        ("ncclAllReduce(x, ncclSum);", "mcclAllReduce(x, mcclSum);"),
        ("__nv_bfloat16 x; nv_bfloat162 y;", "__mt_bfloat16 x; __mt_bfloat162 y;"),
        ("int cuSeqlens = cu_seqlens[0]; float scuba;", "int cuSeqlens = cu_seqlens[0]; float scuba;"),
    ],
)
def test_names_become_those_of_musa(cuda: str, expected: str) -> None:
    assert musa(cuda) == expected


@pytest.mark.parametrize(
    ("cuda", "expected"),
    [
        ("cudaMalloc(&p, n);  // cudaMalloc", "hipMalloc(&p, n);  // cudaMalloc"),
        ('printf("cudaMalloc");', 'printf("cudaMalloc");'),
        ("#include <cuda.h>\n#include <cuda_runtime.h>\n", "#include <hip/hip_runtime.h>\n"),
        ("typedef cub::BlockReduce<float, 128> R;", "typedef hipcub::BlockReduce<float, 128> R;"),
        ("cudaMemcpyToSymbol(table, host, n);", "hipMemcpyToSymbol(HIP_SYMBOL(table), host, n);"),
        ("cudaFuncSetCacheConfig(f<int, 2>, c);", "hipFuncSetCacheConfig(reinterpret_cast<const void*>(f<int, 2>), c);"),
        ("auto s = at::cuda::getCurrentCUDAStream();", "auto s = at::cuda::getCurrentCUDAStream();"),
        ("ball_query_cuda<<<1, 32>>>(x);", "ball_query_cuda<<<1, 32>>>(x);"),
        ("CU_DEVICE_ATTRIBUTE_WARP_SIZE", "hipDeviceAttributeWarpSize"),
    ],
)
def test_names_become_those_of_hip(cuda: str, expected: str) -> None:
    assert hip(cuda) == expected


def test_a_file_for_nvcc_gets_the_runtime_that_hipcc_does_not_include() -> None:
    assert hip("#pragma once\n\n#include <vector>\nvoid f() { cudaFree(p); }\n", path="a.cu") == (
        "#pragma once\n\n#include <hip/hip_runtime.h>\n#include <vector>\nvoid f() { hipFree(p); }\n"
    )


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("__CUDA_ARCH__ >= 530", True),
        ("(__CUDA_ARCH__ < 600)", False),
        ("__CUDA_ARCH__ >= 800", "__CUDA_ARCH__ >= 220"),
        ("__CUDA_ARCH__ >= 700", "__CUDA_ARCH__ >= 700"),
        ("defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 530", "defined(__CUDA_ARCH__)"),
        ("!defined(__CUDA_ARCH__) || (__CUDA_ARCH__ >= 600)", True),
        ("defined(A) && (B || CUDA_VERSION < 9000)", "defined(A) && (B)"),
        ("CUDA_VERSION >= 12000", "CUDA_VERSION >= 12000"),
        ("defined(MMCV_WITH_TRT)", False),
        ("!defined(MMCV_WITH_TRT)", True),
    ],
)
def test_a_condition_is_decided_where_the_stack_decides_it(condition: str, expected: bool | str) -> None:
    assert truth(condition, table("musa")) == expected


def test_a_branch_that_would_vanish_without_a_word_is_kept() -> None:
    text = "a\n#if __CUDA_ARCH__ >= 530  // half\nb\n#else\nc\n#endif  // half\nd\n"

    assert musa(text) == "a\nb\nd\n"


def test_a_branch_for_what_the_stack_has_not_is_dropped() -> None:
    text = "#if defined(MMCV_WITH_TRT)\na\n#elif X\nb\n#if __CUDA_ARCH__ < 200\nc\n#endif\n#else\nd\n#endif\n"

    assert musa(text) == "#if X\nb\n#else\nd\n#endif\n"


def test_what_a_rename_leaves_is_said_with_its_line() -> None:
    text = (
        "__device__ float f(float x) {\n"
        "  x += __shfl_xor_sync(0xffffffff, x, 16);\n"
        '  asm volatile("mov.u32 %0, 1;" : "=r"(x));\n'
        "#if __CUDA_ARCH__ >= 750\n"
        "  wmma::mma_sync(a, b, c, d);\n"
        "#endif\n"
        "  cudnnCreate(&h);\n"
        "}\n"
    )
    assert [(one.line, one.work) for one in convert(text, "musa").left] == [
        (2, "warp"),
        (3, "ptx"),
        (4, "architecture"),
        (5, "tensor"),
        (7, "library"),
    ]


def test_a_pure_rename_leaves_nothing() -> None:
    assert convert("__global__ void f() {}\nvoid g() { f<<<1, 1>>>(); cudaDeviceSynchronize(); }\n", "musa").left == ()


def test_a_name_that_the_stack_does_not_have_stays_and_is_said() -> None:
    done = convert("cudaDeviceFlushGPUDirectRDMAWrites(a, b);\n", "hip")

    assert "cudaDeviceFlushGPUDirectRDMAWrites" in done.text
    assert [(one.work, one.symbol) for one in done.left] == [("name", "cudaDeviceFlushGPUDirectRDMAWrites")]


def test_files_that_include_each_other_are_renamed_together() -> None:
    sources = [
        Source(path="csrc/ops.cu", language="cuda", text='#include "utils.h"\n#include "deep/more.cuh"\n#include <vector>\n'),
        Source(path="csrc/utils.h", language="cpp", text="cudaStream_t s;\n"),
        Source(path="csrc/deep/more.cuh", language="cuda", text="cudaStream_t s;\n"),
    ]
    done = {one.source: one for one in kernels.convert_all(sources, "hip")}

    assert {source: one.path for source, one in done.items()} == {
        "csrc/ops.cu": "csrc/ops.hip",
        "csrc/utils.h": "csrc/utils_hip.h",
        "csrc/deep/more.cuh": "csrc/deep/more_hip.cuh",
    }
    assert (
        done["csrc/ops.cu"].text
        == '#include <hip/hip_runtime.h>\n#include "utils_hip.h"\n#include "deep/more_hip.cuh"\n#include <vector>\n'
    )


@pytest.mark.parametrize("stack", STACKS)
@given(text=st.text(alphabet=st.sampled_from("ab<>#\"'\\/*\n\r ()cudaMif0 1asm,;&|!=_"), max_size=300))
def test_the_edits_say_all_that_changed(stack: Stack, text: str) -> None:
    done = convert(f"{text}\n#if __CUDA_ARCH__ >= 530\ncudaMalloc(&p);\n#endif\n", stack)
    original = f"{text}\n#if __CUDA_ARCH__ >= 530\ncudaMalloc(&p);\n#endif\n"
    rebuilt, end = [], 0
    for edit in done.edits:
        assert edit.start >= end
        rebuilt += [original[end : edit.start], edit.text]
        end = edit.end

    assert done.text == "".join([*rebuilt, original[end:]])


@pytest.mark.parametrize("stack", STACKS)
def test_every_table_says_where_its_rows_were_read(stack: Stack) -> None:
    assert all(origin.url.startswith("https://") and origin.date for origin in table(stack).sources)
