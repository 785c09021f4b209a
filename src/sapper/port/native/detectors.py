"""What a name alone does not say: launches, headers, lanes of a warp, assembly, device strings.

Each detector yields ``(start, end, symbol)`` of offsets in the file; a rule names its detector by the key of
:data:`DETECTORS`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

from sapper.port.native.lexer import Lexed

Hit = tuple[int, int, str]
Detector = Callable[[Lexed], Iterator[Hit]]

_NAME = re.compile(r"[\w:]*\Z")
_MOST_ARGUMENTS = 2000
"""Characters of a launch, from ``<<<`` to ``>>>``, and of template arguments before it."""


def launch(lexed: Lexed) -> Iterator[Hit]:
    """``kernel<<<grid, block>>>(...)``, by the kernel's name."""
    code = lexed.code
    at = code.find("<<<")
    while at >= 0:
        if code.find(">>>", at, at + _MOST_ARGUMENTS) > 0:
            yield at, at + 3, f"{_launched(code, at)}<<<>>>"
        at = code.find("<<<", at + 3)


def _launched(code: str, at: int) -> str:
    """The name before ``<<<``, without template arguments; empty where it is no name."""
    before = code[max(0, at - _MOST_ARGUMENTS) : at].rstrip()
    if before.endswith(">"):
        depth = 0
        for index in range(len(before) - 1, -1, -1):
            depth += {">": 1, "<": -1}.get(before[index], 0)
            if depth == 0:
                before = before[:index].rstrip()
                break
    match = _NAME.search(before, max(0, len(before) - 200))
    return match[0] if match else ""


_LIBRARY = re.compile(r"cublas|cudnn|cufft|curand|cusparse|cusolver|cutensor|nvrtc|nvjpeg|npp")
_PROFILING = re.compile(r"nvtx|nvToolsExt|nvml|cupti|cudaProfiler|cuda_profiler")


_TOOLKIT = re.compile(
    r"(?:cuda|cuda_(?:runtime|runtime_api|device_runtime_api|fp16|bf16|fp8|fp6|fp4|pipeline|pipeline_primitives|awbarrier\w*|occupancy|texture_types"
    r"|surface_types|gl_interop|egl_interop|vdpau_interop|stdint)|cuda(?:GL|EGL|VDPAU|Typedefs|D3D\d+)|cudart_platform|cuComplex|device_launch_parameters"
    r"|device_functions|device_atomic_functions|driver_types|driver_functions|vector_types|vector_functions|texture_\w+|surface_\w+|sm_\d+_\w+"
    r"|math_constants|math_functions|channel_descriptor|library_types|host_config|host_defines|crt/\w+|fatbinary\w*)\.hp?p?"
)
"""Headers of NVIDIA's toolkit that belong to no library."""


def _headers(matches: Callable[[str], bool]) -> Detector:
    def detector(lexed: Lexed) -> Iterator[Hit]:
        for start, end in lexed.headers:
            header = lexed.text[start + 1 : end - 1]
            if matches(header):
                yield start, end, header

    return detector


_TORCH = re.compile(r"(?:ATen|c10|torch/csrc|caffe2)/(?:.*/)?(?:cuda|THC)\b|THC/|THC\.h\Z|torch/cuda\.h\Z")


def _cuda_header(path: str) -> bool:
    return bool(_TOOLKIT.fullmatch(path))


def _torch_header(path: str) -> bool:
    return bool(_TORCH.match(path))


_LANE = re.compile(r"[&%>/](?:(?<=&)\s*\(?\s*(?:31|0x1[fF])|(?<=%)\s*32|(?<=>)>\s*5|(?<=/)\s*32)(?![\w.])")
_THREAD = re.compile(
    r"(?:threadIdx\s*\.\s*[xyz]|blockDim\s*\.\s*[xyz]|\b(?:\w+_)?(?:tid|lane|thread_?(?:id|idx|rank)|local_?(?:id|idx|tid))\w*)\s*[)\]]?\s*\Z",
    re.IGNORECASE,
)
_BUTTERFLY = re.compile(r"=\s*16\s*;\s*\w+\s*(?:>\s*0|>=\s*1|!=\s*0)?\s*;\s*\w+\s*(?:>>=\s*1|/=\s*2|=\s*\w+\s*(?:>>\s*1|/\s*2))")
_TILE = re.compile(r"\btiled_partition\s*<\s*\d+\s*>")


