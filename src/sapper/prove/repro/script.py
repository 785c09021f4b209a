"""The text of a repro script: it runs alone, prints expected and actual, and ends with 1 where the defect shows, 0 where not.

What it allows is the rule of :mod:`sapper.prove.judge` in a few lines: eight times the largest of the trusted peer's error, what
moving the inputs by a unit roundoff does to the truth, and the rounding of the result. Of an error that is far beyond it nobody asks
where the bound comes from: such a script states it as a number, and is the shorter for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from sapper.prove.judge import RED
from sapper.prove.reference import UNIT_ROUNDOFF
from sapper.prove.repro.recipes import Given, Recipe
from sapper.prove.repro.spell import dtype_names, function_source, needs_packing, step_source, tensor_source
from sapper.prove.suspect import Suspect

Check = Literal["largest", "norm", "mean", "exact", "nan", "form", "repeat", "elsewhere", "fails", "dies", "hangs"]
"""How the defect shows.

``largest``, ``norm``, ``mean``: the largest error, its L2 norm, its mean along the truth's sign; ``exact``: integers that differ;
``nan``: NaN or infinity in other places; ``form``: shape or dtype; ``repeat``: runs that differ from one another;
``elsewhere``: the stack says that ops ran on the host; ``fails``: it raises; ``dies``: the process ends by a signal;
``hangs``: no answer.
"""
MEASURES = {
    "largest": "lambda tensor: tensor.abs().max().item()",
    "norm": "lambda tensor: tensor.norm().item()",
    "mean": "lambda tensor: (tensor * expected.sgn().conj()).mean().abs().item()",
    "repeat": "lambda tensor: tensor.abs().max().item()",
}
REPEATS = 20
"""Runs that a script compares where they differ from one another."""
HANG_LIMIT_S = 60
"""Seconds after which a script says that the stack hangs."""
_LINE = 100
"""Characters of a line of inputs."""
SHOWS, SHOWS_NOT = "DEFECT", "no defect"
"""What the last line of a script ends with."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that decides a script's text."""

    suspect: Suspect
    """With one output (or gradient) that is looked at: the last."""
    check: Check
    recipe: Recipe
    head: Callable[[Suspect], Sequence[str]]
    """Comment lines at its top, without ``#``."""
    allowed: float | None = None
    """The error that the rule allows on these inputs, as a script without it has computed it; then the script only states it."""


def script_of(plan: Plan) -> str:
    """The script's text."""
    suspect = plan.suspect
    calls = [*suspect.before, suspect]
    functions, tensors = [], []
    for at, one in enumerate(calls):
        last = at == len(calls) - 1
        name = "f" if last else f"f{at}"
        names = short_names(one)
        functions += [*function_source(one, names, called=name), ""]
        if one.wrt:
            functions += [*step_source(one, names), ""]
        tensors += _inputs_source(one, "inputs" if last else f"inputs{at}")
    body = [*tensors, *_body(plan)]
    imports = _imports(body, plan)
    head = [f"# {line}" for line in plan.head(suspect)]
    return "\n".join([*head, *imports, "", *functions, *body]) + "\n"


def short_names(suspect: Suspect) -> dict[str, str]:
    """Names of the inputs as a reader would give them."""
    plain = [name for name in suspect.inputs if name not in suspect.cotangents]
    letters = ["x", "y", "z"] if len(plain) <= 3 else [f"x{at}" for at in range(len(plain))]
    given = [name for name in suspect.cotangents if name is not None]
    return {**dict(zip(plain, letters, strict=False)), **{name: f"g{at}" if len(given) > 1 else "g" for at, name in enumerate(given)}}


def _inputs_source(suspect: Suspect, called: str) -> list[str]:
    plain = [name for name in suspect.inputs if name not in suspect.cotangents]
    cotangents = [name for name in suspect.cotangents if name is not None]
    sources = [tensor_source(suspect.inputs[name]) for name in (*plain, *cotangents)]
    if len(sources) == 1 or len(", ".join(sources)) < _LINE:
        return [f"{called} = [{', '.join(sources)}]"]
    lines = [f"{called} = ["]
    for source in sources:
        if lines[-1] != f"{called} = [" and len(lines[-1]) + len(source) < _LINE:
            lines[-1] += f" {source},"
        else:
            lines.append(f"    {source},")
    return [*lines, "]"]


def _imports(body: Sequence[str], plan: Plan) -> list[str]:
    used = ["sys", "torch"]
    if any(needs_packing(line) for line in body):
        used += ["base64", "zlib"]
    if plan.check == "hangs":
        used.append("faulthandler")
    return [f"import {', '.join(sorted(used))}", *plan.recipe.imports]


