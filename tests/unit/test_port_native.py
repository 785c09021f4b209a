from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sapper.port import native, rule
from sapper.port.finding import Finding
from sapper.port.native.lexer import Lines, lex
from sapper.port.source import Language, Source

EXAMPLES = [
    pytest.param(code, index, id=f"{code}-{index}")
    for code, found in rule.rules().items()
    if {"cuda", "cpp"} & set(found.match.languages)
    for index in range(len(found.examples))
]


def find(text: str, *, path: str = "kernel.cu", language: Language = "cuda") -> list[Finding]:
    return native.find(Source(path=path, language=language, text=text), rule.rules())


def codes(text: str) -> set[str]:
    return {finding.code for finding in find(text)}


@pytest.mark.parametrize(("code", "index"), EXAMPLES)
def test_the_example_of_a_rule_gives_its_finding(code: str, index: int) -> None:
    example = rule.rules()[code].examples[index]
    language: Language = "cuda" if example.path.endswith((".cu", ".cuh")) else "cpp"

    assert code in {finding.code for finding in find(example.before, path=example.path, language=language)}


def test_comments_strings_and_dead_code_are_no_couplings() -> None:
    text = """
// cudaMalloc in a comment \\
   which goes on: cudaFree
/* __global__ void f(); */
const char *help = "call cudaMalloc first";
const char *raw = R"x(cudaMalloc(")x";
int separated = 1'000'000; char quote = '"'; // cudaFree
#if 0
cudaMalloc(&p, 4);
#endif
"""
    assert find(text) == []


def test_a_place_is_that_of_the_name() -> None:
    (found,) = find("void f() {\n  x = 1; cudaFree(p);  // cudaMalloc\n}\n")

    assert (found.code, found.symbol) == ("SP-PORT-901", "cudaFree")
    assert (found.place.line, found.place.column, found.place.end_column) == (2, 9, 17)
    assert found.excerpt == "  x = 1; cudaFree(p);  // cudaMalloc"


def test_a_launch_is_named_after_its_kernel_and_a_shift_is_none() -> None:
    (found,) = find("f<float, 4>\n    <<<grid, block, 0, stream>>>(x);\n")

    assert (found.code, found.symbol, found.place.line) == ("SP-PORT-903", "f<<<>>>", 2)
    assert find("int y = x << 2 >> 3; a <<= 3;") == []


def test_branches_of_the_preprocessor_say_whom_the_code_is_for() -> None:
    text = """
#ifdef USE_ROCM
hipFree(a); cudaFree(b);
#else
cudaFree(c);
#endif
#if defined(WITH_CUDA)
cudaFree(d);
#endif
cudaFree(e);
#ifndef KERNEL_CUDA_CUH
cudaFree(f);
#endif
#if defined(WITH_CUDA) || defined(WITH_HIP)
cudaFree(g);
#endif
"""
    standing = {finding.excerpt: finding.standing for finding in find(text) if finding.code == "SP-PORT-901"}

    assert standing == {
        "hipFree(a); cudaFree(b);": "vendor",
        "cudaFree(c);": "vendor",
        "cudaFree(d);": "guarded",
        "cudaFree(e);": "ties",
        "cudaFree(f);": "ties",
        "cudaFree(g);": "guarded",
    }


@pytest.mark.parametrize(
    "line",
    [
        "int lane = threadIdx.x & 31;",
        "int warp = threadIdx.x >> 5;",
        "int lane = (int)threadIdx.x % 32;",
        "int lane = tid & 0x1f;",
        "v += __shfl_xor_sync(0xffffffff, v, 1);",
        "unsigned m = __ballot_sync(mask, p);",
        "for (int i = 16; i > 0; i >>= 1) x += y;",
        "auto tile = cg::tiled_partition<32>(block);",
        "const int n = warpSize;",
        "typedef cub::WarpReduce<float> Reduce;",
    ],
)
def test_what_counts_on_32_lanes_is_found(line: str) -> None:
    assert "SP-PORT-909" in codes(line)


@pytest.mark.parametrize("line", ["int bits = word & 31;", "int n = size / 32;", "for (int i = 16; i < n; i++) f();", "int tile = x >> 5;"])
def test_other_arithmetic_with_32_is_no_warp(line: str) -> None:
    assert "SP-PORT-909" not in codes(line)


def test_lanes_of_a_road_are_no_lanes_of_a_warp() -> None:
    assert find("int lane_id = road.lane_id(); cudaFree(p);", path="road.cpp", language="cpp")[0].code == "SP-PORT-901"
    assert len(find("int lane_id = road.lane_id(); cudaFree(p);", path="road.cpp", language="cpp")) == 1


def test_assembly_for_tensor_cores_is_told_from_other_assembly() -> None:
    assert codes('asm volatile("{ mov.u32 %0, %1; }" : "=r"(a) : "r"(b));') == {"SP-PORT-910"}
    assert codes('asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" :: "r"(a), "l"(b));') == {"SP-PORT-911"}
    assert find('asm volatile("rdtsc" : "=a"(lo), "=d"(hi));', path="clock.h", language="cpp") == []


def test_names_that_only_hold_the_letters_are_passed_over() -> None:
    assert find("int barracuda = 1; float scud = 2; my::occult x;") == []


def test_a_qualified_name_is_one_name() -> None:
    (found,) = find("auto s = at::cuda::getCurrentCUDAStream();")

    assert (found.code, found.symbol) == ("SP-PORT-905", "at::cuda::getCurrentCUDAStream")


@given(st.text(alphabet=st.sampled_from("ab_:<>#\"'\\/*\n\r R()cudaif0 1asm__global__"), max_size=200))
def test_any_text_lexes_to_layers_of_the_same_length(text: str) -> None:
    lexed = lex(text)

    assert len(lexed.code) == len(text)
    assert [index for index, char in enumerate(lexed.code) if char == "\n"] == [index for index, char in enumerate(text) if char == "\n"]
    lines = Lines(text)
    for finding in find(text):
        assert finding.excerpt == lines.line(finding.place.line)
