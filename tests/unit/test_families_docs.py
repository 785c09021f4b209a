"""The page on families names each of them, in both languages, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sapper.workloads.families import registry

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("page", ["workloads-families.md", "workloads-families.zh.md"])
def test_each_family_is_listed_once(page):
    text = (DOCS / page).read_text("utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    listed = [name for row in rows for name in re.findall(r"`([^`]+)`", row) if name != "model_type"]

    assert sorted(listed) == sorted(registry())