def warp(lexed: Lexed) -> Iterator[Hit]:
    """Lanes that are computed with 31, 32 or 5; loops that halve from 16; tiles. Names alone are in the rule."""
    code = lexed.code
    if "31" in code or "32" in code or "0x1" in code or "5" in code:
        for match in _LANE.finditer(code):
            of = _THREAD.search(code, max(0, match.start() - 60), match.start())
            if of:
                yield of.start(), match.end(), _one_line(code[of.start() : match.end()])
    for sign, pattern in (("16", _BUTTERFLY), ("tiled_partition", _TILE)):
        if sign in code:
            for match in pattern.finditer(code):
                yield match.start(), match.end(), _one_line(match[0])


def _one_line(text: str) -> str:
    return " ".join(text.split())


_ASM = re.compile(r"asm(?<![A-Za-z0-9]asm)(?:__)?\b\s*(?:(?:volatile|__volatile__|goto)\s*)*\(")
_MNEMONIC = re.compile(r"(?<![.%\w])(?!reg\b)[a-z][a-z0-9]*(?:(?:\.|::)[a-z0-9_]+)+")
_TENSOR = re.compile(r"(?:wmma|mma|wgmma|tcgen05|ldmatrix|stmatrix|movmatrix|cp\.async|cp\.reduce|mbarrier|tensormap|setmaxnreg)\b")

_MOST_ASSEMBLY = 20_000
"""Characters of one ``asm`` statement; a bound for files that are broken, or made to be slow."""


def _assembly(tensor: bool) -> Detector:
    def detector(lexed: Lexed) -> Iterator[Hit]:
        if "asm" not in lexed.code:
            return
        device = "__device__" in lexed.code or "__global__" in lexed.code
        for match in _ASM.finditer(lexed.code):
            mnemonic = _mnemonic(lexed, match.end())
            if mnemonic is None and not device:
                continue  # host assembly
            if bool(_TENSOR.match(mnemonic or "")) == tensor:
                yield match.start(), match.end(), mnemonic or "asm"

    return detector


def _mnemonic(lexed: Lexed, at: int) -> str | None:
    """The first PTX instruction of an ``asm(...)``, the tensor one where there is one; None where none reads like PTX."""
    close = lexed.code.find(";", at, at + _MOST_ASSEMBLY)
    close = min(at + _MOST_ASSEMBLY, len(lexed.code)) if close < 0 else close
    found = [match[0] for start, end in lexed.strings_between(at, close) for match in _MNEMONIC.finditer(lexed.text, start, end)]
    return next((name for name in found if _TENSOR.match(name)), found[0] if found else None)


_DEVICE = re.compile(r'"(?:cuda|gpu|GPU|CUDA)(?::\d+)?"')


def device_string(lexed: Lexed) -> Iterator[Hit]:
    """``"cuda"``, ``"cuda:0"``: a device by its name."""
    for start, end in lexed.strings:
        if end - start < 16 and _DEVICE.fullmatch(lexed.text, start, end):
            yield start, end, lexed.text[start:end]


_OWN = re.compile(r"cuda|cudnn|cublas|nccl|cutlass|\.cuh\Z", re.IGNORECASE)
_tensor_header = _headers(lambda path: path.startswith(("cutlass/", "cute/")) or path == "mma.h")
_tensor_assembly = _assembly(tensor=True)

DETECTORS: dict[str, Detector] = {
    "launch": launch,
    "cuda_header": _headers(_cuda_header),
    "torch_header": _headers(_torch_header),
    "library_header": _headers(lambda path: bool(_LIBRARY.search(path))),
    "nccl_header": _headers(lambda path: "nccl" in path.lower()),
    "profiling_header": _headers(lambda path: bool(_PROFILING.search(path))),
    "thrust_header": _headers(lambda path: path.startswith(("cub/", "thrust/")) or "/cub/" in path),
    "groups_header": _headers(lambda path: path.startswith("cooperative_groups")),
    "tensor": lambda lexed: itertools.chain(_tensor_header(lexed), _tensor_assembly(lexed)),
    "standard_header": _headers(lambda path: path.startswith(("cuda/", "nv/"))),
    "own_header": _headers(lambda path: bool(_OWN.search(path))),
    "warp": warp,
    "ptx": _assembly(tensor=False),
    "device_string": device_string,
}
