"""Call: one ATen op with its arguments, the unit that every proof shares.

It is the same on every stack: tensors lie on the CPU, devices are left out of the arguments, and an op that changes its inputs
is seen as a function that returns them changed. What a stack ran can so be run again on any other, kept in a file, and told apart
by its id.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from sapper.backends.computation import Computation
from sapper.backends.formulas import give_to_cpu
from sapper.backends.trees import leaves, tensors_in
from sapper.prove.arguments import Slot, decoded, encoded, map_tree
from sapper.prove.signature import signature
from sapper.prove.stored import Unkept, from_bytes, laid_out, to_bytes

give_to_cpu()

Nature = Literal["values", "random", "uninitialised"]
"""What may be asked of an op's outputs: their values, their distribution, or only shape and dtype."""

HIDDEN_WRITES = {
    "aten::native_batch_norm": ("running_mean", "running_var"),
    "aten::cudnn_batch_norm": ("running_mean", "running_var"),
    "aten::miopen_batch_norm": ("running_mean", "running_var"),
}
"""Arguments that an op changes although its schema does not say so (``training`` true only)."""
UNINITIALISED = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "resize_", "resize"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Call:
    """One op and its arguments."""

    op: str
    """As PyTorch registers it: ``aten::add.Tensor``, ``aten::mm``."""
    args: tuple[Any, ...]
    """Positional arguments; a tensor stands as the :class:`Slot` of its place in ``tensors``."""
    kwargs: Mapping[str, Any]
    tensors: tuple[torch.Tensor, ...]
    """On the CPU, strides kept; one for each slot."""

    @classmethod
    def of(cls, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None) -> Call:
        """The call as a dispatch mode sees it, before it runs.

        Tensors on the CPU are shared, not copied, but for those that the op changes; keep a call longer with :meth:`kept`.

        Raises:
            Unkept: A tensor is of a layout that has no plain values (sparse, quantised, nested), or an argument is an object of
                the program.
        """
        known = signature(func)
        if known.takes_objects:
            raise Unkept("prove.reason.argument", op=func.name())
        tensors: list[torch.Tensor] = []
        writes = set(_writes(func, args, kwargs or {}))

        def strip(value: Any, changed: bool) -> Any:
            if isinstance(value, torch.Tensor):
                tensors.append(laid_out(value, copy=changed))
                return Slot(at=len(tensors) - 1)
            if isinstance(value, list | tuple):
                return [strip(one, changed) for one in value]
            if isinstance(value, _STRIPPED):
                return _plain(value)
            return value

        plain = tuple([strip(value, name in writes) for name, value in zip(known.names, args, strict=False)])
        named = {name: strip(value, name in writes) for name, value in kwargs.items() if name not in _LEFT_OUT} if kwargs else {}
        return cls(op=func.name(), args=plain, kwargs=named, tensors=tuple(tensors))

    @property
    def func(self) -> Any:
        """The ``OpOverload``."""
        return overload(self.op)

    @functools.cached_property
    def name(self) -> str:
        """Without namespace and overload: ``add``."""
        return self.op.split("::")[1].split(".")[0]

    @property
    def nature(self) -> Nature:
        """What may be asked of its outputs."""
        if draws(self.func, self.args, self.kwargs):
            return "random"
        return "uninitialised" if self.name in UNINITIALISED else "values"

    @functools.cached_property
    def changed(self) -> tuple[str, ...]:
        """Names of the arguments that it changes."""
        return tuple(_writes(self.func, self.args, self.kwargs))

    @functools.cached_property
    def id(self) -> str:
        """Stable from run to run and machine to machine: of op, shapes, dtypes, strides and attributes, not of values."""
        form = (
            self.op, repr(self.args), repr(self.kwargs) if self.kwargs else "",
            tuple([(one.dtype, one.shape, None if one.is_contiguous() else one.stride()) for one in self.tensors]),
        )  # fmt: skip
        found = _ids.get(form)
        if found is None:
            if len(_ids) >= _MOST_IDS:
                _ids.clear()
            digest = hashlib.sha256(json.dumps(self.form(), sort_keys=True).encode()).hexdigest()
            found = _ids[form] = f"{self.op}#{digest[:12]}"
        return found

    def form(self) -> dict[str, Any]:
        """All but the values, as JSON."""
        return {
            "op": self.op,
            "args": encoded(list(self.args)),
            "kwargs": {name: encoded(value) for name, value in self.kwargs.items()},
            "tensors": [
                {"dtype": str(one.dtype)[6:], "shape": list(one.shape), **({} if one.is_contiguous() else {"stride": list(one.stride())})}
                for one in self.tensors
            ],
        }

    def kept(self) -> Call:
        """A copy that nobody else's writes can change."""
        return Call(op=self.op, args=self.args, kwargs=self.kwargs, tensors=tuple(laid_out(one, copy=True) for one in self.tensors))

    def with_tensors(self, tensors: Sequence[torch.Tensor]) -> Call:
        """The same call on other tensors."""
        return Call(op=self.op, args=self.args, kwargs=self.kwargs, tensors=tuple(laid_out(one) for one in tensors))

    def in_dtypes(self, other: Mapping[torch.dtype, torch.dtype]) -> Call:
        """The same call where the dtypes that it names are replaced; its tensors stay as they are."""

        def replace(value: Any) -> Any:
            return other.get(value, value) if isinstance(value, torch.dtype) else value

        kwargs = {name: map_tree(replace, value) for name, value in self.kwargs.items()}
        return Call(op=self.op, args=tuple(map_tree(replace, one) for one in self.args), kwargs=kwargs, tensors=self.tensors)

    def bound(self, tensors: Sequence[torch.Tensor], *, copy: bool = True) -> tuple[list[Any], dict[str, Any]]:
        """Arguments of :attr:`func` with ``tensors`` in them, positional and by name.

        Args:
            tensors: One for each slot, wherever they lie.
            copy: Give the op copies of what it changes; else it changes ``tensors``.
        """
        given = list(tensors)
        writes = set(self.changed) if copy else set()
        device = given[0].device if given else torch.device("cpu")

        def fill(value: Any, changed: bool) -> Any:
            if isinstance(value, Slot):
                if value.at is None:
                    return device
                return given[value.at].clone() if changed else given[value.at]
            return [fill(one, changed) for one in value] if isinstance(value, list | tuple) else value

        names = signature(self.func).names
        args = [fill(value, name in writes) for name, value in zip(names, self.args, strict=False)]
        kwargs = {name: fill(value, name in writes) for name, value in self.kwargs.items()} if self.kwargs else {}
        if "device" in names and "device" not in kwargs and len(args) <= names.index("device"):
            kwargs["device"] = device
        return args, kwargs

    def run(self, tensors: Sequence[torch.Tensor] | None = None) -> list[torch.Tensor]:
        """Outputs where ``tensors`` lie (its own where None); none of them is changed.

        First what the op returns, then what it changed and did not return. Numbers come as tensors of no dimension.
        """
        given = list(self.tensors if tensors is None else tensors)
        args, kwargs = self.bound(given)
        with torch.no_grad():
            try:
                returned = self.func(*args, **kwargs)
            except RuntimeError:
                if self.changed or not _is_mixed(given):
                    raise
                returned = self._in_fp32(given)
        return self.outputs(returned, args, kwargs)

    def _in_fp32(self, given: Sequence[torch.Tensor]) -> Any:
        """What the op returns, computed in fp32 and rounded once: of a mix of dtypes that the CPU refuses and a device takes.

        CUDA keeps the mean of a norm in fp32 beside bf16 values, for instance; the CPU keeps both in bf16.
        """
        wide = self.in_dtypes(dict.fromkeys(_LOW, torch.float32))
        args, kwargs = wide.bound([one.float() if one.dtype in _LOW else one for one in given])
        forms, named = self.bound([one.to("meta") for one in given])
        meant = iter(leaves(self.func(*forms, **named)))
        found = self.func(*args, **kwargs)
        return torch.utils._pytree.tree_map(
            lambda one: one.to(form.dtype) if (form := next(meant)) is not None and isinstance(one, torch.Tensor) else one, found
        )

    def outputs(self, returned: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
        """What :meth:`run` gives, of an op that has run on ``args`` and ``kwargs`` and changed them where it does."""
        named = signature(self.func).bound(args, kwargs)
        values = [one for one in leaves(returned) if one is not None]
        if not all(isinstance(one, torch.Tensor) for one in values):
            device = next((one.device for one in tensors_in((list(args), dict(kwargs)))), torch.device("cpu"))
            values = [_tensor(one, device) for one in values]
        known = {id(one) for one in values}
        return values + [one for name in self.changed for one in leaves(named[name]) if one is not None and id(one) not in known]

    @functools.cached_property
    def labels(self) -> tuple[str, ...]:
        """A name for each output of :meth:`run`; found by running it once where the schema leaves their number open."""
        returns, known = self.func._schema.returns, signature(self.func)
        fixed = {"output_mask", "has_bias", "grad_input_mask"}.isdisjoint(known.names)
        if fixed and not self.changed and all(str(one.type) != "List[Tensor]" for one in returns):
            return _labels(len(returns), ())
        bound = known.bound(self.args, self.kwargs)
        written = [
            name if isinstance(bound[name], Slot) else f"{name} {at}"
            for name in self.changed
            for at, slot in enumerate(leaves(bound[name]))
            if isinstance(slot, Slot)
        ]
        unreturned = written[sum(known.returns_written) :]
        return _labels(len(self.run()) - len(unreturned), unreturned)

    def computation(self, labels: tuple[str, ...] | None = None) -> Called:
        """As every backend runs it; ``labels`` where they are known, since they may have to be found by running it.

        One that takes no tensor (``arange``) gets an empty one, whose device says where to make its own.
        """
        call, anchor = self, () if self.tensors else (torch.empty(0),)

        def fn(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(call.run(tensors))

        return Called(name=self.op, fn=fn, tensors=(*self.tensors, *anchor), labels=labels or self.labels, call=self)

    def to_bytes(self) -> bytes:
        """One safetensors file: values, and the form in its metadata."""
        return to_bytes(self.tensors, {"call": json.dumps(self.form())})

    @classmethod
    def from_bytes(cls, data: bytes) -> Call:
        """What :meth:`to_bytes` wrote.

        Raises:
            Unkept: The bytes hold no call.
        """
        tensors, facts = from_bytes(data)
        if "call" not in facts:
            raise Unkept("prove.reason.no_call")
        form = json.loads(facts["call"])
        return cls(
            op=form["op"], args=tuple(decoded(form["args"])), kwargs={name: decoded(value) for name, value in form["kwargs"].items()},
            tensors=tuple(tensors),
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Into one safetensors file."""
        path.write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: Path) -> Call:
        """What :meth:`save` wrote."""
        return cls.from_bytes(path.read_bytes())

    def __repr__(self) -> str:
        shapes = ", ".join(f"{str(one.dtype)[6:]}{list(one.shape)}" for one in self.tensors)
        return f"{self.op}({shapes})"


@dataclass(frozen=True, kw_only=True)
class Called(Computation):
    """A computation that is one call."""

    call: Call


@functools.cache
def overload(name: str) -> Any:
    """The ``OpOverload`` of a registered name such as ``aten::add.Tensor``.

    Raises:
        KeyError: PyTorch, with the packages that are imported, has none.
    """
    namespace, _, rest = name.partition("::")
    packet, _, variant = rest.partition(".")
    try:
        return getattr(getattr(getattr(torch.ops, namespace), packet), variant or "default")
    except AttributeError as error:
        raise KeyError(name) from error


def draws(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether an op draws random numbers; one whose dropout drops nothing (fused attention in most models) does not."""
    if not _may_draw(func):
        return False
    known = signature(func)
    given = {**known.defaults, **known.bound(args, kwargs)}
    return given.get("dropout_p", given.get("dropout")) != 0.0 and given.get("train") is not False


@functools.cache
def _may_draw(func: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in func.tags


def _writes(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[str]:
    """Names of the given arguments that the op changes."""
    given = signature(func).bound(args, kwargs)
    yield from (name for name in signature(func).written if given.get(name) is not None)
    if given.get("training"):
        yield from (name for name in HIDDEN_WRITES.get(func.name(), ()) if given.get(name) is not None)


_ids: dict[Any, str] = {}
"""Of calls of a form that was seen before: a step has few, each many times, and to hash one takes as long as a small op."""
_MOST_IDS = 1 << 14
_LEFT_OUT = frozenset({"device", "pin_memory", "non_blocking", "generator"})
"""Arguments by name that are of the device alone."""
_STRIPPED = (torch.device, torch.Generator, torch.SymInt, torch.SymFloat, torch.SymBool)


def _plain(value: Any) -> Any:
    """What stands in a call for an argument that is of the device or of the tracer."""
    if isinstance(value, torch.device):
        return Slot(at=None)
    if isinstance(value, torch.Generator):
        return None
    return value.node.guard_int("", 0) if isinstance(value, torch.SymInt) else float(value)


_LOW = (torch.bfloat16, torch.float16)


def _is_mixed(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether some tensors on the CPU are of a low precision and others of fp32."""
    dtypes = {one.dtype for one in tensors if one.device.type == "cpu"}
    return torch.float32 in dtypes and not dtypes.isdisjoint(_LOW)


def _tensor(value: Any, device: torch.device) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None, device=device)


def _labels(values: int, changed: Sequence[str]) -> tuple[str, ...]:
    return (*("value" if at == 0 else f"value {at}" for at in range(values)), *(f"changed {name}" for name in changed))
