"""Models of the Transformers library from a config.json: with seeded weights, with those of a folder, or without any."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from sapper.errors import BadFile
from sapper.workloads.config import BUNDLED, bundled, normal, read_config, unknown
from sapper.workloads.families.seq2seq import target_len

_HEADS = (
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES", "MODEL_MAPPING_NAMES",
)  # fmt: skip
"""Where the class is looked for when the config does not name one, in order."""
_TAG = "__float__"
"""Key under which the library writes numbers that JSON does not have (``{"__float__": "Infinity"}``)."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The library talks on stderr and warns about kernels that nobody needs here."""
    log = logging.getLogger("transformers")
    level = log.level
    with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            log.setLevel(level)


def raw_config(path: Path) -> Any:
    """The parsed config.json at ``path``, with infinities as :func:`config_of` takes them.

    Raises:
        BadFile: As :func:`sapper.files.read_json`.
    """
    return read_config(path, not_json=rf'{{"{_TAG}": "\g<0>"}}')


def _plain(value: Any) -> Any:
    """``value`` with tagged numbers as numbers."""
    if isinstance(value, Mapping):
        return float(value[_TAG]) if set(value) == {_TAG} else {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def config_of(raw: Mapping[str, Any], where: str) -> Any:
    """The library's configuration object of a parsed config.json, with ``architectures``.

    Raises:
        BadFile: The library has no such model, or refuses the config.
    """
    import transformers

    kind = str(raw.get("model_type"))
    with quiet():
        if kind not in transformers.CONFIG_MAPPING:
            raise BadFile("SP-PROG-012", where=where, kind=kind, version=transformers.__version__)
        named = [str(name) for name in raw.get("architectures") or () if hasattr(transformers, str(name))] or [_class_name(kind)]
        if not named[0]:
            raise BadFile("SP-PROG-012", where=where, kind=kind, version=transformers.__version__)
        try:
            return _of_class(transformers.CONFIG_MAPPING[kind].from_dict({**_plain(raw), "architectures": named}))
        except Exception as error:
            raise BadFile("SP-PROG-013", where=where, problem=str(error).splitlines()[0][:300]) from error


def _of_class(config: Any) -> Any:
    """``config``, or the part of it that its class takes: the language model of one that sees takes the text's."""
    import transformers

    text = config.get_text_config()
    wanted = getattr(getattr(transformers, config.architectures[0]), "config_class", None)
    if text is config or wanted is None or isinstance(config, wanted) or not isinstance(text, wanted):
        return config
    text.architectures = config.architectures
    return text


def _class_name(kind: str) -> str:
    from transformers.models.auto import modeling_auto

    for mapping in _HEADS:
        found = getattr(modeling_auto, mapping, {}).get(kind)
        if found:
            return str(found if isinstance(found, str) else found[0])
    return ""


def is_causal(config: Any) -> bool:
    """Whether the model of :func:`config_of` is a causal language model: one whose loss shifts its labels by one."""
    from transformers.models.auto import modeling_auto

    return config.architectures[0] in set(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values())


def is_config(target: str) -> bool:
    """Whether a target names a config and no builder."""
    return ".py" not in target


def config_path(target: str) -> Path:
    """The config.json that a target names: a file, a folder with one, or a bundled model.

    Raises:
        UnknownName: Neither a file nor a bundled model.
    """
    path = bundled().get(normal(target)) if not os.path.exists(target) else None
    if path is None:
        path = Path(target) / "config.json" if os.path.isdir(target) else Path(target)
        if not path.exists() and not target.endswith(".json"):
            raise unknown(target)
    return path


def config_name(path: Path) -> str:
    """What a model of this config is called: its file, or the folder where the file is but called config.json."""
    return path.resolve().parent.name if path.name == "config.json" else path.stem


def config_place(path: Path) -> str:
    """The config as named in errors: bundled ones by their name."""
    return path.stem if path.parent == BUNDLED else str(path)


def _attention_of(class_: Any, wanted: str) -> str:
    """``wanted``, or the next best that the class has."""
    if wanted in ("eager", "sdpa"):
        return "sdpa" if wanted == "sdpa" and getattr(class_, "_supports_sdpa", False) else "eager"
    if getattr(class_, "_supports_attention_backend", False) or hasattr(sys.modules[class_.__module__], "ALL_ATTENTION_FUNCTIONS"):
        return wanted  # the classes of hybrid models look their attention up, too, and do not say so
    return "sdpa" if getattr(class_, "_supports_sdpa", False) else "eager"


def model_of(config: Any, *, attention_impl: str, experts: str, dtype: Any = None, weights: bool = False) -> Any:
    """The real model on the device in force.

    Args:
        config: Of :func:`config_of`.
        attention_impl: A name that the library knows, ``sdpa`` or ``eager``; the next best where the class does not have it.
        experts: ``grouped_mm`` (needs bf16) or ``batched_mm``.
        dtype: Of the weights; None: the config's.
        weights: Whether they are initialised, from PyTorch's generator; tensors without data need none.
    """
    import transformers
    from transformers.initialization import no_init_weights

    class_ = getattr(transformers, config.architectures[0])
    options = _options(class_, attention_impl, experts, dtype)
    with contextlib.nullcontext() if weights else no_init_weights(), quiet():
        model = class_._from_config(config, **options)
        model.tie_weights()
    return model


def pretrained(folder: Path, config: Any, *, attention_impl: str, experts: str, dtype: Any = None) -> Any:
    """The model with the weights that lie beside its config.

    Raises:
        BadFile: They do not fit it.
    """
    import transformers

    class_ = getattr(transformers, config.architectures[0])
    try:
        with quiet():
            return class_.from_pretrained(
                str(folder), config=config, local_files_only=True, **_options(class_, attention_impl, experts, dtype)
            )
    except Exception as error:
        raise BadFile("SP-PROG-019", where=str(folder), problem=str(error).strip().splitlines()[0][:300]) from error


def _options(class_: Any, attention_impl: str, experts: str, dtype: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"attn_implementation": _attention_of(class_, attention_impl)}
    if class_._can_set_experts_implementation():
        options["experts_implementation"] = experts
    if dtype is not None:
        options["dtype"] = dtype
    return options


def inputs_of(config: Any, model: Any, *, batch: int, seq: int, labels: bool, values: bool = False) -> dict[str, Any]:
    """Inputs of one batch by argument name: token ids, pixels or audio features, and labels where the model takes them.

    Args:
        config: Of the model.
        model: Says what its main input is.
        batch: Samples.
        seq: Tokens of a sample.
        labels: Whether to add what the loss is taken against.
        values: Whether ids and pixels are drawn from PyTorch's generator; else they are zeros.
    """
    words = getattr(config.get_text_config(), "vocab_size", None) or 2

    def ids(*shape: int, most: int = words) -> Any:
        return torch.randint(0, most, shape) if values else torch.zeros(*shape, dtype=torch.long)

    def reals(*shape: int) -> Any:
        return torch.randn(*shape).to(model.dtype) if values else torch.zeros(*shape, dtype=model.dtype)

    main = model.main_input_name
    found: dict[str, Any] = {}
    if main == "pixel_values":
        found[main] = reals(batch, config.num_channels, *_pair(config.image_size))
    elif main == "input_features":
        found[main] = reals(batch, config.num_mel_bins, 2 * config.max_source_positions)
        found["decoder_input_ids"] = ids(batch, seq)
    else:
        found["input_ids"] = ids(batch, seq)
        if config.is_encoder_decoder:
            found["decoder_input_ids"] = ids(batch, target_len(seq))
    if labels and "labels" in inspect.signature(model.forward).parameters:
        if "Classification" in config.architectures[0]:
            found["labels"] = ids(batch, most=max(int(getattr(config, "num_labels", 2)), 1))
        else:
            of = found.get("decoder_input_ids", found.get("input_ids"))
            found["labels"] = ids(batch, 1 if of is None else of.shape[1])
    if getattr(model.config, "use_cache", None) is not None:
        found["use_cache"] = False
    return found


def _pair(size: Any) -> tuple[int, int]:
    return (size[0], size[1]) if isinstance(size, (list, tuple)) else (size, size)
