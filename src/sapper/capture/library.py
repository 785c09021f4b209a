"""Models of the Transformers library as capture traces them: without weights, in the form in which they are trained.

Attention goes through ``scaled_dot_product_attention`` and routed experts through the grouped matmul; the library's other
forms have data-dependent shapes or read the weights of an expert once per token.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from sapper.capture.attention import Written, attention
from sapper.capture.trace import Recorder
from sapper.errors import BadFile
from sapper.programs import library
from sapper.programs.program import Program
from sapper.workloads import scans

DEFAULT_SEQ = 4096
"""Tokens of a sample where the user gives none and the model takes as many."""

SCANS = re.compile(r"selective_scan|chunk_scan|selective_state_update|delta_rule|delta_attention")
"""Names of the library's scan functions: loops in Python that every fast implementation runs as one kernel."""


def _selective_scan(x: Any, dt: Any, a: Any, *_: Any, **__: Any) -> float:
    """Mamba's: ``x`` has a value for each token and channel, ``a`` is [D, N]."""
    return scans.selective_flops(x.numel(), state=a.shape[-1])


def _chunk_scan(x: Any, dt: Any, a: Any, b: Any, c: Any, chunk_size: int, *_: Any, **__: Any) -> float:
    """Mamba-2's: ``x`` is [batch, T, H, P], ``b`` and ``c`` are [batch, T, G, N]."""
    batch, tokens, heads, head_dim = x.shape
    each = scans.ssd_flops(tokens, heads=heads, head_dim=head_dim, groups=b.shape[-2], state=b.shape[-1], chunk=chunk_size)
    return float(batch * each + scans.SKIP_FLOPS * x.numel())


