"""What `sapper port fix` writes, by family."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from port_fix_kit import fixed

from sapper.port.fix.plan import plan
from sapper.port.fix.policy import RENAMED, Accelerator, Style
from sapper.port.fix.rewrite import members
from support import ROOT, environment

CONSTANTS = {need.name: need.statement for need in Accelerator().needs()}

ONE_LINE = {
    # torch.cuda
    "torch.cuda.synchronize()": "DEVICE_MODULE.synchronize()",
    "torch.cuda.synchronize(device)  # cuda": "DEVICE_MODULE.synchronize(device)  # cuda",
    "with torch.cuda.stream(s): pass": "with DEVICE_MODULE.stream(s): pass",
    "n = torch.cuda.max_memory_cached()": "n = DEVICE_MODULE.max_memory_reserved()",
    "n = torch.cuda.current_device()": "n = DEVICE_MODULE.current_device()",
    "x = x.to(torch.cuda.current_device())": "x = x.to(DEVICE_TYPE)",
    "f = torch.cuda.current_device": "f = DEVICE_MODULE.current_device",
    # strings
    'x = torch.ones(2, device="cuda")': "x = torch.ones(2, device=DEVICE_TYPE)",
    "x = x.to('cuda:1')": "x = x.to(f'{DEVICE_TYPE}:1')",
    'd = f"cuda:{rank}"': 'd = f"{DEVICE_TYPE}:{rank}"',
    'def f(x, n="cuda", m=1, *, device="cuda"): pass': "def f(x, n=DEVICE_TYPE, m=1, *, device=DEVICE_TYPE): pass",
    'if x in ["cuda:0", "cpu", y]: pass': 'if x in [f"{DEVICE_TYPE}:0", "cpu", y]: pass',
    'd = torch.device(f"cuda")': "d = torch.device(DEVICE_TYPE)",
    'd = torch.device(f"cuda:0")': 'd = torch.device(f"{DEVICE_TYPE}:0")',
    """d = "cuda:%d" % int(env["RANK"])""": """d = f"{DEVICE_TYPE}:%d" % int(env["RANK"])""",
    """d = "cuda:{}".format(env["RANK"])""": """d = f"{DEVICE_TYPE}:{{}}".format(env["RANK"])""",
    'd = "cuda:{}".format(rank)': 'd = f"{DEVICE_TYPE}:{rank}"',
    'd = "cuda:%d" % rank': 'd = f"{DEVICE_TYPE}:{rank}"',
    'd = "cuda:" + str(rank)': 'd = f"{DEVICE_TYPE}:" + str(rank)',
    'd = "cuda" if torch.cuda.is_available() else "cpu"': "d = DEVICE_TYPE",
    'd = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")': (
        'd = torch.device(f"{DEVICE_TYPE}:0" if DEVICE_MODULE.is_available() else "cpu")'
    ),
    'p.add_argument("--device", default="cuda", choices=["cpu", "cuda"])': (
        'p.add_argument("--device", default=DEVICE_TYPE, choices=["cpu", "cuda"])'
    ),
    'if device.type == "cuda": pass': 'if device.type != "cpu": pass',
    'if device.type != "cuda" and x: pass': 'if device.type == "cpu" and x: pass',
    'ok = "cuda" in device_name': 'ok = "cpu" not in device_name',
    'if device.startswith("cuda"): pass': 'if not device.startswith("cpu"): pass',
    'assert x.device.type == "cuda"': "assert x.device.type == DEVICE_TYPE",
    'on = x.device.type == torch.device("cuda").type': 'on = x.device.type != torch.device("cpu").type',
    'assert x.device == torch.device("cuda")': "assert x.device == torch.device(DEVICE_TYPE)",
    'self.assertEqual(x.device.type, "cuda")': "self.assertEqual(x.device.type, DEVICE_TYPE)",
    # placement
    "y = x.cuda()": "y = x.to(DEVICE_TYPE)",
    "y = x.cuda(non_blocking=True)": "y = x.to(DEVICE_TYPE, non_blocking=True)",
    "y = f(x.cuda(), y.cuda()).cuda()": "y = f(x.to(DEVICE_TYPE), y.to(DEVICE_TYPE)).to(DEVICE_TYPE)",
    "y = x.cuda(rank, non_blocking=True)": "y = x.to(rank, non_blocking=True)",
    "y = x.cuda(0)": 'y = x.to(f"{DEVICE_TYPE}:0")',
    "y = x.cuda(device=d)": "y = x.to(device=d)",
    "if x.is_cuda and y: pass": 'if x.device.type != "cpu" and y: pass',
    "x = torch.cuda.FloatTensor([1.0, 2.0])": "x = torch.tensor([1.0, 2.0], dtype=torch.float32, device=DEVICE_TYPE)",
    "x = y.type(torch.cuda.LongTensor)": "x = y.to(device=DEVICE_TYPE, dtype=torch.int64)",
    # precision
    "with torch.cuda.amp.autocast(): pass": "with torch.amp.autocast(DEVICE_TYPE): pass",
    "with torch.cuda.amp.autocast(on, torch.bfloat16): pass": (
        "with torch.amp.autocast(DEVICE_TYPE, enabled=on, dtype=torch.bfloat16): pass"
    ),
    "s = torch.cuda.amp.GradScaler(enabled=on)": "s = torch.amp.GradScaler(DEVICE_TYPE, enabled=on)",
    "d = torch.get_autocast_gpu_dtype()": "d = torch.get_autocast_dtype(DEVICE_TYPE)",
    # distributed
    'init(backend="nccl")': "init(backend=DISTRIBUTED_BACKEND)",
    # flags of NVIDIA's libraries
    "torch.backends.cudnn.benchmark = True": 'if DEVICE_TYPE == "cuda": torch.backends.cudnn.benchmark = True',
    # defaults
    "pipe.enable_model_cpu_offload()": "pipe.enable_model_cpu_offload(device=DEVICE_TYPE)",
}


@pytest.mark.parametrize("before", ONE_LINE)
def test_a_line_becomes(before: str, tmp_path: Path) -> None:
    after = fixed(tmp_path, f"import torch\n\n{before}\n")
    used = [name for name in CONSTANTS if name in ONE_LINE[before]]
    constants = [CONSTANTS[name] for name in dict.fromkeys(["DEVICE_TYPE", *used] if used else [])]
    top = {"\n".join(["", *order, ""]) if order else "" for order in (constants, [*constants[:1], *reversed(constants[1:])])}
    assert after in {f"import torch\n{block}\n{ONE_LINE[before]}\n" for block in top}


KEPT = (
    "# torch.cuda.synchronize()",
    '"""A CUDA device, such as "cuda"."""',
    'log.info("cuda is used")',
    'log.info("cuda")',
    'state["cuda"] = 1',
    'names = {"cuda": "nccl", "npu": "hccl"}',
    'if name in ("cuda", "npu"): pass',
    'd = "cuda" if is_cuda else "npu"',
    'x = x.replace("cuda", "gpu")',
    'flag = hasattr(torch, "cuda")',
    "from project import cuda",
    "cuda = 3",
    "y = numba.cuda",
    'kind: Literal["cuda", "cpu"] = kind',
    '__all__ = ["cuda"]',
    'assert backend in ["cuda", "keops", "naive"]',
    'BACKENDS = ["cuda", "keops", "naive"]',
    'def scan(x, backend="cuda"): pass',
    'def scan(x, *, n=1, backend: str = "cuda"): pass',
    'y = scan(x, backend="cuda")',
    'y = scan(x, conv_backend="cuda")',
    'monkeypatch.setenv("CONV_BACKEND", "cuda")',
    'way = os.environ.get("CONV_BACKEND", "cuda")',
    'os.environ["CONV_BACKEND"] = "cuda"',
    'impl = "cuda" if fast else "naive"',
    'y = scan(x, backend="cuda" if fast else None)',
    'options = {"backend": "cuda"}',
    'parser.add_argument("--backend", choices=["cuda", "naive"], default="cuda")',
    'if backend == "cuda": run()\nelif backend == "triton": walk()',
)


@pytest.mark.parametrize("line", KEPT)
def test_what_is_no_device_stays(line: str, tmp_path: Path) -> None:
    before = f"import torch\n\n{line}\n"
    assert fixed(tmp_path, before, unsafe=True) == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('options = {"device": "cuda"}', 'options = {"device": DEVICE_TYPE}'),
        ('options = {"device_backend": "cuda"}', 'options = {"device_backend": DEVICE_TYPE}'),
        ('d = "cuda" if fast else "cpu"', 'd = DEVICE_TYPE if fast else "cpu"'),
        ('d = os.environ.get("DEVICE", "cuda")', 'd = os.environ.get("DEVICE", DEVICE_TYPE)'),
        ('p.add_argument("--device", choices=["cuda", "cpu"], default="cuda")', 'default=DEVICE_TYPE)'),
        ('if device == "cuda": run()\nelif device == "auto-x": walk()', 'if device != "cpu": run()'),
        ('p.add_argument("--device", choices=["cuda", "cpu", "gpu", "mine"], default="cuda")', 'default=DEVICE_TYPE)'),
        ('x = x.to("cuda" if fast else "dml")', 'x.to(DEVICE_TYPE if fast else "dml")'),
        ('x = zeros(2, device=os.environ.get("BACKEND", "cuda"))', 'device=os.environ.get("BACKEND", DEVICE_TYPE)'),
        ('x = x.to({"backend": "cuda"}["backend"])', '{"backend": DEVICE_TYPE}'),
    ],
)
def test_a_device_beside_what_looks_like_a_way_to_compute_is_rewritten(before: str, after: str, tmp_path: Path) -> None:
    assert after in fixed(tmp_path, f"import torch\n\n{before}\n")


def test_an_explicit_choice_between_vendors_stays_whole(tmp_path: Path) -> None:
    before = """\
    import torch

    is_cuda_available = torch.cuda.is_available()
    is_npu_available = hasattr(torch, "npu")

    if torch.cuda.is_available():
        d = "cuda"
        torch.cuda.synchronize()
    elif is_npu_available:
        d = "npu"
    """
    assert "npu" in fixed(tmp_path, before) and fixed(tmp_path, before) == fixed(tmp_path, before).replace("accelerator", "")


def test_a_branch_beside_mps_alone_becomes_that_of_any_accelerator(tmp_path: Path) -> None:
    """Else the test, which now is true on every chip, would lead to CUDA."""
    after = fixed(
        tmp_path,
        """\
        import torch

        use_cuda = torch.cuda.is_available()
        if use_cuda:
            device = torch.device("cuda")
        elif torch.backends.mps.is_available():
            device = torch.device("mps")
        """,
    )
    assert "use_cuda = DEVICE_MODULE.is_available()" in after
    assert "torch.device(DEVICE_TYPE)" in after and 'torch.device("mps")' in after


def test_a_line_that_its_author_keeps_stays(tmp_path: Path) -> None:
    before = "import torch\n\ntorch.cuda.synchronize()  # sapper: keep SP-PORT-106\n"
    assert fixed(tmp_path, before) == before


def test_a_build_script_asks_for_cuda_on_purpose(tmp_path: Path) -> None:
    before = "import torch\n\nwith_cuda = torch.cuda.is_available()\n"
    assert fixed(tmp_path, before, path="setup.py") == before


def test_a_capability_is_rewritten_only_where_that_is_asked_for(tmp_path: Path) -> None:
    before = "import torch\n\nfast = torch.cuda.get_device_capability() >= (8, 0)\n"
    assert fixed(tmp_path, before) == before
    assert "DEVICE_MODULE.get_device_capability()" in fixed(tmp_path, before, unsafe=True)


@pytest.mark.parametrize(
    "line",
    [
        "fast = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 9)",
        "if torch.cuda.is_available(): torch.cuda.nvtx.mark('here')",
        "n = torch.cuda.cudart() if torch.cuda.is_available() else None",
        'if kind == "cuda": torch.backends.cudnn.benchmark = True',
        'if torch.cuda.is_available():\n    x = x.to(u"cuda:%d" % int(env["RANK"]))',
        'd = torch.device("cuda:" f"{rank}")',
        "if x.is_cuda:\n    from .triton_ops import filter_of\n    y = filter_of(x)",
    ],
)
def test_a_test_for_cuda_stays_where_what_it_guards_is_cudas_own(line: str, tmp_path: Path) -> None:
    """On another chip the code would no longer be passed by, and fail."""
    before = f"import torch\n\n{line}\n"
    assert fixed(tmp_path, before) == before


IMPORTS = {
    "from torch.cuda.amp import autocast, GradScaler\n\ns = GradScaler()\nwith autocast(True): pass\n": (
        "from torch.amp import autocast, GradScaler\n\ns = GradScaler(sapper_device.device_type())\n"
        "with autocast(sapper_device.device_type(), enabled=True): pass\n"
    ),
    "from torch.cuda import amp\n\ns = amp.GradScaler()\n": ("from torch import amp\n\ns = amp.GradScaler(sapper_device.device_type())\n"),
    "from torch.cuda import Stream\nfrom os import path\n\ns = Stream()\n": "from os import path\n\ns = sapper_device.Stream()\n",
    "import torch.cuda as tc\n\ntc.synchronize()\n": "\nsapper_device.synchronize()\n",
    "import torch.cuda\n\ntorch.cuda.synchronize()\n": "import torch\n\nsapper_device.synchronize()\n",
}


@pytest.mark.parametrize("before", IMPORTS)
def test_imports_follow_their_uses(before: str, tmp_path: Path) -> None:
    assert fixed(tmp_path, before, style="file").replace("import sapper_device\n", "") == IMPORTS[before]


def test_an_import_that_is_still_used_stays(tmp_path: Path) -> None:
    after = fixed(tmp_path, "from torch.cuda import Stream, nvtx\n\nnvtx.mark(Stream())\n", style="file")
    assert "from torch.cuda import nvtx\n" in after and "nvtx.mark(sapper_device.Stream())" in after


def test_a_decorator_of_a_library_has_a_neighbour_for_any_accelerator(tmp_path: Path) -> None:
    after = fixed(
        tmp_path,
        """\
        from transformers.testing_utils import (
            require_torch_accelerator,
            require_torch_gpu,  # the old one
        )

        @require_torch_gpu
        def test(): pass
        """,
    )
    assert after.count("require_torch_accelerator") == 2 and "require_torch_gpu" not in after and "# the old one" in after


def test_several_decorators_have_one_import(tmp_path: Path) -> None:
    """The project's own neighbours are used, and a name that is there already is not imported twice."""
    names = ("require_non_cpu", "require_multi_accelerator", "require_torch_gpu", "require_torch_multi_gpu")
    tools = "".join(f"def {name}(case): return case\n" for name in names)
    (tmp_path / "testing_utils.py").write_text(tools)
    head = "from testing_utils import " + ", ".join(names)
    after = fixed(tmp_path, f"{head}\n\n@require_torch_gpu\ndef test(): pass\n\n@require_torch_multi_gpu\ndef test_many(): pass\n")
    assert after == (
        "from testing_utils import require_non_cpu, require_multi_accelerator\n\n"
        "@require_non_cpu\ndef test(): pass\n\n@require_multi_accelerator\ndef test_many(): pass\n"
    )


