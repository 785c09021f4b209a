"""Configuration of PyTorch's own device tests for a plug-in: which ops they take, and what they leave out, with the reason.

PyTorch 2.13 reads it by ``PrivateUse1TestBase.set_test_configs``: ``op_allowlist`` are the ops whose tests are made at all,
``op_overrides`` decorate single dtypes of these. Keys are ``OpInfo.full_name``, the names that a campaign uses.
"""

from __future__ import annotations

from collections.abc import Iterable

from sapper import messages
from sapper.prove.ops.result import Ops
from sapper.prove.verdict import GREEN, RED, SEVERITY, CaseVerdict

DTYPES = {
    "fp32": "float32", "bf16": "bfloat16", "fp16": "float16", "fp64": "float64", "int64": "int64", "int32": "int32", "int16": "int16",
    "int8": "int8", "uint8": "uint8", "bool": "bool", "complex64": "complex64", "complex128": "complex128",
}  # fmt: skip
"""Names of PyTorch."""
GRADIENT_TESTS = "TestBwdGradients"
"""The class of PyTorch's tests that a finding in gradients alone is about."""
_WORDS = 120


def config_of(found: Ops) -> str:
    """The module: Python, to be imported before ``instantiate_device_type_tests``."""
    by_op: dict[str, list[CaseVerdict]] = {}
    for one in found.verdicts:
        by_op.setdefault(one.op, []).append(one)
    allowed = sorted(op for op, of in by_op.items() if any(one.outcome in GREEN for one in of))
    left_out = {op: _why(of) for op, of in sorted(by_op.items()) if op not in allowed}
    overrides = {op: rows for op in allowed if (rows := _rows(by_op[op]))}
    header = found.header
    versions = ", ".join(f"{name} {version}" for name, version in header.versions.items())
    return _TEMPLATE.format(
        backend=header.asked.backend, sapper=header.sapper, date=header.date, cases=len(found.verdicts), versions=versions,
        dtypes=", ".join(header.asked.dtypes), allowed="".join(f"    {op!r},\n" for op in allowed),
        left_out="".join(f"    {op!r}: {why!r},\n" for op, why in left_out.items()),
        overrides="".join(_entry(op, rows) for op, rows in overrides.items()),
    )


def _rows(verdicts: Iterable[CaseVerdict]) -> list[tuple[str, str | None, str]]:
    """(dtype, class of tests or None, reason), the worst of each dtype and phase."""
    groups: dict[tuple[str, str], list[CaseVerdict]] = {}
    for one in verdicts:
        if one.outcome in RED or one.outcome == "unsupported":
            groups.setdefault((str(one.dtype), one.phase), []).append(one)
    rows = []
    for (dtype, phase), of in sorted(groups.items()):
        in_gradients = phase == "backward" and not any(one.outcome in ("crash", "hang", "memory") for one in of)
        rows.append((DTYPES[dtype], GRADIENT_TESTS if in_gradients else None, f"{phase}: {_why(of)}"))
    return rows


def _why(verdicts: list[CaseVerdict]) -> str:
    worst = min(verdicts, key=lambda one: SEVERITY.index(one.outcome))
    said = (worst.said or "").strip().splitlines()
    reason = messages.text(worst.reason, "en", **worst.values) if worst.reason else said[0] if said else ""
    of = sum(one.outcome == worst.outcome for one in verdicts)
    return f"{worst.outcome} in {of} of {len(verdicts)} cases: {reason}"[:_WORDS]


def _entry(op: str, rows: list[tuple[str, str | None, str]]) -> str:
    return f"    {op!r}: [\n" + "".join(f"        {row!r},\n" for row in rows) + "    ],\n"


_TEMPLATE = '''"""PyTorch's device tests on {backend}: which ops they take and what they leave out.

Written by `sapper prove ops` {sapper} on {date} from {cases} cases ({dtypes}); {versions}.
Import it and call `apply()` before `instantiate_device_type_tests`; needs PyTorch 2.13 or newer.
"""

import unittest

import torch
from torch.testing._internal.common_device_type import PrivateUse1TestBase
from torch.testing._internal.opinfo.core import DecorateInfo

# Ops that were right in one case at least; keys are OpInfo.full_name.
ALLOWLIST = [
{allowed}]

# Ops of which no case was right.
LEFT_OUT = {{
{left_out}}}

# op: (dtype, class of tests or None for all, reason)
OVERRIDES = {{
{overrides}}}


def op_overrides():
    """As `set_test_configs` takes them."""
    return {{
        op: [DecorateInfo(unittest.skip(reason), tests, dtypes=(getattr(torch, dtype),)) for dtype, tests, reason in rows]
        for op, rows in OVERRIDES.items()
    }}


def apply(base=PrivateUse1TestBase):
    """Configure the tests of a device."""
    base.set_test_configs(op_allowlist=ALLOWLIST, op_overrides=op_overrides())
'''
