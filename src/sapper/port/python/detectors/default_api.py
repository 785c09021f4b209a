"""Calls of libraries that take CUDA unless they are told otherwise."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sapper.port.finding import Finding
from sapper.port.python import lookup, strings
from sapper.port.python.module import Module
from sapper.port.rule import Rule

_OFFLOADS = {
    "enable_model_cpu_offload": ("device", 1),
    "enable_sequential_cpu_offload": ("device", 1),
    "enable_group_offload": ("onload_device", 0),
}
"""Methods of diffusers' pipelines: the argument that says the device, and its position."""
_FUNCTIONS = {
    "torch.amp.GradScaler": ("device", 0),
    "torch.amp.grad_scaler.GradScaler": ("device", 0),
    "torch.GradScaler": ("device", 0),
}
"""Functions of PyTorch with a parameter of that default."""


def default_api(module: Module, rule: Rule) -> Iterator[Finding]:
    """Calls that leave the device to a default of ``"cuda"``."""
    for node in lookup.candidates(module, ast.Call):
        callee = strings.called(node)
        argument = _OFFLOADS.get(callee) if isinstance(node.func, ast.Attribute) else None
        if argument is None and callee == "GradScaler":
            argument = _FUNCTIONS.get(module.name_of(node.func) or "")
        if argument is not None and not _given(node, *argument):
            yield module.finding(rule, node.func, f"{callee}()", values={"argument": argument[0]})


def _given(node: ast.Call, name: str, position: int) -> bool:
    starred = any(isinstance(argument, ast.Starred) for argument in node.args)
    return starred or len(node.args) > position or any(keyword.arg in (None, name) for keyword in node.keywords)