HELPER = """
import torch
from other import is_torch_npu_available

is_cuda_available = torch.cuda.is_available()
is_npu_available = is_torch_npu_available()


def get_device_name():
    if is_cuda_available:
        device = "cuda"
    elif is_npu_available:
        device = "npu"
    else:
        device = "cpu"
    return device


def get_torch_device():
    return getattr(torch, get_device_name())


def get_device_id():
    return get_torch_device().current_device()


def get_nccl_backend():
    if is_cuda_available:
        return "nccl"
    elif is_npu_available:
        return "hccl"
    else:
        raise RuntimeError
"""


def test_a_project_with_a_helper_uses_it(tmp_path: Path) -> None:
    """Known by what its functions give back; imported as the project imports it; left alone itself."""
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "device.py").write_text(HELPER)
    before = 'import torch\n\ntorch.cuda.empty_cache()\nx = y.cuda()\nz = x.to(torch.cuda.current_device())\ninit("nccl")\n'
    (package / "work.py").write_text(before)
    made = plan(tmp_path)
    assert (made.choice.style, set(made.contents)) == ("helper", {"pkg/work.py"})
    text = made.contents["pkg/work.py"].decode()
    assert text.endswith(
        "get_torch_device().empty_cache()\nx = y.to(get_device_name())\nz = x.to(get_device_id())\ninit(get_nccl_backend())\n"
    )
    assert "\nfrom pkg.device import get_device_id, get_device_name, get_nccl_backend, get_torch_device\n" in text