def _delta_rule(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> float:
    """``key`` is [batch, T, heads, K], ``value`` [batch, T, H, V]."""
    batch, tokens, heads, value_dim = value.shape
    return float(batch * scans.delta_rule_flops(tokens, heads=heads, key_dim=key.shape[-1], value_dim=value_dim))


CLOSED: dict[str, Callable[..., float]] = {
    "mamba_selective_scan": _selective_scan, "mamba2_chunk_scan": _chunk_scan, "torch_chunk_gated_delta_rule": _delta_rule,
    "chunk_kimi_delta_attention": _delta_rule,
}
"""Scan functions whose FLOPs are those of a fused kernel (:mod:`sapper.workloads.scans`) and not of the library's reference, which
fills the last chunk up with zeros, repeats what a group of heads shares for each of them, and holds every state of every token."""

WRITTEN_OUT = frozenset(("bloom", "falcon", "gpt_neo", "mpt"))
"""Causal language models of the config route whose classes write attention out. Others that do may look both ways (RoFormer, CPM-Ant)."""

OWN = "sapper"
"""Name of our attention among the library's. It is no name that the library makes masks for, so that causality and windows
arrive as arguments and not as a tensor of unknown content."""


_FROM_CONFIG: weakref.WeakSet[Any] = weakref.WeakSet()
"""Models that were made here."""


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


def model_of(config: Any, *, attention_impl: str = OWN, experts: str = "grouped_mm", dtype: Any = None) -> Any:
    """As :func:`sapper.programs.library.model_of`, without weights and with our own attention where the class can have it."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(OWN, _attention)
    return library.model_of(config, attention_impl=attention_impl, experts=experts, dtype=dtype)


def program_of(config: Any, name: str, *, batch: int, seq: int | None, dtype: Any) -> Program:
    """A training step of the model."""
    model = model_of(config, dtype=dtype).train()
    _FROM_CONFIG.add(model)
    vision = model.main_input_name == "pixel_values"
    length = seq or min(DEFAULT_SEQ, getattr(config, "max_position_embeddings", None) or DEFAULT_SEQ)
    return Program(
        module=model, inputs=library.inputs_of(config, model, batch=batch, seq=length, labels=True), name=name,
        seq=None if vision else length, tp_plan=dict(model._tp_plan or {}) or None,
    )


@contextlib.contextmanager
def unpacked() -> Iterator[None]:
    """While it lasts, the library takes each row for one sequence, as our inputs are. It looks for several in the values of the
    positions, which tensors without data do not have, and would make a mask of unknown content in place of a causal one."""
    from transformers import masking_utils

    found = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = found


@contextlib.contextmanager
def indexed_refused(config: Any, where: str) -> Iterator[None]:
    """Say so where the library's code fails because an indexer, which picks the tokens that attention reads, takes a mask's values.

    Raises:
        BadFile: It did.
    """
    try:
        yield
    except BadFile as error:
        if error.code != "SP-PROG-017" or not isinstance(error.__cause__, TypeError):
            raise
        if not getattr(config.get_text_config(), "index_topk", None):
            raise
        raise BadFile("SP-PROG-026", where=where, kind=config.model_type, config=where) from error.__cause__


def _writes_attention_out(model: Any) -> bool:
    """Whether it was made here and is one of :data:`WRITTEN_OUT`, at the library's own attention. A model that a
    builder returns runs as its author set it up, masks and all."""
    return model in _FROM_CONFIG and model.config._attn_implementation != OWN and model.config.model_type in WRITTEN_OUT


def _is_attention(module: Any) -> bool:
    return type(module).__name__.endswith("Attention")


@contextlib.contextmanager
def causal_attention(model: Any, recorder: Recorder) -> Iterator[None]:
    """While it lasts, classes of causal language models that do not look attention up by name (BLOOM, Falcon, GPT-Neo, MPT) compute
    it as those that do: in one fused kernel that is told of causality and windows instead of reading a mask. As with recurrences, what
    counts is the kernel that the model is trained with and not the library's reference of it. Alibi is a slope a head to that kernel.
    """
    if not _writes_attention_out(model):
        yield
        return

    def fused(forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def run(module: Any, hidden_states: Any, *args: Any, **kwargs: Any) -> Any:
            local = getattr(module, "attention_type", None) == "local"
            window = module.config.window_size if local else None
            with Written(recorder.silent, batch=hidden_states.shape[0], window=window):
                return forward(module, hidden_states, *args, **kwargs)

        return run

    cores = [module for module in model.modules() if [*map(_is_attention, module.modules())].count(True) == 1 and _is_attention(module)]
    undo: list[tuple[Any, str, Any]] = []
    for owner in {type(module) for module in cores}:
        undo.append((owner, "forward", owner.forward))
        owner.forward = fused(owner.forward)
    module = sys.modules[type(model).__module__]
    if model.config._attn_implementation == "sdpa" and hasattr(module, "create_causal_mask"):
        undo.append((module, "create_causal_mask", module.create_causal_mask))
        module.create_causal_mask = lambda *_, **__: None  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for owner, name, value in undo:
            setattr(owner, name, value)


def _routed(module: Any, hidden_states: Any) -> tuple[Any, Any]:
    """What Llama 4's layer of experts computes, with the chosen experts alone: its signature, and its result but for where the
    experts' weights are multiplied in."""
    from transformers.integrations.moe import grouped_mm_experts_forward

    tokens = hidden_states.reshape(-1, module.hidden_dim)
    scores, logits = module.router(tokens)
    weights, chosen = scores.topk(module.top_k, dim=-1)
    return module.shared_expert(tokens) + grouped_mm_experts_forward(module.experts, tokens, chosen, weights), logits


@contextlib.contextmanager
def routed_experts(model: Any) -> Iterator[None]:
    """While it lasts, Llama 4's experts compute the tokens that were routed to them, by the library's own grouped product, which all
    its other families with experts can be set to; its reference for this one has each expert compute every token."""
    from transformers.integrations import moe
    from transformers.models.llama4 import modeling_llama4 as llama4

    if not any(isinstance(module, llama4.Llama4TextMoe) for module in model.modules()):
        yield
        return
    layout = {
        "has_gate": True, "has_bias": False, "has_post_expert_norm": False, "is_transposed": True, "is_concatenated": True,
        "_is_expert_parallel": False, "_apply_gate": moe._default_apply_gate,
    }  # fmt: skip
    dense = llama4.Llama4TextMoe.forward
    llama4.Llama4TextMoe.forward = _routed
    for name, value in layout.items():
        setattr(llama4.Llama4TextExperts, name, value)
    try:
        yield
    finally:
        llama4.Llama4TextMoe.forward = dense
        for name in layout:
            delattr(llama4.Llama4TextExperts, name)


@contextlib.contextmanager
def scan_regions(model: Any, recorder: Recorder) -> Iterator[None]:
    """While it lasts, each call of the library's scan functions is one kernel."""

    def marked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        closed = CLOSED.get(name)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with recorder.region("scan", flops=None if closed is None else closed(*args, **kwargs)):
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
        setattr(owner, name, marked(name, value))
    try:
        yield
    finally:
        for owner, name, value in undo:
            setattr(owner, name, value)


@contextlib.contextmanager
def as_trained(model: Any, recorder: Recorder) -> Iterator[None]:
    """While it lasts, what the library has but a reference of runs in the form that models are trained in: recurrences, attention and
    experts."""
    experts = routed_experts(model) if model in _FROM_CONFIG else contextlib.nullcontext()
    with scan_regions(model, recorder), causal_attention(model, recorder), experts:
        yield
