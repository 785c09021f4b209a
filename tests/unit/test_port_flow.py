"""Where literals flow, what carries CUDA's answers, and the couplings that name no CUDA."""

from __future__ import annotations

import pytest

from sapper.port import python, rule
from sapper.port.finding import Finding
from sapper.port.source import Source


def found(text: str, *names: str, path: str = "train.py") -> list[Finding]:
    """Findings of the rules of these names, all where none is given."""
    source = Source(path=path, language="python", text=text)
    known = rule.rules()
    every = python.resolve([python.analyse(source, known)], known)
    return [finding for finding in every if not names or known[finding.code].name in names]


def lines(text: str, *names: str, path: str = "train.py") -> list[int]:
    return sorted({finding.place.line for finding in found(text, *names, path=path)})


def rules_of(text: str) -> set[str]:
    return {rule.rules()[finding.code].name for finding in found(text)}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('x = torch.zeros(4, device="cuda")', "device-string"),
        ('x = x.to(f"cuda:{rank}")', "device-string"),
        ('x = x.to("cuda:%d" % rank)', "device-string"),
        ('x = x.to("cuda:{}".format(rank))', "device-string"),
        ('device = "cuda" if found else "cpu"', "device-string"),
        ('table = {"lm_head": "cuda:1"}', "device-string"),
        ('command = "python train.py --device cuda"', "device-string"),
        ('if device.type == "cuda": pass', "device-comparison"),
        ('if str(device).startswith("cuda"): pass', "device-comparison"),
        ('if "cuda" in str(device): pass', "device-comparison"),
        ('if device in ("cuda", "mps"): pass', "device-comparison"),
        ('state = torch.load(path, map_location="cuda:0")', "map-location"),
        ('with torch.autocast("cuda"): pass', "autocast-device"),
        ('with torch.autocast(device_type="cuda"): pass', "autocast-device"),
        ('mesh = init_device_mesh("cuda", (2, 4))', "device-mesh"),
        ('def build(size, *, device="cuda"): pass', "device-default"),
        ('parser.add_argument("--device", default="cuda")', "device-default"),
        ('class Config:\n    device: str = "cuda"', "device-default"),
        ('name = config.get("device", "cuda")', "device-default"),
        ('states["cuda_rng_state"] = state', "cuda-key"),
        ('has = hasattr(torch, "cuda")\nreset = getattr(ops, "reset_cuda")', "cuda-by-name"),
        ('@patch("torch.cuda.device_count", return_value=2)\ndef f(): pass', "cuda-by-name"),
        ('if "CUDA out of memory" in str(error): pass', "error-by-text"),
        ('dist.init_process_group("nccl")', "nccl-backend"),
        ('dist.init_process_group(backend="cpu:gloo,cuda:nccl")', "nccl-backend"),
        ('if dist.get_backend() == "nccl": pass', "nccl-comparison"),
        ('os.environ["NCCL_DEBUG"] = "INFO"', "nccl-environment"),
        ('os.environ.setdefault("TORCH_NCCL_AVOID_RECORD_STREAMS", "1")', "nccl-environment"),
        ('os.environ["CUDA_VISIBLE_DEVICES"] = "0"', "visible-devices"),
        ('runtime = {"env_vars": {"CUDA_DEVICE_MAX_CONNECTIONS": "1"}}', "cuda-environment"),
        ('kinds = ["torch.cuda.HalfTensor"]', "typed-tensor"),
        ('lib.impl("mm", mm, "CUDA")', "dispatch-key"),
        ('subprocess.run(["nvidia-smi", "-L"])', "nvidia-tool"),
        ('parser.add_argument("--no-cuda", action="store_true")', "cuda-named"),
    ],
)
def test_a_literal_is_judged_by_what_takes_it(text: str, name: str) -> None:
    assert name in rules_of("import os, subprocess\nimport torch\nimport torch.distributed as dist\n" + text)


@pytest.mark.parametrize(
    "text",
    [
        '"""Runs on cuda."""',
        'print("cuda")',
        'assert found, "cuda"',
        'parser.add_argument("--device", help="cuda")',
        '@pytest.mark.skipif(True, reason="CUDA")\ndef f(): pass',
        'path = os.path.join(root, "cuda")',
        'title = "cuda"',
        "x = 'barracuda'",
        "barracuda = 1",
    ],
)
def test_prose_file_names_and_other_words_are_no_findings(text: str) -> None:
    assert found("import os\n" + text) == []


@pytest.mark.parametrize("text", ['logger.info("CUDA is not available")', 'raise ValueError("needs CUDA")'])
def test_a_sentence_that_tells_of_cuda_is_a_finding_of_its_own_kind(text: str) -> None:
    assert rules_of(f'"""It runs on CUDA."""\n{text}\n') == {"text-names-cuda"}
    assert "text-names-cuda" not in rules_of(f"import torch\ntorch.cuda.synchronize(); {text}\n")


