"""What is_available() is asked for, and code that is optional or CUDA's own."""

from __future__ import annotations

import pytest

from sapper.port import python, rule
from sapper.port.finding import Finding
from sapper.port.source import Source
from sapper.port.target import find
from sapper.port.verdicts import verdict

QUESTION = "torch.cuda.is_available()"


def findings(text: str, path: str = "train.py") -> list[Finding]:
    source = Source(path=path, language="python", text="import torch\n" + text)
    return python.resolve([python.analyse(source, rule.rules())], rule.rules())


def asked(text: str) -> Finding:
    """The one finding about the question."""
    [finding] = [one for one in findings(text) if one.symbol == "torch.cuda.is_available"]
    return finding


@pytest.mark.parametrize(
    ("text", "name", "standing"),
    [
        (f'device = "cuda" if {QUESTION} else "cpu"', "cuda-is-available", "ties"),
        (f"use_cuda = not args.no_cuda and {QUESTION}", "cuda-is-available", "ties"),
        (f"if {QUESTION}:\n    model = model.cuda()", "cuda-is-available", "ties"),
        (f"if {QUESTION}:\n    torch.cuda.manual_seed_all(0)\n    torch.backends.cudnn.benchmark = True", "cuda-is-available", "ties"),
        (f'model.to("cuda" if {QUESTION} else "cpu")', "cuda-is-available", "ties"),
        (f"if {QUESTION}:\n    torch.backends.cudnn.benchmark = True", "cuda-guard", "guarded"),
        (f"if {QUESTION}:\n    from flash_attn import flash_attn_func", "cuda-guard", "guarded"),
        (f"fast = {QUESTION} and torch.cuda.get_device_capability() >= (8, 0)", "cuda-guard", "guarded"),
        (f"if {QUESTION} and torch.cuda.get_device_capability()[0] >= 8:\n    fast = True", "cuda-guard", "guarded"),
        (f'assert {QUESTION}, "a GPU is needed"', "cuda-required", "ties"),
        (f"if not {QUESTION}:\n    raise RuntimeError", "cuda-required", "ties"),
        (f"if args.gpu and not {QUESTION}:\n    sys.exit(1)", "cuda-required", "ties"),
        (f"if {QUESTION}:\n    model.cuda()\nelse:\n    raise RuntimeError", "cuda-required", "ties"),
        (f'@unittest.skipIf(not {QUESTION}, "no GPU")\nclass TestModel(TestCase): pass', "cuda-test-skip", "ties"),
        (f"gpu = pytest.mark.skipif(not {QUESTION}, reason='')", "cuda-test-skip", "ties"),
        (f"def test_gpu():\n    if not {QUESTION}:\n        pytest.skip('no GPU')", "cuda-test-skip", "ties"),
        (f'print("CUDA:", {QUESTION})', "cuda-reported", "guarded"),
        (f'logger.info(f"CUDA: {{{QUESTION}}}")', "cuda-reported", "guarded"),
        (f'print("on " + ("GPU" if {QUESTION} else "CPU"))', "cuda-reported", "guarded"),
        (f"if {QUESTION}:\n    print(torch.cuda.get_device_name(0))", "cuda-reported", "guarded"),
    ],
)
def test_a_question_is_judged_by_what_it_is_asked_for(text: str, name: str, standing: str) -> None:
    finding = asked(text)

    assert (name, standing) == (rule.rules()[finding.code].name, finding.standing)


def test_each_purpose_has_a_verdict_of_its_own() -> None:
    choice, guard = asked(f"flag = {QUESTION}"), asked(f"if {QUESTION}:\n    torch.backends.cudnn.benchmark = True")
    need, skip = asked(f"assert {QUESTION}"), asked(f"gpu = pytest.mark.skipif(not {QUESTION})")
    ascend = find("ascend")

    assert (verdict(guard, ascend).status, verdict(guard, ascend).silence) == ("works", None)
    assert [verdict(one, ascend).silence for one in (choice, need, skip)] == ["silent", "loud", "silent"]
    assert verdict(guard, ascend).source and verdict(guard, find("rocm")).note_en != verdict(guard, ascend).note_en


@pytest.mark.parametrize(
    ("text", "standings"),
    [
        ("try:\n    import apex\nexcept ImportError:\n    apex = None\nif apex is not None:\n    apex.amp.init()", {"guarded"}),
        ("try:\n    from apex import amp\n    HAS = True\nexcept ImportError:\n    HAS = False\nif HAS:\n    amp.init()", {"guarded"}),
        ("try:\n    import apex\nexcept ModuleNotFoundError:\n    print('slower')", {"guarded"}),
        ("try:\n    import apex\nexcept ImportError:\n    raise ImportError('install apex')", {"ties"}),
        ("try:\n    import apex\nexcept ImportError:\n    sys.exit(1)", {"ties"}),
        ("try:\n    import apex\nfinally:\n    done()", {"ties"}),
        ("class CUDAAccelerator(Accelerator):\n    def wait(self):\n        torch.cuda.synchronize()", {"vendor"}),
        ("class CUDA_Accelerator(FastAccelerator):\n    def wait(self):\n        torch.cuda.synchronize()", {"vendor"}),
        ("class CudaPlatformBase(Platform):\n    def wait(self):\n        torch.cuda.synchronize()", {"vendor"}),
        ("class CudaModel(torch.nn.Module):\n    def wait(self):\n        torch.cuda.synchronize()", {"ties"}),
        ("class GPURunner(Runner):\n    def wait(self):\n        torch.cuda.synchronize()", {"ties"}),
    ],
)
def test_what_is_optional_or_one_of_several_is_told_from_what_ties(text: str, standings: set[str]) -> None:
    assert standings == {finding.standing for finding in findings(text)}
