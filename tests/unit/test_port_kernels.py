from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sapper.cli import main
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


@pytest.mark.parametrize("condition", ["__CUDA_ARCH__ >= 800", "defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 600"])
def test_a_branch_with_assembly_keeps_its_number_and_the_way_for_older_chips_is_taken(condition: str) -> None:
    text = f'#if {condition}\nasm("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(a), "l"(b));\n#else\nx = y;\n#endif\n'

    assert musa(text) == text.replace("CUDA", "MUSA")


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


def written(root: Path, files: dict[str, str]) -> Path:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, "utf-8", newline="")
    return root


def test_a_tree_is_converted_with_what_its_kernels_include_and_nothing_else(tmp_path: Path) -> None:
    root = written(
        tmp_path,
        {
            "csrc/cuda/a_cuda.cu": '#include "shared.h"\n#include "plain.h"\n__global__ void f_cuda() {}\n',
            "csrc/cuda/plain.h": "int plain();\n",
            "csrc/shared.h": '#include "deep.h"\n',
            "csrc/deep.h": "#include <cuda_runtime.h>\n",
            "csrc/ops.cpp": "void check(at::Tensor x) { TORCH_CHECK(!x.is_cuda()); }\n#ifdef WITH_CUDA\nvoid f_cuda();\n#endif\n",
            "csrc/musa/a_musa.mu": "by hand\n",
        },
    )
    done = kernels.convert_tree(root, "musa")

    assert {one.source: one.path for one in done.files} == {
        "csrc/cuda/a_cuda.cu": "csrc/musa/a_musa.mu",
        "csrc/deep.h": "csrc/deep_musa.h",
        "csrc/shared.h": "csrc/shared_musa.h",
    }
    assert done.files[0].text == '#include "shared_musa.h"\n#include "../cuda/plain.h"\n__global__ void f_musa() {}\n'
    assert done.files[2].text == '#include "deep_musa.h"\n'
    assert done.taken == ("csrc/musa/a_musa.mu",)


def test_line_ends_stay_as_the_file_has_them() -> None:
    text = "#if X\r\na\r\n#elif __CUDA_ARCH__ >= 530\r\nb\r\n#endif\r\n"

    assert musa(text) == "#if X\r\na\r\n#else\r\nb\r\n#endif\r\n"


@pytest.mark.parametrize(
    ("text", "kind", "lines"),
    [
        ("__global__ void f() {}\nvoid g() { f<<<1, 1>>>(); cublasSgemm(h); }\n", "rename", []),
        ("#if __CUDA_ARCH__ >= 700\n#endif\n", "rename", [(1, "architecture")]),
        ("x = __shfl_xor_sync(m, x, 1);\n__nv_bfloat16 y;\n", "warp", [(1, "warp")]),
        ('x = __ballot_sync(m, p);\nasm("mov.u32 %0, %1;");\n', "ptx", [(1, "warp"), (2, "ptx")]),
        ('asm("mov.u32 %0, %1;");\ncudnnCreate(&h);\n__nv_fp8_e4m3 z;\n', "rewrite", [(1, "ptx"), (2, "library"), (3, "narrow")]),
        ("using namespace nvcuda;\n", "rewrite", [(1, "tensor")]),
    ],
)
def test_a_file_is_of_the_kind_of_its_hardest_line(text: str, kind: str, lines: list[tuple[int, str]]) -> None:
    found = kernels.triage(Source(path="a.cu", language="cuda", text=text))

    assert found is not None
    assert (found.kind, [(line.line, line.work) for line in found.lines]) == (kind, lines)


def test_a_file_without_cuda_is_not_sorted() -> None:
    assert kernels.triage(Source(path="a.cpp", language="cpp", text="int main() {}\n")) is None