def _called(suspect: Suspect, function: str, callee: str, arguments: str) -> str:
    if suspect.wrt:
        return f"step({callee}, {arguments})"
    return f"{callee}({arguments})"


def _on_stack(plan: Plan, suspect: Suspect, *, function: str, inputs: str) -> str:
    move = plan.recipe.move
    clones = ".clone()" if suspect.mutates() and not move else ""
    arguments = f"*[one{move or clones} for one in {inputs}]" if move or clones else f"*{inputs}"
    return _called(suspect, function, plan.recipe.callee(function), arguments) + (plan.recipe.back if suspect.outputs else "")


def _body(plan: Plan) -> list[str]:
    suspect = plan.suspect
    lines: list[str] = ["torch.manual_seed(0)"] if plan.check in MEASURES and plan.allowed is None else []
    lines += _reference(plan)
    for at, one in enumerate(suspect.before):
        lines += [*_setup(plan.recipe, one, function=f"f{at}", inputs=f"inputs{at}")]
        lines.append(_on_stack(plan, one, function=f"f{at}", inputs=f"inputs{at}"))
    setup = _setup(plan.recipe, suspect, function="f", inputs="inputs")
    actual = f"actual = {_on_stack(plan, suspect, function='f', inputs='inputs')}"
    ending = _ENDINGS[plan.check]
    return [*lines, *ending(plan, setup, actual)]


def _setup(recipe: Recipe, suspect: Suspect, *, function: str, inputs: str) -> list[str]:
    tensors = tuple(suspect.inputs.values())
    return list(recipe.setup(Given(function=function, inputs=inputs, tensors=tensors, may_be_complex=_may_be_complex(suspect))))


def _may_be_complex(suspect: Suspect) -> bool:
    return any(one.is_complex() for one in suspect.inputs.values()) or any(_COMPLEX.search(op) for op in suspect.ops())


_COMPLEX = re.compile("complex|fft|stft|polar")
"""In names of ops that make complex numbers of real ones."""


def _reference(plan: Plan) -> list[str]:
    suspect = plan.suspect
    copied = "*[one.clone() for one in inputs]" if suspect.mutates() else "*inputs"
    peer = _called(suspect, "f", "f", copied)
    if plan.check in MEASURES:
        names = dtype_names(suspect)
        widened = ", ".join(f"{name}={torch.complex128 if dtype.is_complex else torch.float64}" for dtype, name in names.items())
        own_truth = [f"true = lambda *tensors: f(*tensors, {widened})"] if names else []
        true = "true" if names else "f"
        if _plainly_wide(plan):
            return [*own_truth, f"expected = {_called(suspect, true, true, '*[one.double() for one in inputs]')}  # in fp64"]
        double = "one.cdouble()" if any(one.is_complex() for one in suspect.inputs.values()) else "one.double()"
        floating = "one.is_floating_point()" if double == "one.double()" else "(one.is_floating_point() or one.is_complex())"
        wide = f"wide = lambda one: {double} if torch.is_tensor(one) and {floating} else one"
        truth, moved = _called(suspect, true, true, "*map(wide, inputs)"), _called(suspect, true, true, "*map(nudged, inputs)")
        if plan.allowed is not None:
            return [wide, *own_truth, f"expected = {truth}  # in fp64"]
        return [
            wide,
            f"nudged = lambda one: wide(one) * (1 + {_power(suspect)} * torch.randn(one.shape)) if one.is_floating_point() else wide(one)",
            *own_truth,
            f"expected, moved = {truth}, {moved}  # in fp64; on inputs moved by their rounding",
            f"peer = {peer}  # the CPU in the same dtype",
        ]
    return [f"expected = {peer}  # on the CPU"]


def _plainly_wide(plan: Plan) -> bool:
    """Whether all that a script with a stated bound widens are real numbers."""
    inputs = plan.suspect.inputs.values()
    return plan.allowed is not None and all(one.is_floating_point() for one in inputs) and not _may_be_complex(plan.suspect)


def _widest_roundoff(suspect: Suspect) -> torch.dtype:
    """The coarsest floating dtype among the inputs; fp32 where none is floating."""
    known = [one.dtype for one in suspect.inputs.values() if one.dtype in UNIT_ROUNDOFF]
    return max(known, key=lambda dtype: UNIT_ROUNDOFF[dtype], default=torch.float32)


def _power(suspect: Suspect) -> str:
    """The unit roundoff of the suspect's floating inputs, as a power of two."""
    return f"2.0**{torch.tensor(UNIT_ROUNDOFF[_widest_roundoff(suspect)]).log2().int().item()}"


