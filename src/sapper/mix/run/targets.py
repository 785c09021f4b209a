"""What a user names on the command line, as a model and data that the runtime takes."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from sapper.errors import BadValue
from sapper.files import read_json
from sapper.mix.run import tree
from sapper.mix.run.data import Data, Tokens, label_count
from sapper.mix.run.models import BuiltModel, ConfigModel, Model
from sapper.programs import library
from sapper.programs.program import build, load_builder


def model_of(target: str, *, seq_len: int) -> Model:
    """The model of a config.json, a folder with one, the name of a bundled model, or ``FILE.py:BUILDER``.

    Raises:
        SapperError: There is none.
    """
    if library.is_config(target):
        path = library.config_path(target)
        return ConfigModel(config=read_json(path), name=library.config_name(path))
    builder, path_ = load_builder(target)
    return BuiltModel(lambda: build(builder, path_, batch=None, seq=seq_len if _takes_seq(builder) else None), name=target)


def data_of(target: str | None, model: Model, *, seq_len: int) -> Data:
    """The samples that ``FILE.py:LOADER`` returns; of a config's model without a loader, drawn sequences; of a builder's, its inputs.

    Raises:
        SapperError: There are none.
    """
    if target is not None:
        loader, path = load_builder(target)
        found = loader()
        if not hasattr(found, "batch"):
            raise BadValue("SP-MIX-225", where=path)
        return found if hasattr(found, "weight") else _Counted(found)
    if isinstance(model, ConfigModel):
        text = model.config.get("text_config", model.config)
        return Tokens(vocab=int(text["vocab_size"]), seq=seq_len)
    assert isinstance(model, BuiltModel)
    return _Own(model)


def _takes_seq(builder: Any) -> bool:
    return "seq" in inspect.signature(builder).parameters


class _Counted:
    """Data of a user's that says nothing of weights: its labels count."""

    def __init__(self, found: Any) -> None:
        self._found = found

    def batch(self, numbers: Sequence[int]) -> Any:
        """See :class:`~sapper.mix.run.data.Data`."""
        return self._found.batch(numbers)

    def weight(self, inputs: Any) -> float:
        """See :class:`~sapper.mix.run.data.Data`."""
        return label_count(inputs)


class _Own:
    """The inputs that a builder made, its samples over and over: enough to measure times by, not to train on."""

    def __init__(self, model: BuiltModel) -> None:
        self._inputs = model.build().inputs

    def batch(self, numbers: Sequence[int]) -> Any:
        """See :class:`~sapper.mix.run.data.Data`."""
        return tree.mapped(self._inputs, lambda one: one[[number % one.shape[0] for number in numbers]] if one.dim() else one)

    def weight(self, inputs: Any) -> float:
        """See :class:`~sapper.mix.run.data.Data`."""
        return label_count(inputs)