def test_the_command_prints_files_lines_and_consequences(tmp_path: Path) -> None:
    root = written(
        tmp_path, {"a.cu": "__global__ void f() { __syncwarp(); }\n", "b.cu": "void g() { cudaFree(p); }\n", "c.cpp": "int x;\n"}
    )

    done = CliRunner().invoke(main.cli, ["port", "kernels", str(root), "--to", "rocm,iluvatar", "--lines"])

    assert done.exit_code == 1
    assert "lanes of a warp 1" in done.stdout
    assert "a.cu:1: SP-PORT-909 lanes of a warp: __global__ void f() { __syncwarp(); }" in done.stdout
    assert "2 files with 1 kernels: 1 by a rename, 1 with warp-size work" in done.stdout
    assert "AMD ROCm" in done.stdout and "Iluvatar CoreX" in done.stdout

    listed = json.loads(CliRunner().invoke(main.cli, ["port", "kernels", str(root), "--format", "json"]).stdout)
    assert [(one["path"], one["kind"]) for one in listed["files"]] == [("a.cu", "warp"), ("b.cu", "rename")]
    assert CliRunner().invoke(main.cli, ["port", "kernels", str(root / "b.cu")]).exit_code == 0


def test_fix_writes_converted_files_beside_the_originals_and_takes_them_back(tmp_path: Path) -> None:
    text = "__global__ void f() { __syncwarp(); }\nvoid g() { f<<<1, 1>>>(); cudaDeviceSynchronize(); }\n"
    root = written(tmp_path, {"csrc/cuda/a_cuda.cu": text, "csrc/b.cu": "void g() { cudaFree(p); }\n", "setup.py": "import torch\n"})
    before = {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}

    done = CliRunner().invoke(main.cli, ["port", "fix", str(root), "--kernels", "musa"])

    assert done.exit_code == 1  # a warp is left
    assert "csrc/b.cu -> csrc/b.mu: a pure rename" in done.stdout
    assert "csrc/cuda/a_cuda.cu:1: lanes of a warp: __global__ void f() { __syncwarp(); }" in done.stdout
    assert (root / "csrc/musa/a_musa.mu").read_text("utf-8") == text.replace("cuda", "musa")
    assert {path: (root / path).read_bytes() for path in before} == before

    (root / "csrc/b.mu").write_text("by hand\n", "utf-8")
    again = CliRunner().invoke(main.cli, ["port", "fix", str(root), "--kernels", "musa"])
    assert "csrc/b.mu: is there already and stays as it is" in again.stdout
    assert (root / "csrc/b.mu").read_text("utf-8") == "by hand\n"

    (root / "csrc/b.mu").write_text("void g() { musaFree(p); }\n", "utf-8")
    assert CliRunner().invoke(main.cli, ["port", "fix", "--undo", str(root)]).exit_code == 0
    assert not (root / "csrc/b.mu").exists() and not (root / "csrc/musa/a_musa.mu").exists()


@pytest.mark.skipif(shutil.which("git") is None, reason="git shows that the difference can be applied")
def test_the_difference_of_kernels_is_one_that_git_applies(tmp_path: Path) -> None:
    root = written(tmp_path, {"csrc/cuda/a_cuda.cu": "void g() { cudaFree(p); }", "csrc/b.cu": "a\r\ncudaFree(p);\r\nb\r\n"})
    subprocess.run(["git", "init", "-q", str(root)], check=True)

    done = CliRunner().invoke(main.cli, ["port", "fix", str(root), "--kernels", "hip", "--diff"])

    assert done.exit_code == 1
    subprocess.run(["git", "-C", str(root), "apply"], input=done.stdout_bytes, check=True)
    assert (root / "csrc/hip/a_hip.hip").read_text("utf-8") == "#include <hip/hip_runtime.h>\nvoid g() { hipFree(p); }"
    assert (root / "csrc/b.hip").read_bytes() == b"#include <hip/hip_runtime.h>\r\na\r\nhipFree(p);\r\nb\r\n"


@pytest.mark.parametrize("part", ["a::", "asm(", "cub::", "f<<<", "cudaFree(", "#if (", '"', "/*", "(a + "])
def test_thousands_of_what_never_ends_are_read_all_the_same(part: str) -> None:
    text = part * 3000

    assert convert(text, "hip").original == text
    assert kernels.triage(Source(path="a.cu", language="cuda", text=text)) is not None or part not in ("cub::", "cudaFree(")
