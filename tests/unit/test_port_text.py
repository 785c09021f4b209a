"""Couplings in files that are neither Python nor C++."""

from __future__ import annotations

from pathlib import Path

import pytest

from sapper.port import own, rule, vendors
from sapper.port.finding import Finding
from sapper.port.scan import scan
from sapper.port.source import Language, Source
from sapper.port.text import find
from sapper.port.text.names import dependency
from sapper.port.text.prose import masked


def found_in(language: Language, text: str, path: str = "file") -> list[Finding]:
    return find(Source(path=path, language=language, text=text), rule.rules())


def symbols(language: Language, text: str, path: str = "file") -> list[tuple[int, str]]:
    return sorted((finding.place.line, finding.symbol) for finding in found_in(language, text, path))


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("flash_attn==2.6.3", "flash-attn", "2.6.3"),
        ("Flash.Attn >= 2.0, <3", "flash-attn", None),
        ("flash-attn==2.*", "flash-attn", None),
        ("torch == 2.4.0 ; python_version > '3.8'", "torch", "2.4.0"),
        ("cudatoolkit=11.3", "cudatoolkit", "11.3"),
        ("numpy", "numpy", None),
        ("apex @ git+https://github.com/NVIDIA/apex.git@23.08", "apex", None),
        ("git+https://github.com/NVIDIA/apex.git@23.08", "apex", None),
        ("git+https://github.com/Dao-AILab/flash-attention#egg=flash_attn", "flash-attn", None),
        ("https://x.org/flash_attn-2.6.3+cu123torch2.4-cp310-cp310-linux_x86_64.whl", "flash-attn", "2.6.3+cu123torch2.4"),
        ("https://x.org/apex-0.1.tar.gz", "apex", "0.1"),
    ],
)
def test_a_dependency_is_read_however_it_is_written(text: str, name: str, version: str | None) -> None:
    asked = dependency(text, 0)

    assert asked is not None
    assert (asked.name, asked.version) == (name, version)


@pytest.mark.parametrize("text", ["", "-", "--no-deps", "two words", "=1.0", "${NAME}", "./here"])
def test_what_is_no_dependency_is_none(text: str) -> None:
    assert dependency(text, 0) is None


def test_lists_of_every_kind_give_their_entries() -> None:
    toml = """
[build-system]
requires = ["setuptools", "cupy-cuda12x"]
[project]
name = "flash-attn"
keywords = ["apex"]
dependencies = [
  "numpy",
  "flash-attn>=2",  # xformers
]
[project.optional-dependencies]
speed = ["xformers"]
[tool.poetry.dependencies]
python = "^3.10"
bitsandbytes = "^0.43"
deepspeed = { version = "0.14.0", optional = true }
[tool.poetry.group.dev.dependencies]
pynvml = "*"
[tool.ruff]
select = ["apex"]
"""
    assert [(one.place.line, one.symbol, one.standing) for one in sorted(found_in("pyproject", toml), key=lambda one: one.place)] == [
        (3, "cupy-cuda12x", "ties"),
        (9, "flash-attn", "ties"),
        (12, "xformers", "guarded"),
        (15, "bitsandbytes", "ties"),
        (16, "deepspeed", "guarded"),
        (18, "pynvml", "guarded"),
    ]
    cfg = (
        "[metadata]\nname = apex\n[options]\ninstall_requires =\n    numpy\n    apex>=0.1\n"
        "[options.extras_require]\ngpu = cupy; xformers; python_version > '3'\n"
    )
    assert symbols("setup", cfg) == [(6, "apex"), (8, "cupy"), (8, "xformers")]
    conda = "channels:\n  - nvidia\ndependencies:\n  - pytorch::pytorch-cuda=12.1\n  - cudnn 8.9\n  - pip:\n    - flash-attn\n    - cudnn\n"
    assert symbols("conda", conda) == [(2, "nvidia"), (4, "pytorch-cuda"), (5, "cudnn"), (7, "flash-attn")]
    setup = (
        "from setuptools import setup\nneeds = ['flash-attn>=2', 'numpy']\n"
        "setup(name='apex', install_requires=needs, extras_require={'q': ['bitsandbytes']}, packages=['apex'])\n"
    )
    stand = {(one.symbol, one.standing) for one in found_in("python", setup, "setup.py")}
    assert stand >= {("flash-attn", "ties"), ("bitsandbytes", "guarded")}


def test_install_commands_are_read_over_joined_lines() -> None:
    text = """FROM ubuntu:22.04
RUN apt-get update && apt-get install -y --no-install-recommends \\
    git \\
# a comment between
    libnccl2 libnccl-dev=2.20 && \\
    pip3 install "flash-attn>=2.5" xformers && python -m pip install -U cupy-cuda12x; echo cuda
RUN conda install -y -c nvidia cuda-nvcc
RUN git clone https://github.com/NVIDIA/apex
"""
    assert symbols("docker", text) == [
        (5, "libnccl-dev"),
        (5, "libnccl2"),
        (6, "cupy-cuda12x"),
        (6, "flash-attn"),
        (6, "xformers"),
        (7, "cuda-nvcc"),
        (7, "nvidia"),
        (8, "apex"),
    ]


def test_an_index_for_cuda_ties_wherever_it_is_named() -> None:
    uv = '[[tool.uv.index]]\nname = "pytorch-cu121"\nurl = "https://download.pytorch.org/whl/cu121"\n'

    assert symbols("pyproject", uv) == [(3, "https://download.pytorch.org/whl/cu121")]
    assert symbols("requirements", "-f https://data.pyg.org/whl/torch-2.1.0+cu118.html\n") == [
        (1, "https://data.pyg.org/whl/torch-2.1.0+cu118.html")
    ]
    assert symbols("docker", "ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu\n") == []


