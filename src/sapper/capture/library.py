"""Models of the Transformers library from a config.json, built without weights.

Attention goes through ``scaled_dot_product_attention`` and routed experts through the grouped matmul, which is how they
are trained; the library's other forms have data-dependent shapes or read the weights of an expert once per token.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from sapper.capture.attention import attention
from sapper.capture.program import Program
from sapper.capture.trace import Recorder
from sapper.errors import BadFile
from sapper.workloads.families.seq2seq import target_len

DEFAULT_SEQ = 4096
"""Tokens of a sample where the user gives none and the model takes as many."""

SCANS = re.compile(r"selective_scan|chunk_scan|selective_state_update|delta_rule|delta_attention")
"""Names of the library's scan functions: loops in Python that every fast implementation runs as one kernel."""

_HEADS = (
    "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_MASKED_LM_MAPPING_NAMES",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES", "MODEL_MAPPING_NAMES",
)  # fmt: skip
"""Where the class is looked for when the config does not name one, in order."""


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


def config_of(raw: Mapping[str, Any], where: str) -> Any:
    """The library's configuration object of a parsed config.json, with ``architectures``.

    Raises:
        BadFile: The library has no such model, or refuses the config.
    """
    import transformers

    kind = str(raw.get("model_type"))
    with quiet():
        if kind not in transformers.CONFIG_MAPPING:
            raise BadFile("SP-CAP-012", where=where, kind=kind, version=transformers.__version__)
        named = [str(name) for name in raw.get("architectures") or () if hasattr(transformers, str(name))] or [_class_name(kind)]
        if not named[0]:
            raise BadFile("SP-CAP-012", where=where, kind=kind, version=transformers.__version__)
        try:
            return transformers.CONFIG_MAPPING[kind].from_dict({**raw, "architectures": named})
        except Exception as error:
            raise BadFile("SP-CAP-013", where=where, problem=str(error).splitlines()[0][:300]) from error


def _class_name(kind: str) -> str:
    from transformers.models.auto import modeling_auto

    for mapping in _HEADS:
        found = getattr(modeling_auto, mapping, {}).get(kind)
        if found:
            return str(found if isinstance(found, str) else found[0])
    return ""


OWN = "sapper"
"""Name of our attention among the library's. It is no name that the library makes masks for, so that causality and windows
arrive as arguments and not as a tensor of unknown content."""


def _attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, *, dropout: float = 0.0, is_causal: bool | None = None,
    sliding_window: int | None = None, s_aux: Any = None, **_: Any,
) -> tuple[Any, None]:
    """The library's signature of an attention function; ``s_aux`` are sink logits, which a kernel reads as it reads a mask."""
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal) and query.shape[-2] > 1
    out = attention(
        query, key, value, s_aux if attention_mask is None else attention_mask, dropout, causal and query.shape[-2] == key.shape[-2],
        enable_gqa=True, window=sliding_window,
    )
    return out.transpose(1, 2), None


def _attention_of(class_: Any, wanted: str) -> str:
    """``wanted``, or the next best that the class has."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    if wanted == OWN and getattr(class_, "_supports_attention_backend", False):
        ALL_ATTENTION_FUNCTIONS.register(OWN, _attention)
        return OWN
    if wanted != "eager" and getattr(class_, "_supports_sdpa", False):
        return "sdpa"
    return "eager"


def model_of(config: Any, *, attention_impl: str = OWN, experts: str = "grouped_mm", dtype: Any = None) -> Any:
    """The real model on the device in force (``meta`` or fake), without initialising weights.

    Args:
        config: Of :func:`config_of`.
        attention_impl: Our own, ``sdpa`` or ``eager``.
        experts: ``grouped_mm`` (needs bf16) or ``batched_mm``.
        dtype: Of the weights; None: the config's.
    """
    import transformers
    from transformers.initialization import no_init_weights

    class_ = getattr(transformers, config.architectures[0])
    options: dict[str, Any] = {"attn_implementation": _attention_of(class_, attention_impl)}
    if class_._can_set_experts_implementation():
        options["experts_implementation"] = experts
    if dtype is not None:
        options["dtype"] = dtype
    with no_init_weights(), quiet():
        model = class_._from_config(config, **options)
        model.tie_weights()
    return model


def inputs_of(config: Any, model: Any, *, batch: int, seq: int, labels: bool) -> dict[str, Any]:
    """Inputs of one batch by argument name: token ids, pixels or audio features, and labels where the model takes them."""
    main = model.main_input_name
    found: dict[str, Any] = {}
    if main == "pixel_values":
        height, width = _pair(config.image_size)
        found[main] = torch.zeros(batch, config.num_channels, height, width, dtype=model.dtype)
    elif main == "input_features":
        found[main] = torch.zeros(batch, config.num_mel_bins, 2 * config.max_source_positions, dtype=model.dtype)
        found["decoder_input_ids"] = torch.zeros(batch, seq, dtype=torch.long)
    else:
        found["input_ids"] = torch.zeros(batch, seq, dtype=torch.long)
        if config.is_encoder_decoder:
            found["decoder_input_ids"] = torch.zeros(batch, target_len(seq), dtype=torch.long)
    if labels and "labels" in inspect.signature(model.forward).parameters:
        of_class = "Classification" in config.architectures[0]
        length = found.get("decoder_input_ids", found.get("input_ids", torch.zeros(batch, 1))).shape[1]
        found["labels"] = torch.zeros(*((batch,) if of_class else (batch, length)), dtype=torch.long)
    if getattr(model.config, "use_cache", None) is not None:
        found["use_cache"] = False
    return found


def _pair(size: Any) -> tuple[int, int]:
    return (size[0], size[1]) if isinstance(size, (list, tuple)) else (size, size)


def program_of(config: Any, name: str, *, batch: int, seq: int | None, dtype: Any) -> Program:
    """A training step of the model."""
    model = model_of(config, dtype=dtype).train()
    vision = model.main_input_name == "pixel_values"
    length = seq or min(DEFAULT_SEQ, getattr(config, "max_position_embeddings", None) or DEFAULT_SEQ)
    return Program(
        module=model, inputs=inputs_of(config, model, batch=batch, seq=length, labels=True), name=name,
        seq=None if vision else length, tp_plan=dict(model._tp_plan or {}) or None,
    )


@contextlib.contextmanager
def scan_regions(model: Any, recorder: Recorder) -> Iterator[None]:
    """While it lasts, each call of the library's scan functions is one kernel."""

    def marked(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with recorder.region("scan"):
                return function(*args, **kwargs)

        return run

    undo: list[tuple[Any, str, Any]] = []
    for owner in {type(module) for module in model.modules()}:
        if hasattr(owner, "_rnn_scan"):
            undo.append((owner, "_rnn_scan", owner._rnn_scan))
    sources = {type(module).__module__ for module in model.modules()}
    for path in sorted(source for source in sources if source.startswith("transformers.models.")):
        module = importlib.import_module(path)
        undo += [(module, name, value) for name, value in vars(module).items() if SCANS.search(name) and callable(value)]
    for owner, name, value in undo:
        setattr(owner, name, marked(value))
    try:
        yield
    finally:
        for owner, name, value in undo:
            setattr(owner, name, value)
