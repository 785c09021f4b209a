"""Fields: reads a config with types, defaults and a memory of what was read, so that nothing is guessed or overlooked.

Each family reads what changes its arithmetic, names what it knows to be irrelevant, and :meth:`Fields.finish` refuses the
rest by name.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from sapper.errors import BadFile
from sapper.workloads.notes import note

MAX_COUNT = 10**8
"""Greater than any vocabulary or width in use; beyond it the file is wrong."""
MAX_LAYERS = 10_000

IRRELEVANT = frozenset(
    """
    _name_or_path _commit_hash _attn_implementation _attn_implementation_autoset _experts_implementation _source architectures auto_map
    transformers_version torch_dtype dtype model_type name
    bos_token_id eos_token_id pad_token_id sep_token_id decoder_start_token_id cls_token_id mask_token_id unk_token_id
    forced_bos_token_id forced_eos_token_id begin_suppress_tokens suppress_tokens bad_words_ids prefix
    initializer_range initializer_factor init_std use_cache output_attentions output_hidden_states return_dict torchscript
    use_return_dict return_dict_in_generate output_scores
    id2label label2id num_labels problem_type finetuning_task task_specific_params tokenizer_class is_decoder is_encoder_decoder
    chunk_size_feed_forward pruned_heads tf_legacy_loss use_bfloat16 gradient_checkpointing remove_invalid_values
    temperature top_k top_p typical_p repetition_penalty length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size num_beams
    num_beam_groups num_return_sequences diversity_penalty do_sample early_stopping max_length min_length exponential_decay_length_penalty
    attn_implementation generation_config unsloth_version unsloth_fixed
    rope_theta rope_scaling rope_parameters pretraining_tp tensor_parallel_degree
    attention_dropout_prob classifier_dropout trust_remote_code tokenizer_name model_max_length use_flash_attention use_flash_attn
    _flash_attn_2_enabled neftune_noise_alpha _from_model_config scale_attn_weights
    """.split()  # noqa: SIM905 - one text reads better than a hundred quoted words
)
"""Fields of any config that no shape, FLOP or byte depends on."""

_MISSING: Any = object()


class Fields:
    """The fields of one config (or of one table in it).

    Args:
        raw: The parsed JSON object.
        where: The file or name to put before a field in errors.
        name: The model's name.
        path: Dotted path of this table in the file.
    """

    def __init__(self, raw: Mapping[str, Any], *, where: str, name: str, path: str = "") -> None:
        self.raw = raw
        self.where = where
        self.name = name
        self.path = path
        self.read: set[str] = set()
        self.notes: list[str] = []

    # ---- readers -------------------------------------------------------------------------------------------------

    def count(self, *keys: str, default: Any = _MISSING, minimum: int = 1, maximum: int = MAX_COUNT, noted: bool = True) -> int:
        """A whole number from the first of ``keys`` that is given; ``noted``: a default taken is told to the reader."""
        value = self._get(keys, default, noted=noted)
        return self._whole(value, self._given(keys), minimum, maximum)

    def layers(self, *keys: str, default: Any = _MISSING) -> int:
        """A number of layers."""
        return self.count(*keys, default=default, maximum=MAX_LAYERS)

    def optional_count(self, *keys: str, minimum: int = 1) -> int | None:
        """A whole number, or None where it is absent or null (which the library allows)."""
        value = self._get(keys, None, noted=False)
        return None if value is None else self._whole(value, self._given(keys), minimum, MAX_COUNT)

    def nullable_count(self, key: str, *, default: int | None, minimum: int = 1, noted: bool = True) -> int | None:
        """A whole number where null has a meaning of its own: absent is ``default``, null is None."""
        if key in self.raw and self.raw[key] is None:
            self.read.add(key)
            return None
        value = self._get((key,), default, noted=noted)
        return None if value is None else self._whole(value, key, minimum, MAX_COUNT)

    def number(
        self, *keys: str, default: Any = _MISSING, minimum: float = 0.0, maximum: float = math.inf, noted: bool = True,
    ) -> float:
        """A finite number."""
        value = self._get(keys, default, noted=noted)
        key = self._given(keys)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong_type(key, "number", value)
        if not math.isfinite(value) or not minimum <= value <= maximum:
            raise self.bad(key, value, f"{minimum:g} - {maximum:g}")
        return float(value)

    def dropout(self, *keys: str, default: float = 0.0) -> float:
        """A probability; a default of 0 is not worth a note."""
        value = self._get(keys, default, noted=default > 0)
        key = self._given(keys)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.wrong_type(key, "number", value)
        if not 0 <= value <= 1:
            raise self.bad(key, value, "0 - 1")
        return float(value)

    def flag(self, *keys: str, default: Any = _MISSING) -> bool:
        """A yes or no; an absent flag is the library's default and not worth a note."""
        value = self._get(keys, default, noted=False)
        if not isinstance(value, bool):
            raise self.wrong_type(self._given(keys), "true, false", value)
        return value

    def text(self, *keys: str, default: Any = _MISSING, choices: Iterable[str] | None = None, noted: bool = True) -> str:
        """A text, one of ``choices`` where they are given."""
        value = self._get(keys, default, noted=noted)
        key = self._given(keys)
        if not isinstance(value, str):
            raise self.wrong_type(key, "text", value)
        if choices is not None and value not in (known := tuple(choices)):
            raise self.bad(key, value, ", ".join(known))
        return value

    def texts(self, key: str, *, choices: Iterable[str], length: int) -> tuple[str, ...] | None:
        """A list of ``length`` texts of ``choices``; None where absent or null."""
        value = self._get((key,), None, noted=False)
        if value is None:
            return None
        if not isinstance(value, list):
            raise self.wrong_type(key, "list", value)
        known = tuple(choices)
        for item in value:
            if not isinstance(item, str) or item not in known:
                raise self.bad(key, item, ", ".join(known))
        if len(value) != length:
            raise self.wrong_length(key, len(value), length)
        return tuple(value)

    def numbers(self, key: str, *, minimum: int = 0, default: Any = _MISSING) -> tuple[int, ...]:
        """A list of whole numbers."""
        value = self._get((key,), default, noted=False)
        if value is None:
            return ()
        if not isinstance(value, (list, tuple)):
            raise self.wrong_type(key, "list", value)
        return tuple(self._whole(item, key, minimum, MAX_COUNT) for item in value)

    def table(self, key: str) -> Fields | None:
        """The table under ``key`` as Fields that share our notes; None where absent or null."""
        value = self._get((key,), None, noted=False)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.wrong_type(key, "object", value)
        sub = Fields(value, where=self.where, name=self.name, path=f"{self.path}{key}.")
        sub.notes = self.notes
        return sub

    def given(self, key: str) -> bool:
        """Whether ``key`` is there and not null."""
        return self.raw.get(key) is not None

    # ---- closing -------------------------------------------------------------------------------------------------

    def ignore(self, *keys: str) -> None:
        """Fields that this family knows to change no shape, FLOP or byte."""
        self.read.update(keys)

    def only(self, key: str, value: Any) -> None:
        """A field that we price only at ``value``; another one is refused by name, absent is ``value``."""
        found = self._get((key,), value, noted=False)
        if found != value or isinstance(found, bool) != isinstance(value, bool):
            raise BadFile("SP-MODEL-007", where=self.place(key), field=key, value=_shown(found), family=self.family, priced=_shown(value))

    def finish(self) -> None:
        """Refuse every field that nobody read.

        Raises:
            BadFile: Names the fields.
        """
        left = sorted(str(key) for key in self.raw if key not in self.read and key not in IRRELEVANT and self.raw[key] is not None)
        if left:
            near = difflib.get_close_matches(left[0], sorted(self.read), 1)
            raise BadFile(
                "SP-MODEL-005", where=self.place(left[0]), fields=", ".join(f"`{self.path}{_shown(key)}`" for key in left[:8]),
                family=self.family, near=f"`{near[0]}`" if near else "-",
            )

    @property
    def family(self) -> str:
        """The config's ``model_type``."""
        value = self.raw.get("model_type", "")
        return value if isinstance(value, str) else ""

    def note(self, code: str, /, **values: Any) -> None:
        """Remember a convention or a departure that a reader must know: the sentence ``model.note.<code>``."""
        text = note(code, **values)
        if text not in self.notes:
            self.notes.append(text)

    # ---- faults --------------------------------------------------------------------------------------------------

    def place(self, key: str) -> str:
        """``file: field``."""
        return f"{self.where}: {self.path}{_shown(key)}"

    def missing(self, key: str) -> BadFile:
        """The error of a field that has no default."""
        return BadFile("SP-MODEL-002", where=self.place(key), field=key, family=self.family)

    def wrong_type(self, key: str, expected: str, value: Any) -> BadFile:
        """The error of a field of another type."""
        return BadFile("SP-MODEL-003", where=self.place(key), expected=expected, value=_shown(value))

    def bad(self, key: str, value: Any, expected: str) -> BadFile:
        """The error of a value that cannot be."""
        return BadFile("SP-MODEL-004", where=self.place(key), expected=expected, value=_shown(value))

    def wrong_length(self, key: str, found: int, needed: int) -> BadFile:
        """The error of a list that does not have one entry per layer."""
        return BadFile("SP-MODEL-006", where=self.place(key), found=found, needed=needed)

    def divides(self, key: str, whole: int, part_key: str, part: int) -> int:
        """``whole / part`` where it is whole.

        Raises:
            BadFile: It is not; the message has the equation.
        """
        if part <= 0 or whole % part:
            raise BadFile(
                "SP-MODEL-008",
                where=self.place(key),
                key=key,
                whole=whole,
                part_key=part_key,
                part=part,
                rest=whole % part if part else whole,
            )
        return whole // part

    # ---- inner ---------------------------------------------------------------------------------------------------

    def _given(self, keys: tuple[str, ...]) -> str:
        return next((key for key in keys if self.raw.get(key) is not None), keys[0])

    def _get(self, keys: tuple[str, ...], default: Any, *, noted: bool = True) -> Any:
        self.read.update(keys)
        given = [key for key in keys if self.raw.get(key) is not None]
        if len(given) > 1 and any(self.raw[key] != self.raw[given[0]] for key in given[1:]):
            raise BadFile(
                "SP-MODEL-009", where=self.place(given[0]), first=given[0], second=given[1],
                one=_shown(self.raw[given[0]]), other=_shown(self.raw[given[1]]),
            )
        if given:
            return self.raw[given[0]]
        if default is _MISSING:
            raise self.missing(keys[0])
        if noted and default is not None:
            self.note("default", field=f"{self.path}{keys[0]}", value=default)
        return default

    def _whole(self, value: Any, key: str, minimum: int, maximum: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong_type(key, "whole number", value)
        if not minimum <= value <= maximum:
            raise self.bad(key, value, f"{minimum} - {maximum}")
        return value


def _shown(value: Any) -> str:
    text = str(value)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 80 else f"{text[:77]}..."