def _measured(plan: Plan, setup: list[str], actual: str) -> list[str]:
    wide = "actual.double()" if _plainly_wide(plan) else "wide(actual)"
    lines = [*setup, actual, f"size = {MEASURES[plan.check]}"]
    if plan.check == "repeat":
        run = actual.removeprefix("actual = ")
        if plan.recipe.move:  # memory that is used again holds other values each time, where a kernel forgets to write
            run = f"(torch.full_like(actual, at){plan.recipe.move}.sum(), {run})[1]"
        runs = f"runs = [{run} for at in range({REPEATS})]"
        lines += [runs, f"error = max(size({wide.replace('actual', 'run')} - {wide}) for run in runs)"]
    else:
        lines.append(f"error = size({wide} - expected)")
    bound = f"allowed = {RED:g} * max(size(wide(peer) - expected), size(moved - expected), {_power(plan.suspect)} * size(expected), 1e-300)"
    if plan.allowed is not None:
        bound = f"allowed = {plan.allowed:.2g}  # {RED:g} times what the CPU in this dtype and moving the inputs by their rounding give"
    return [
        *lines,
        bound,
        f"at = ({wide} - expected).abs().argmax()",
        'print("expected", expected.flatten()[at].item(), "actual", actual.flatten()[at].item(), "at", at.item(), "of", expected.numel())',
        *_verdict("error > allowed", 'f"{error:.3g} allowed {allowed:.3g}"'),
    ]


def _verdict(condition: str, words: str) -> list[str]:
    return [f'print("error", {words}, "{SHOWS}" if {condition} else "{SHOWS_NOT}")', f"sys.exit({condition})"]


def _exact(plan: Plan, setup: list[str], actual: str) -> list[str]:
    return [
        *setup, actual, 'print("expected", expected.flatten()[:8].tolist(), "actual", actual.flatten()[:8].tolist())',
        *_verdict("not torch.equal(actual, expected)", '(actual != expected).sum().item(), "differ"'),
    ]  # fmt: skip


def _nan(plan: Plan, setup: list[str], actual: str) -> list[str]:
    sign = "1" if _may_be_complex(plan.suspect) else "one.sign()"
    return [
        *setup, actual, f"odd = lambda one: torch.where(one.isinf(), {sign}, one.isnan() * 2)  # infinities and NaN, told apart",
        "at = (odd(actual) != odd(expected)).int().argmax()",
        'print("expected", expected.flatten()[at].item(), "actual", actual.flatten()[at].item(), "at", at.item(), "of", expected.numel())',
        *_verdict("(odd(actual) != odd(expected)).any().item()", '"NaN or infinity in other places"'),
    ]  # fmt: skip


def _form(plan: Plan, setup: list[str], actual: str) -> list[str]:
    return [
        *setup, actual, "print('expected', expected.dtype, list(expected.shape), 'actual', actual.dtype, list(actual.shape))",
        *_verdict("(actual.dtype, actual.shape) != (expected.dtype, expected.shape)", '"shape or dtype"'),
    ]  # fmt: skip


def _elsewhere(plan: Plan, setup: list[str], actual: str) -> list[str]:
    return [
        *setup, actual, f"elsewhere = {plan.recipe.elsewhere}", 'print("expected", "all on the device", "actual, on the host", elsewhere)',
        *_verdict("bool(elsewhere)", 'len(elsewhere), "on the host"'),
    ]  # fmt: skip


def _form_of(plan: Plan, result: str) -> str:
    """What is printed of a result where its values do not matter."""
    return f"list({result}.shape), {result}.dtype" if plan.suspect.outputs else result


def _fails(plan: Plan, setup: list[str], actual: str) -> list[str]:
    return [
        f'print("expected", {_form_of(plan, "expected")})',
        "try:",
        *(f"    {line}" for line in (*setup, actual)),
        "except Exception as error:",
        f'    print("actual", type(error).__name__, error, "{SHOWS}", sep="\\n")',
        "    sys.exit(1)",
        f'print("actual", {_form_of(plan, "actual")}, "{SHOWS_NOT}")',
    ]


def _dies(plan: Plan, setup: list[str], actual: str) -> list[str]:
    first = f'print("expected", {_form_of(plan, "expected")}, flush=True)'
    return [first, *setup, actual, f'print("actual", actual, "{SHOWS_NOT}")']


def _hangs(plan: Plan, setup: list[str], actual: str) -> list[str]:
    wait = f"faulthandler.dump_traceback_later({HANG_LIMIT_S}, exit=True)  # ends with 1 where nothing has come by then"
    return [_dies(plan, setup, actual)[0], wait, *setup, actual, f'print("actual", actual, "{SHOWS_NOT}")', "sys.exit(0)"]


_ENDINGS: dict[str, Any] = {
    **dict.fromkeys(MEASURES, _measured), "exact": _exact, "nan": _nan, "form": _form, "elsewhere": _elsewhere, "fails": _fails,
    "dies": _dies, "hangs": _hangs,
}  # fmt: skip
