"""What a user names on the command line, as a model and data that the runtime takes."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

from sapper.files import read_json
from sapper.mix.run import tree
from sapper.mix.run.data import Data, Tokens, data_of, label_count
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


def samples_of(target: str | None, model: Model, *, seq_len: int) -> Data | None:
    """What ``FILE.py:LOADER`` returns, dealt out by number; without a loader, drawn sequences for a config's model.

    Returns:
        None where a builder's module has no loader: its inputs are one batch, which times can be measured by and nothing learnt.

    Raises:
        SapperError: The loader fails, or returns nothing that can be dealt out.
    """
    if target is not None:
        loader, path = load_builder(target)
        return data_of(loader(), shifted=isinstance(model, ConfigModel), where=path)
    if isinstance(model, ConfigModel):
        text = model.config.get("text_config", model.config)
        return Tokens(vocab=int(text["vocab_size"]), seq=seq_len)
    return None


def _takes_seq(builder: Any) -> bool:
    return "seq" in inspect.signature(builder).parameters


class OwnInputs:
    """The inputs that a builder made, its samples over and over: enough to measure times by, not to train on."""

    def __init__(self, model: Model) -> None:
        assert isinstance(model, BuiltModel), "a config's model has drawn sequences"
        self._inputs = model.build().inputs

    def batch(self, numbers: Sequence[int]) -> Any:
        """See :class:`~sapper.mix.run.data.Data`."""
        return tree.mapped(self._inputs, lambda one: one[[number % one.shape[0] for number in numbers]] if one.dim() else one)

    def weight(self, inputs: Any) -> float:
        """See :class:`~sapper.mix.run.data.Data`."""
        return label_count(inputs)