def test_a_method_of_that_name_is_found_on_tensors_and_not_on_a_foreign_module() -> None:
    text = "import cv2\nx = y.cuda()\nz = cv2.cuda.GpuMat()\nw = x.is_cuda\nn = args.cuda\n"

    assert lines(text, "cuda-method") == [2]
    assert lines(text, "is-cuda") == [4]
    assert lines(text, "cuda-named") == [5]


COUNT = """
import torch

count = torch.cuda.device_count()
choices = [str(index) for index in range(count)]
share = 128 // count
other = share + 1
"""


def test_a_value_is_followed_from_what_asked_cuda_and_says_where_it_comes_from() -> None:
    carried = found(COUNT, "carried-value")

    assert [(finding.place.line, finding.symbol, finding.because) for finding in carried] == [
        (5, "count", "train.py:4"),
        (6, "count", "train.py:4"),
    ]


@pytest.mark.parametrize(
    ("unpacked", "told"),
    [
        ("size, on, device = *x.shape, x.is_cuda, x.device", [3]),
        ("size, *on = x.shape, x.is_cuda, x.device", [3]),
        ("size, (on, device) = x.shape, (x.is_cuda, x.device)", [3]),
        ("(size, on), device = (x.shape, x.is_cuda), x.device", [3]),
        ("*size, on, device = x.device, *pair(x.is_cuda)", []),
        ("on = size = x.is_cuda", [3, 5]),
    ],
)
def test_of_what_is_unpacked_each_name_carries_its_own_part(unpacked: str, told: list[int]) -> None:
    text = f"def run(x):\n    {unpacked}\n    if on:\n        pass\n    return size, device\n"
    assert lines(text, "carried-value") == told


def test_a_number_per_device_is_the_programs_own() -> None:
    assert 7 not in lines(COUNT, "carried-value")


def test_flags_attributes_and_functions_carry() -> None:
    text = """
import torch
import torch.distributed as dist

class Runner:
    def __init__(self):
        self.fast = torch.cuda.is_available()

    def step(self):
        return 1 if self.fast else 0

def collects_on_device():
    return dist.get_backend() == "nccl"

def gather():
    if collects_on_device():
        return 1
"""
    assert lines(text, "carried-value") == [10, 16]


def test_devices_and_streams_are_found_where_they_are_made_and_not_at_each_use() -> None:
    text = 'import torch\n\ndevice = torch.device("cuda")\nstream = torch.cuda.Stream()\nx = y.to(device)\nstream.wait()\n'

    assert lines(text, "carried-value") == []


def test_capability_is_followed_into_the_comparison() -> None:
    text = "import torch\n\nmajor, minor = torch.cuda.get_device_capability()\nif major < 8:\n    pass\nsize = props.total_memory\n"

    assert lines(text, "capability-logic") == [4, 6]


def test_a_call_that_leaves_out_the_argument_whose_default_is_cuda() -> None:
    text = """
def build(size, device="cuda"):
    return size, device

build(4)
build(4, device="cpu")
build(4, "cpu")
build(4, **options)
"""
    assert lines(text, "relies-on-default") == [5]


def test_libraries_that_take_cuda_by_default() -> None:
    text = """
import torch
pipe.enable_model_cpu_offload()
pipe.enable_model_cpu_offload(device=torch_device)
scaler = torch.amp.GradScaler()
scaler = torch.amp.GradScaler(device_type)
"""
    assert lines(text, "default-api") == [3, 5]


def test_gates_by_name_and_by_what_they_ask() -> None:
    text = """
import unittest

import pytest
import torch
from transformers.testing_utils import require_torch_multi_gpu

def needs_many(test):
    return unittest.skipUnless(torch.cuda.device_count() > 1, "many")(test)

@require_torch_multi_gpu
def test_a(): pass

@needs_many
def test_b(): pass

@pytest.mark.gpu
def test_c(): pass

@pytest.mark.slow
def test_d(): pass
"""
    assert lines(text, "gpu-gate", path="tests/test_it.py") == [6, 11, 14, 17]


