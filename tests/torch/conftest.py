"""Tests against the real Transformers library; everything in this folder is marked ``torch``.

The folder is not a package (one that is called torch must never be imported as one), so its helper modules are found by path.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    sys.path.append(str(HERE))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(pytest.mark.torch)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Nothing here needs more, and the other tests run beside it."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _chip() -> None:
    """The emulated chip is registered before the first backward pass of the process: PyTorch's autograd counts the devices once."""
    from sapper.backends import find

    chip = find("papertiger")
    if chip.missing() is None:
        chip.device()
