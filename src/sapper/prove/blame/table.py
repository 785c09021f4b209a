"""The truth table: which facts make which blame. Rows are read from the top; the first whose facts are all established decides.

The order is that of a fair trial. First whether there is an offence at all, since a legal difference, an ill-conditioned model and a
wrong reference look like one; then whether it shows alone, since what needs a history is state; then the chain from the front, since
a graph that was exported wrongly makes every later part look guilty; then the passes; what is left is the kernel.
"""

from __future__ import annotations

from typing import NamedTuple

from sapper.prove.verdict import Blame

FACTS = (
    "reference_fails", "other_truth_right", "red_alone", "legal", "unlike_peer", "peer_wrong", "near_truth", "spread_explains", "red_after",
    "first_run_only", "later_run_only", "varies", "export_fails", "exported_right", "plain_right", "parts_right", "is_compiler",
    "writes_code", "decomposed_right", "unsupported", "draws", "reads_unwritten", "order_explains", "right_apart", "coarse_read",
)  # fmt: skip
"""What evidence may establish, true or false.

- ``reference_fails``: PyTorch on the CPU refuses or dies on it too.
- ``other_truth_right``: fp64 by another algorithm (decomposed) contradicts the truth, and the stack agrees with it.
- ``red_alone``: by the rule it is a finding in a fresh process, whatever ran before left out.
- ``legal``: what differs is allowed: ties, flushed denormals, another order of sums.
- ``unlike_peer``: it differs from the CPU in the same dtype by more than rounding.
- ``peer_wrong``: the CPU in the same dtype is farther from the truth than any rounding of inputs explains; or than is right, and the
  accused is eight times nearer.
- ``near_truth``: the stack is as near to the truth as rounding of inputs allows.
- ``spread_explains``: the truth itself moves as far when inputs move by their rounding, or another correct algorithm is as far off.
- ``red_after``: a finding after other calls of the same shapes in the same process.
- ``first_run_only``, ``later_run_only``: of two runs in one process, only that one is a finding.
- ``varies``: fresh processes give different findings for the same input.
- ``export_fails``: the exporter raises. ``exported_right``: its graph in a reference evaluator gives the truth.
- ``plain_right``: with passes off it is right. ``parts_right``: op by op it is right.
- ``is_compiler``: the stack takes whole graphs. ``writes_code``: it generates its kernels for each of them.
- ``decomposed_right``: in elementary ops on the same stack it is right.
- ``unsupported``: the stack says that it does not have it.
- ``draws``: the program draws random numbers. ``reads_unwritten``: values differ, and it reads memory that it never wrote.
- ``order_explains``: runs differ, by no more than another order of adding does.
- ``right_apart``: op by op it is wrong, and each op is right in a process of its own.
- ``coarse_read``: it is right for products of operands that are read in TF32 or HF32.
"""


class Row(NamedTuple):
    """One line of the table."""

    name: str
    """Its message is ``prove.ruling.NAME``."""
    needs: dict[str, bool]
    blame: Blame


TABLE = (
    Row("both_refuse", {"reference_fails": True}, "model"),
    Row("unwritten", {"reads_unwritten": True}, "model"),
    Row("draws", {"red_alone": False, "red_after": False, "draws": True}, "legal"),
    Row("other_truth", {"red_alone": True, "other_truth_right": True}, "reference"),
    Row("peer_wrong", {"red_alone": False, "red_after": False, "near_truth": True, "peer_wrong": True}, "reference"),
    Row("legal", {"red_alone": False, "red_after": False, "legal": True}, "legal"),
    Row("any_order", {"red_alone": False, "red_after": False, "order_explains": True}, "legal"),
    Row("conditioned", {"red_alone": False, "red_after": False, "spread_explains": True}, "model"),
    Row("history", {"red_alone": False, "red_after": True}, "state"),
    Row("not_shown", {"red_alone": False, "red_after": False, "unlike_peer": False, "unsupported": False}, "unknown"),
    Row("later_run", {"later_run_only": True}, "state"),
    Row("race", {"varies": True}, "kernel"),
    Row("first_run", {"first_run_only": True}, "state"),
    Row("export_fails", {"export_fails": True}, "exporter"),
    Row("exported_wrong", {"red_alone": True, "exported_right": False}, "exporter"),
    Row("coarse_read", {"red_alone": True, "coarse_read": True}, "compiler"),
    Row("pass", {"red_alone": True, "plain_right": True}, "compiler"),
    Row("between_ops", {"red_alone": True, "right_apart": True}, "state"),
    Row("fusion", {"red_alone": True, "is_compiler": True, "parts_right": True}, "compiler"),
    Row("lacks", {"unsupported": True}, "kernel"),
    Row("fused_kernel", {"red_alone": True, "is_compiler": False, "decomposed_right": True}, "kernel"),
    Row("code", {"red_alone": True, "writes_code": True, "exported_right": True}, "compiler"),
    Row("runtime", {"red_alone": True, "is_compiler": True, "writes_code": False, "exported_right": True}, "kernel"),
    Row("kernel", {"red_alone": True, "is_compiler": False}, "kernel"),
)
"""Rows, first match decides; none: ``unknown``."""


def decide(facts: dict[str, bool]) -> Row:
    """The row that decides."""
    for row in TABLE:
        if all(facts.get(name) is wanted for name, wanted in row.needs.items()):
            return row
    return Row("open", {}, "unknown")