def test_schedulers_that_know_gpus_by_that_name() -> None:
    text = """
import ray
ray.remote(num_gpus=1)(f)
free = node.get("GPU", 0)
bundle = {"CPU": 1, "GPU": 1}
parser.add_argument("--n", help="GPU")
"""
    assert lines(text, "gpu-resource") == [3, 4, 5]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("from ray.train import ScalingConfig\nconfig = make(use_gpu=True)\n", [2]),
        ("def start():\n    import ray\n    return ray\n\n\npool = Pool(use_gpu=True)\n", [6]),
        ("from nerf.ray import March\nmarch = March(use_gpu=True), RayMarcher(use_gpu=True)\n", []),
        ("pool = RayResourcePool(use_gpu=True)\n", [1]),
        ("from arrays import Loss\nloss = Loss(use_gpu=config.use_gpu)\n", []),
    ],
)
def test_a_switch_of_the_projects_own_is_no_resource_of_a_scheduler(text: str, told: list[int]) -> None:
    assert lines(text, "gpu-resource") == told


def test_ops_that_are_compiled_when_they_are_loaded() -> None:
    text = "ops = AsyncIOBuilder().load()\nbuilder = QueryBuilder()\nrow = table.load()\n"

    assert lines(text, "op-builder") == [1]


def test_labels_of_measured_values_beside_code_that_asks_and_no_other_text() -> None:
    text = """
import torch

def report(log, stats):
    used = torch.cuda.max_memory_allocated()
    stats["gpu_memory"] = used
    log.info(f"GPU memory: {stats}")
    log.info("the GPU is a fine thing")

def check(n):
    if n >= torch.cuda.device_count():
        raise ValueError("more ranks than GPUs")
"""
    assert lines(text, "gpu-label") == [6, 7, 12]


def test_messages_where_cudas_answer_is_known_and_advice_that_quotes_code() -> None:
    text = """
import torch

def setup(device, log, parser):
    if device.type != "cuda":
        log.info("memory is reported on CUDA devices only")
        pytest.skip("no CUDA")
    log.info("CUDA is loved by many")
    raise ValueError("pass `device_map={'': torch.cuda.current_device()}`")

parser.add_argument("--no-cuda", action="store_true",
                    help="disables CUDA training")
parser.add_argument("--epochs", help="CUDA or not")

def test_setup():
    with pytest.raises(ValueError, match="was assigned cuda:0"):
        setup(1, 2, 3)

def explain(error):
    if "Cannot re-initialize CUDA" in str(error):
        raise RuntimeError("something has started CUDA") from error
"""
    assert lines(text, "gpu-label") == [6, 9, 12, 16, 21]


def test_a_bare_number_is_a_device_where_it_is_moved_to() -> None:
    assert lines("m = m.to(rank)\nx = x.to(dtype)\ny = y.to(0)\n", "integer-device") == [1, 3]


def test_options_that_name_a_library_or_a_precision() -> None:
    text = """
model = load(attn_implementation="flash_attention_2")
other = load(attn_implementation="sdpa")
optimizer = AdamW(params, fused=True)
layer = Rotary(fused=True)
trainer = Trainer(fp16=True)
trainer = Trainer(fp16=False)
half = model.half()
"""
    assert lines(text, "library-option") == [2, 4]
    assert lines(text, "half-precision") == [6, 8]


def test_a_name_is_told_only_where_nothing_else_is_said_about_its_line() -> None:
    text = "import torch\n\nuse_cuda = torch.cuda.is_available()\nif use_cuda:\n    pass\n"

    assert lines(text, "cuda-is-available") == [3]
    assert lines(text, "cuda-named") == []
    assert lines(text, "carried-value") == [4]


def test_a_star_import_gives_no_meaning_to_what_the_file_binds_itself():
    text = "from pynvml import *\n\ndef probe(times):\n    for turn in range(times):\n        nvmlInit()\n"

    assert lines(text) == [1, 5]


def test_a_module_of_the_project_that_is_named_after_cuda_is_found_where_it_is_imported():
    assert lines("from shop.cuda_native import Attention\nfrom shop.barracuda import Fish\n", "cuda-named") == [1]


REBOUND = """import torch
def run():
    n = torch.cuda.device_count()
    print(n)
    n = {value}
    use(n)
"""


@pytest.mark.parametrize("value", ["torch.cuda.Stream()", 'torch.device("cuda")', "torch.cuda.current_device()"])
def test_a_variable_that_is_given_a_stream_or_a_device_carries_no_count_any_more(value: str) -> None:
    assert lines(REBOUND.format(value=value), "carried-value") == [4]


def test_a_variable_that_may_be_given_a_stream_carries_its_count_all_the_same() -> None:
    text = REBOUND.format(value="torch.cuda.Stream()").replace("    n = torch.cuda.Stream()", "    if x: n = torch.cuda.Stream()")
    assert lines(text, "carried-value") == [4, 6]


def test_a_variable_that_is_given_a_count_again_carries_it_again() -> None:
    text = REBOUND.format(value="torch.cuda.Stream()") + "    n = torch.cuda.get_device_capability()[0]\n    return n >= 8\n"
    assert lines(text, "carried-value") == [4, 8]