def test_a_helper_that_knows_only_cuda_is_none(tmp_path: Path) -> None:
    (tmp_path / "device.py").write_text('import torch\n\ndef get_device():\n    return "cuda" if torch.cuda.is_available() else "cpu"\n')
    made = plan(tmp_path)
    assert made.choice.style == "file" and b"return sapper_device.device_type()" in made.contents["device.py"]


def test_scripts_in_many_folders_use_pytorch_itself(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").write_text("import torch\n\ntorch.cuda.synchronize()\n")
    made = plan(tmp_path)
    assert made.choice.style == "accelerator" and made.torch is None


def test_a_file_that_imports_the_package_can_import_its_helper_file(tmp_path: Path) -> None:
    (tmp_path / "src" / "pkg" / "deep").mkdir(parents=True)
    for folder in ("src/pkg", "src/pkg/deep"):
        (tmp_path / folder / "__init__.py").write_text("")
    (tmp_path / "src/pkg/deep/a.py").write_text("import torch\n\ntorch.cuda.synchronize()\n")
    (tmp_path / "run.py").write_text("import torch\nimport pkg\n\ntorch.cuda.synchronize()\n")
    made = plan(tmp_path)
    assert set(made.contents) == {"run.py", "src/pkg/deep/a.py", "src/pkg/sapper_device.py"}
    assert all(b"from pkg import sapper_device\n" in made.contents[path] for path in ("run.py", "src/pkg/deep/a.py"))


def test_a_denied_test_for_cuda_is_rewritten_unless_what_it_lets_through_is_cudas_own(tmp_path: Path) -> None:
    after = fixed(
        tmp_path,
        """
        import torch

        def report():
            if not torch.cuda.is_available():
                return
            print(torch.cuda.memory_allocated())

        def mark(x):
            if x.device.type != "cuda":
                return x
            torch.cuda.nvtx.range_push("mark")

        def branch(x):
            if not torch.cuda.is_available():
                pass
            else:
                torch.cuda.nvtx.range_push("branch")
        """,
        style="file",
    )
    assert "if not sapper_device.is_available():\n        return" in after
    assert 'if x.device.type != "cuda":' in after
    assert "if not torch.cuda.is_available():\n        pass" in after


@pytest.mark.parametrize(
    "test",
    [
        "not no_cuda and torch.cuda.is_available()",
        "rank == 0 and torch.cuda.is_available()",
        "device is None and torch.cuda.is_available()",
        "torch.cuda.is_available() and not no_cuda",
        "rank < torch.cuda.device_count()",
        "not (no_cuda or not torch.cuda.is_available())",
    ],
)
def test_what_else_a_test_denies_does_not_turn_it_round(test: str, tmp_path: Path) -> None:
    code = "import torch\n\ndef run(model, no_cuda, device, rank):\n    if {}:\n        model.to('cuda'){}\n"
    hard = "\n        torch.cuda.cudart().cudaProfilerStart()"
    assert f"    if {test}:\n        model.to(sapper_device.device_type())" in fixed(tmp_path, code.format(test, hard), style="file")
    assert f"    if {test}:" not in fixed(tmp_path, code.format(test, ""), style="file")


@pytest.mark.parametrize(
    "test", ["not torch.cuda.is_available() or no_cuda", "torch.cuda.device_count() < 1", "torch.cuda.device_count() <= 0"]
)
def test_what_is_left_by_a_denied_test_keeps_it(test: str, tmp_path: Path) -> None:
    code = "import torch\n\ndef run(model, no_cuda):\n    if {}:\n        return\n    model.to('cuda'){}\n"
    hard = "\n    torch.cuda.cudart().cudaProfilerStart()"
    assert f"    if {test}:" in fixed(tmp_path, code.format(test, hard), style="file")
    assert f"    if {test}:" not in fixed(tmp_path, code.format(test, ""), style="file")


@pytest.mark.parametrize(("asked", "test"), [("", 'hasattr(torch, "accelerator")'), ('HAS = hasattr(torch, "accelerator")', "HAS")])
def test_the_branch_for_a_pytorch_without_accelerators_stays(asked: str, test: str, tmp_path: Path) -> None:
    both = "if {}:\n    device = {}\nelse:\n    device = {}\nx = x.cuda()\n"
    new, old = "torch.accelerator.current_accelerator()", 'torch.device("cuda")'
    chosen = f"device = {new} if {test} else {old}\nx = x.cuda()\n"
    for before in (both.format(test, new, old), both.format(f"not {test}", old, new), chosen):
        after = fixed(tmp_path, f"import torch\n\n{asked}\n{before}")
        assert before.replace("x.cuda()", "x.to(DEVICE_TYPE)") in after


def test_an_accelerator_of_something_else_says_nothing_of_pytorch(tmp_path: Path) -> None:
    before = "import torch\n\ndef run(self, x):\n    if not hasattr(self, 'accelerator'):\n        return x.cuda()\n"
    assert "return x.to(DEVICE_TYPE)" in fixed(tmp_path, before)


@pytest.mark.parametrize("style", ["accelerator", "file"])
def test_a_module_that_does_without_pytorch_still_does(style: Style, tmp_path: Path) -> None:
    before = "try:\n    import torch\n    there = True\nexcept ImportError:\n    there = False\n\n\ndef f(x):\n    return x.cuda()\n"
    before += "\n\ndef g(x, device='cuda'):\n    return x.to(device)\n"
    after = fixed(tmp_path, before, style=style)
    assert "x.cuda()" not in after and "device='cuda'" in after  # a default is worked out when the module is imported
    code = f"import sys\nsys.modules['torch'] = None\n{after}\nprint(there)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=tmp_path, check=True)
    assert done.stdout == "False\n"
    assert fixed(tmp_path, after, style=style) == after


@pytest.mark.parametrize("style", ["accelerator", "file"])
def test_a_module_that_does_without_pytorch_in_one_line_still_does(style: Style, tmp_path: Path) -> None:
    before = "try: import torch  # optional\nexcept ImportError: torch = None\n\n\ndef f(x):\n    return x.cuda()\n"
    after = fixed(tmp_path, before, style=style)
    assert after.startswith("try:\n    import torch  # optional\n") and "x.cuda()" not in after
    code = f"import sys\nsys.modules['torch'] = None\n{after}\nprint(torch)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), cwd=tmp_path, check=True)
    assert done.stdout == "None\n"
    assert fixed(tmp_path, after, style=style) == after


def test_a_module_that_asks_for_pytorch_in_its_own_words_has_it(tmp_path: Path) -> None:
    asked = "try:\n    import torch\nexcept ImportError:\n    raise RuntimeError('no PyTorch')\n"
    before = f"{asked}\ndef g(x, device='cuda'):\n    return x.to(device)\n"
    assert "device=DEVICE_TYPE" in fixed(tmp_path, before)


def test_what_is_asked_for_cudas_sake_stays(tmp_path: Path) -> None:
    before = """
    import torch

    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
    print("CUDA:", torch.cuda.is_available())
    """
    assert fixed(tmp_path, before) == textwrap.dedent(before)


WRITTEN_HELPER = "src/sapper/port/fix/data/sapper_device.py.txt"
OTHER_MACHINES = {
    "2.4": "del torch.accelerator",
    "2.13": "",
    "mac": "torch.accelerator.is_available, torch.accelerator.current_accelerator = lambda: True, lambda: torch.device('mps')",
}


@pytest.mark.torch
@pytest.mark.parametrize("machine", OTHER_MACHINES)
def test_what_the_style_accelerator_writes_runs_on_every_pytorch(machine: str, tmp_path: Path) -> None:
    """Also before 2.6, which has no ``torch.accelerator``; and on the CPU, where ``torch.cuda`` answers as it did, as on a Mac."""
    after = fixed(
        tmp_path,
        """
        import torch
        import torch.distributed

        seeded = torch.cuda.manual_seed_all(0)
        freed = torch.cuda.empty_cache()
        found = torch.cuda.is_available(), torch.cuda.device_count(), torch.cuda.max_memory_allocated()
        x = torch.ones(2).to("cuda")
        backend = "nccl"
        """,
    )
    assert "torch.cuda." not in "\n".join(line for line in after.split("\n") if "sapper: keep" not in line)
    # in a process of its own: in this one another test may have registered an accelerator
    helper = f"exec({(ROOT / WRITTEN_HELPER).read_text('utf-8')!r})\nprint(device_type())\n"
    code = f"import torch\n{OTHER_MACHINES[machine]}\n{after}\nprint(found, x.device, backend)\n{helper}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.split("\n") == ["(False, 0, 0) cpu gloo", "cpu", ""]


def test_constants_are_completed_on_a_second_run_and_give_way_to_names_of_the_file(tmp_path: Path) -> None:
    once = fixed(tmp_path, "import torch\n\nx = torch.ones(2).cuda()\n")
    twice = fixed(tmp_path, once + "torch.cuda.synchronize()\n")
    other = fixed(tmp_path, 'import torch\n\nDEVICE_MODULE = "mine"\ntorch.cuda.synchronize()\n')

    assert twice.startswith(once[: once.index("\n\nx =")]) and twice.index("DEVICE_TYPE = ") < twice.index("DEVICE_MODULE = ")
    assert "SAPPER_DEVICE_MODULE.synchronize()" in other


@pytest.mark.parametrize("style", ["accelerator", "file"])
def test_nothing_is_used_above_where_it_can_stand(style: Style, tmp_path: Path) -> None:
    before = """
    DEVICE = "cuda"

    def load(x, device="cuda"):
        return x.to("cuda")

    import torch; first = torch.ones(1).cuda()
    second = torch.ones(1).cuda()
    """
    after = fixed(tmp_path, before, style=style)
    assert 'DEVICE = "cuda"\n' in after and 'device="cuda"' in after and "first = torch.ones(1).cuda()" in after
    assert 'x.to("cuda")' not in after and "second = torch.ones(1).cuda()" not in after


def test_an_option_that_switches_on_cuda_is_no_safe_rewrite(tmp_path: Path) -> None:
    before = 'import torch\n\nmeans = FaissKMeans(niter=20, gpu=self.device.type == "cuda")\n'
    assert fixed(tmp_path, before) == before
    assert 'gpu=self.device.type != "cpu"' in fixed(tmp_path, before, unsafe=True)


@pytest.mark.parametrize("asked", ['x.device == torch.device("cuda")', 'torch.device("cuda") != x.device', 'str(x.device) == "cuda"'])
def test_a_device_with_its_index_is_not_compared_with_another_on_cuda(asked: str, tmp_path: Path) -> None:
    """A tensor is on ``cuda:0``, which ``cuda`` does not equal: it must not become a question for what is not the CPU."""
    before = f"import torch\n\non = {asked}\n"
    assert fixed(tmp_path, before) == before
    assert fixed(tmp_path, before, unsafe=True).endswith("\non = " + asked.replace('"cuda"', "DEVICE_TYPE") + "\n")


@pytest.mark.torch
def test_what_a_safe_rewrite_calls_is_there_on_another_chip(tmp_path: Path) -> None:
    """PyTorch's own module for Intel's chips, which is there without one."""
    from torch import xpu

    assert [name for name in members.SAFE if not hasattr(xpu, RENAMED.get(name, name))] == []
    before = "import torch\n\nseen = torch.cuda.is_available()\ntorch.cuda.ipc_collect()\nprint(torch.cuda.memory_summary())\n"
    assert "torch.cuda.ipc_collect()\nprint(torch.cuda.memory_summary())" in fixed(tmp_path, before), "what it may not have is left"
    after = fixed(tmp_path, before, style="file")
    (tmp_path / "sapper_device.py").write_text((ROOT / WRITTEN_HELPER).read_text("utf-8"))
    machine = "import torch\nimport sapper_device\nsapper_device.device_type = lambda: 'xpu'\n"
    (tmp_path / "run.py").write_text(machine + after)
    done = subprocess.run([sys.executable, "run.py"], cwd=tmp_path, capture_output=True, text=True, env=environment(), check=True)
    assert "torch.cuda" not in after and done.stdout == "\n"


def test_one_of_several_devices_is_not_negated(tmp_path: Path) -> None:
    before = 'import torch\n\nif "cuda" in (device_from, device_to): pass\n'
    assert fixed(tmp_path, before, unsafe=True) == before
