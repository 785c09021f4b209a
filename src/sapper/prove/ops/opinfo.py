"""PyTorch's own database of ops (``torch.testing._internal``): which there are, in which dtypes, and samples of each."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import random
import sys
import types
import unittest
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from sapper.prove.ops.dtypes import DTYPES, WITHOUT_FLOATS
from sapper.prove.ops.entry import Entry, Phase
from sapper.prove.ops.sample import SAMPLED_ON, Sample

FOREACH = ("foreach_unary_op_db", "foreach_binary_op_db", "foreach_pointwise_op_db", "foreach_other_op_db", "foreach_reduce_op_db")
"""Databases of the ops on lists, which optimizers use."""
ON_THE_HOST = frozenset({"tensor_split"})
"""Ops that by PyTorch's own rule take their integer tensors on the CPU."""
UNINITIALISED = frozenset({
    "empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "resize_", "resize_as_",
})  # fmt: skip
"""Ops whose values mean nothing: shape and dtype are all that may be asked."""


@functools.cache
def database() -> dict[str, Any]:
    """OpInfo by full name."""
    _stand_in_for_expecttest()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.testing._internal import common_methods_invocations as db

    _unfreeze_streams()
    found = {info.full_name: info for info in db.op_db}
    for name in FOREACH:
        found |= {info.full_name: info for info in getattr(db, name, ())}
    return found


def _unfreeze_streams() -> None:
    """The database seeds before each random op, which on another device means nothing, and makes every draw the same.

    It also seeds before each sample, always by the same number: samples of one shape would hold the same values, which hides a stale
    cache, whatever our own seed is.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith("torch.testing._internal"):
            if hasattr(module, "wrapper_set_seed"):
                module.wrapper_set_seed = lambda op, *args, **kwargs: op(*args, **kwargs)  # type: ignore[attr-defined]
            if hasattr(module, "set_rng_seed"):
                module.set_rng_seed = lambda seed=None: None  # type: ignore[attr-defined]


def _stand_in_for_expecttest() -> None:
    """The database's module imports this package for tests that have nothing to do with it; vendors' images lack it."""
    if importlib.util.find_spec("expecttest") is None:
        module = types.ModuleType("expecttest")
        module.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        sys.modules["expecttest"] = module


def entries(dtypes: Sequence[str], phases: Sequence[Phase]) -> list[Entry]:
    """All ops in the dtypes that they take, ``fp32`` standing for an integer or complex one where an op takes no floats."""
    found = []
    for name, info in database().items():
        for phase in phases:
            takes = info.dtypes if phase == "forward" else info.supported_backward_dtypes("cpu")
            chosen = [one for one in dtypes if DTYPES[one] in takes]
            if not any(one.is_floating_point for one in info.dtypes) and "fp32" in dtypes and not chosen:
                chosen = [one for one in WITHOUT_FLOATS if DTYPES[one] in takes][:1]
            found += [Entry(op=name, dtype=one, phase=phase) for one in chosen]
    return found


def samples(entry: Entry, *, most: int, seed: int) -> list[tuple[str, Sample | Exception]]:
    """Samples of an op by what tells them apart: at most ``most``, spread evenly over the database's list.

    What cannot be made a sample comes as the reason.
    """
    info = database()[entry.op]
    reseed(entry.op, entry.dtype, seed)
    found = list(info.sample_inputs(SAMPLED_ON, DTYPES[entry.dtype], requires_grad=entry.phase == "backward"))
    count = len(found)
    chosen = range(count) if count <= most else sorted({round(at * (count - 1) / max(most - 1, 1)) for at in range(most)})
    return [(str(at), _sample(info, found[at])) for at in chosen]


def _sample(info: Any, one: Any) -> Sample | Exception:
    function = info.op if info.op is not None else info.inplace_variant
    changes = getattr(function, "__name__", info.name).endswith("_") and not info.name.startswith("__")
    try:
        return Sample.of(
            info.full_name, function, args=(one.input, *one.args), kwargs=dict(one.kwargs), changes=changes,
            host_integers=info.name in ON_THE_HOST,
            process=getattr(one, "output_process_fn_grad", None) or (lambda result: result),
        )  # fmt: skip
    except Exception as error:
        return error


def reseed(*words: Any) -> None:
    """Seed every generator that samples are drawn from, differently for each op.

    Of PyTorch's generators the CPU's alone: the devices' have streams of their own, and to ask for them takes longer than most ops.
    """
    number = int.from_bytes(hashlib.sha256("/".join(map(str, words)).encode()).digest()[:4], "big")
    random.seed(number)
    torch.default_generator.manual_seed(number)
    import numpy

    numpy.random.seed(number)
