"""Joins the parts of the probe to one file that needs Python and PyTorch alone."""

from __future__ import annotations

import ast
import pprint
from pathlib import Path

from sapper.probe.parts import phrases

FOLDER = Path(phrases.__file__).parent
ORDER = (
    "talk", "lines", "device", "timing", "session", "dtypes", "matmul", "memory", "attention", "launch", "clocks", "training",
    "collectives", "main",
)  # fmt: skip
"""Parts, each after those that it uses; the phrases come before them, as data. No two may define the same name."""

_OWN = "sapper.probe.parts"
_HEAD = '''#!/usr/bin/env python3
"""Sapper probe {version}: measures a device with Python (3.8 or newer) and PyTorch (1.11 or newer) alone.

    python probe.py --device npu --budget 120s --chip ascend-910b2

Matrix products, memory, attention, launches, collectives, clocks and a small training step go to a JSON Lines file, each
line as soon as it is measured. Carry the file back and run: sapper evidence import FILE
"""

from __future__ import annotations

{imports}

PROBE_VERSION = "{version}"
PHRASES = {phrases}
'''


def probe_source() -> str:
    """The text of the file."""
    texts = {name: (FOLDER / f"{name}.py").read_text("utf-8") for name in ORDER}
    phrase_text = pprint.pformat(phrases.PHRASES, width=140, sort_dicts=False)
    head = _HEAD.format(version=phrases.PROBE_VERSION, imports=_imports(list(texts.values())), phrases=phrase_text)
    return head + "".join(_section(text) for text in texts.values())


def _imports(texts: list[str]) -> str:
    """What the parts import from outside the probe, each module once."""
    whole: set[str] = set()
    named: dict[str, set[str]] = {}
    for node in (node for text in texts for node in ast.parse(text).body):
        if isinstance(node, ast.Import):
            whole |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__" and not node.module.startswith(_OWN):
            named.setdefault(node.module, set()).update(alias.name for alias in node.names)
    lines = [f"import {name}" for name in sorted(whole)]
    return "\n".join(lines + [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(named.items())])


def _section(text: str) -> str:
    """A part as a section: its docstring as a comment, and everything after its imports word for word."""
    tree = ast.parse(text)
    last = max(node.end_lineno or 0 for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)))
    title = (ast.get_docstring(tree) or "").splitlines()
    body = "\n".join(text.splitlines()[last:]).strip("\n")
    rule = f"# {'-' * 100}\n"
    return f"\n\n{rule}" + "".join(f"# {line}".rstrip() + "\n" for line in title) + f"{rule}\n{body}\n"