def test_only_an_exact_version_of_pytorch_ties() -> None:
    text = "torch>=2.1\ntorch==2.4.0\ntorchvision\ntorchaudio==2.4.0+cpu\ntorch~=2.1\n"

    assert symbols("requirements", text) == [(2, "torch")]
    assert symbols("shell", "pip install torch==2.4.0 -f https://download.pytorch.org/whl/cpu\n") == []


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("shell", "# CUDA_VISIBLE_DEVICES=0\n"),
        ("shell", "echo 'nvidia-smi not found'\n"),
        ("shell", 'print_banner "Installing with --cuda_ext and more"\n'),
        ("shell", "run --name=barracuda\n"),
        ("yaml", "- name: Run CUDA tests\n"),
        ("yaml", "description: needs CUDA and nccl\n"),
        ("yaml", "jobs:\n  cuda-tests:\n    steps: []\n"),
        ("yaml", "url: https://github.com/NVIDIA/Megatron-LM\n"),
        ("cmake", 'message(STATUS "CUDA was not found")\n'),
        ("cmake", "#[[ find_package(CUDA)\n enable_language(CUDA) ]]\n"),
        ("config", '{"description": "cuda", "title": "CUDA"}\n'),
        ("config", "; CUDA_HOME=/usr/local/cuda\n"),
        ("requirements", "# flash-attn\n"),
        ("docker", "LABEL description=cuda\n"),
        ("make", "\t@echo building with nvcc\n"),
    ],
)
def test_prose_and_other_peoples_names_are_no_couplings(language: Language, text: str) -> None:
    assert symbols(language, text, "file.ini") == []


def test_documentation_is_no_place_for_words_that_nothing_explains() -> None:
    assert symbols("config", '{"cuda": "11.8"}\n', "docs/_static/version.json") == []
    assert symbols("config", '{"cuda": "11.8"}\n', "build/version.json") == [(1, "cuda")]


def test_masked_text_is_as_long_as_the_text() -> None:
    text = "a = \"x # y\" # cuda\nb='don't # z\n'#' # cuda\n"

    for language in ("shell", "yaml", "config", "cmake"):
        lines = masked(Source(path="x", language=language, text=text)).split("\n")
        assert [len(line) for line in lines] == [len(line) for line in text.split("\n")]
    assert masked(Source(path="x", language="shell", text=text)).splitlines()[0].rstrip() == 'a = "x # y"'


def test_directives_of_a_batch_system_are_no_comments() -> None:
    assert symbols("shell", "#SBATCH --gres=gpu:a100:4\n#SBATCH --time=1\n") == [(1, "gpu:a100:4")]


def test_branches_that_ask_for_cuda_stand_apart() -> None:
    shell = """if command -v nvidia-smi; then
  nvidia-smi -L
elif command -v npu-smi; then
  npu-smi info
else
  nvcc --version
fi
if ! command -v nvcc; then
  export CUDA_HOME=/usr/local/cuda
fi
"""
    assert [(one.place.line, one.standing) for one in sorted(found_in("shell", shell), key=lambda one: one.place)] == [
        (1, "ties"),
        (2, "vendor"),
        (6, "ties"),
        (8, "ties"),
        (9, "ties"),
        (9, "ties"),
    ]
    cmake = "if(USE_CUDA)\n  enable_language(CUDA)\n  if(X)\n    find_package(NCCL)\n  endif()\nelse()\n  find_package(CUDA)\nendif()\n"
    assert {one.place.line: one.standing for one in found_in("cmake", cmake)} == {1: "ties", 2: "guarded", 4: "guarded", 7: "ties"}
    make = "ifeq ($(USE_CUDA),1)\nLDFLAGS += -lcudart\nendif\nifneq ($(USE_CUDA),1)\nLDFLAGS += -lcudart\nendif\n"
    assert {one.place.line: one.standing for one in found_in("make", make)} == {1: "ties", 2: "guarded", 4: "ties", 5: "ties"}


def test_a_file_of_cudas_own_needs_an_equal_beside_it() -> None:
    alone = ["requirements/gpu.txt", "requirements/base.txt"]
    beside = ["docker/Dockerfile.cuda", "docker/Dockerfile.rocm", "csrc/cuda/a.py", "csrc/npu/b.py"]

    assert vendors.owners([*alone, *beside]) == {
        "docker/Dockerfile.cuda": "cuda",
        "docker/Dockerfile.rocm": "other",
        "csrc/cuda/a.py": "cuda",
        "csrc/npu/b.py": "other",
    }
    assert vendors.owners(["barracuda/a.py", "barnpu/a.py"]) == {}


def test_a_projects_own_package_ties_nothing(tmp_path: Path) -> None:
    for name, text in {"vllm/__init__.py": "", "run.py": "import vllm\nimport flash_attn\n", "tests/apex/__init__.py": ""}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    assert [one.symbol for one in scan(tmp_path).findings] == ["flash_attn"]
    assert own.packages(["python/sgl/setup.py", "python/sgl/sgl_kernel/__init__.py", "a/b/__init__.py"]) == {"sgl_kernel", "setup"}


def test_a_finding_says_where_it_is() -> None:
    (finding,) = found_in("shell", "cd x\r\n  nvidia-smi -L\r\n")

    assert (finding.place.line, finding.place.column, finding.place.end_column) == (2, 2, 12)
    assert finding.excerpt == "  nvidia-smi -L"
