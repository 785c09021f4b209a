"""Tests against the real Transformers library: marked ``torch``, skipped where PyTorch or Transformers is missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
if str(HERE) not in sys.path:
    # The helper modules of this folder are not a package: a folder that is called torch must never be imported as one.
    sys.path.append(str(HERE))

MISSING = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
collect_ignore_glob: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder ``torch``."""
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(pytest.mark.torch)


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Fake tensors need no threads, and the machine has other work."""
    import torch

    torch.set_num_threads(1)
