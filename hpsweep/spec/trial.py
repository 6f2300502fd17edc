"""The record Trial: one training run, fully determined by its fields; its id is a hash of them.

Nothing here trains, reads or writes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, Literal

from hpsweep.architectures import hidden_nonzeros
from hpsweep.schemes import Scheme
from hpsweep.spec.checks import check_field_names, check_fields, typed
from hpsweep.spec.fields import Field, documented, field, fields_of
from hpsweep.text import shown

WeightDecayRule = Literal["coupled", "independent"]
Precision = Literal["float32", "tf32", "bfloat16"]

OWN_DATA = "own"
"""The field `data` of trials whose data is the user's own, which hpsweep does not read."""
BUILT_IN = "gpt"
"""The model of a trial that hpsweep builds by itself."""

TUNED = ("lr", "init_std", "alpha_input", "alpha_attention", "alpha_output", "embedding_lr_mult", "weight_decay")
"""The hyperparameters that are searched; every other field says what model is trained, on what, for how long."""

# One of these says how long a trial trains.
_DURATION = ("steps", "tokens", "tokens_per_parameter")

_MOST_STEPS = 10**9
_MOST_WEIGHTS = 10**13
"""The most weights of a model's hidden matrices; the largest models that are trained have about 10^12."""


@documented
@dataclass(frozen=True, kw_only=True)
class Trial:
    """One training run of a small model, fully determined by these fields.

    Exactly one of `steps`, `tokens` and `tokens_per_parameter` (tokens per nonzero hidden parameter) says how
    long it trains. lr and init_std are the base values, at m_d = m_rho = 1; the scheme turns them into
    per-tensor numbers. Under mup and supar attention logits are multiplied by
    alpha_attention sqrt(base_head_size) / head_size. Raises ValueError naming the value, the allowed range and the
    remedy.

    What the store and the cards keep of a trial follows from this record: add a field with its value `before`, and
    raise SCHEMA_VERSION and CARD_VERSION. A field is never None in a trial that is made.
    """

    scheme: Scheme = field("supar", "the rules by which tensors scale")
    # the model
    model: str = field(
        "gpt", "what is trained: gpt, or the function of your own that builds or trains it", before="gpt"
    )
    settings: str = field("{}", "axes of your own model or loop, as JSON; may be given as a mapping", before="{}")
    width: int = field(128, "width of the model", "features", "[1, 1048576]")
    depth: int = field(2, "number of blocks", "blocks", "[1, 10000]")
    head_size: int = field(32, "width of an attention head", "features", "[1, 1048576]")
    context: int = field(64, "tokens per sequence", "tokens", "[1, 1e8]")
    tied: bool = field(True, "readout and token embedding are one tensor")
    density: float = field(1.0, "kept fraction of every hidden matrix", "fraction", "(0, 1]")
    # the data, and how long
    data: str = field(
        "stdlib",
        "what is trained on: stdlib, text:PATH, jsonl:PATH, parquet:PATH or bin:PATH; a model of your own also takes "
        "images: glyphs, images:FOLDER, npz:PATH, npy:PATH or parquet:PATH?image=NAME",
    )
    batch: int = field(16, "sequences per step", "sequences", "[1, 1e8]")
    steps: int | None = field(None, "optimizer steps", "steps", f"[1, {_MOST_STEPS:g}]")
    tokens: int | None = field(None, "training tokens, in place of steps", "tokens", "[1, 1e16]")
    tokens_per_parameter: float | None = field(
        None, "tokens per nonzero hidden parameter, in place of steps", "", "(0, 1e9]"
    )
    eval_sequences: int = field(1024, "held-out sequences behind val_loss", "sequences", "[2, 1e8]")
    seed: int = field(0, "seed of masks, initial weights and batches", "", "[0, 9223372036854775808)")
    # base hyperparameters
    lr: float = field(2.0**-7, "base learning rate", "per step", "(0, 1e30]")
    init_std: float = field(0.08, "base init standard deviation", "", "(0, 1e30]")
    alpha_input: float = field(1.0, "embedding multiplier", "", "(0, 1e30]")
    alpha_attention: float = field(1.0, "multiplier of attention logits", "", "(0, 1e30]", before=1.0)
    alpha_output: float = field(1.0, "readout multiplier", "", "(0, 1e30]")
    embedding_lr_mult: float = field(1.0, "learning rate of embeddings over base lr", "", "(0, 1e30]")
    weight_decay: float = field(0.0, "AdamW weight decay before its rule", "", "[0, 1e30]")
    weight_decay_rule: WeightDecayRule = field(
        "coupled", "whether weight decay is multiplied by the learning rate of its tensor"
    )
    base_width: int = field(128, "width at m_d = 1", "features", "[1, 1048576]")
    base_density: float = field(1.0, "density at m_rho = 1", "fraction", "(0, 1]")
    base_head_size: int = field(
        None,
        "head size from which mup and supar scale attention; 1: the published scale; None: that of the trial",
        "features",
        "[1, 1048576]",
        before=1,
    )
    # the optimizer (AdamW) and its schedule
    beta1: float = field(0.9, "AdamW first-moment decay", "", "[0, 1)")
    beta2: float = field(0.95, "AdamW second-moment decay", "", "[0, 1)")
    eps: float = field(1e-12, "AdamW epsilon", "", "[1e-30, 1e30]")  # below it is 0 in float32
    clip: float = field(1.0, "largest gradient norm", "", "(0, 1e30]")
    warmup_fraction: float = field(0.1, "linear warm-up", "fraction of steps", "[0, 1)")
    final_lr_fraction: float = field(0.0, "learning rate at the last step", "fraction of lr", "[0, 1]")
    precision: Precision = field("float32", "number format of products; weights are float32")

    def __post_init__(self) -> None:
        self._fill()
        check_fields(self, _FIELDS, _FIELDS)
        self._check_together()

    def _fill(self) -> None:
        if vars(self)["base_head_size"] is None:
            object.__setattr__(self, "base_head_size", self.head_size)
        if self.settings != "{}":
            object.__setattr__(self, "settings", settings_text(self.settings))

    def _check_together(self) -> None:
        given = [name for name in _DURATION if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a trial trains for exactly one of {', '.join(_DURATION)}; got {' and '.join(given) or 'none'}. "
                "Set one and leave the others None."
            )
        if self.model == BUILT_IN:
            self._check_built_in()
        elif self.tokens_per_parameter is not None:
            raise ValueError(
                f"tokens_per_parameter is {shown(self.tokens_per_parameter)}, and how many parameters {self.model} has "
                "is not known before it is built; give steps or tokens."
            )
        if self.total_steps > _MOST_STEPS:
            raise ValueError(
                f"{' and '.join(given)} of {shown(getattr(self, given[0]))} are {self.total_steps:.3g} steps; "
                f"allowed: at most {_MOST_STEPS:g}. Train for less, or take larger batches."
            )
        if 0 < self.warmup_steps >= self.total_steps:
            raise ValueError(
                f"warmup_fraction {self.warmup_fraction} of {self.total_steps} steps is a warm-up of all of them; "
                "take a smaller fraction, or more steps."
            )

    def _check_built_in(self) -> None:
        if self.width % self.head_size:
            raise ValueError(
                f"width {self.width} is not divisible by head_size {self.head_size}; "
                "choose a width that is a multiple of the head size. A model of your own without heads has head_size=1."
            )
        weights = 12 * self.width**2 * self.depth
        if weights > _MOST_WEIGHTS:
            raise ValueError(
                f"width {self.width} and depth {self.depth} make {weights:.3g} hidden weights; "
                f"allowed: at most {_MOST_WEIGHTS:g}. Take a smaller model."
            )

    @property
    def m_d(self) -> float:
        """Width multiplier: width / base_width."""
        return self.width / self.base_width

    @property
    def m_rho(self) -> float:
        """Density multiplier of the hidden matrices: density / base_density."""
        return self.density / self.base_density

    @cached_property
    def own_settings(self) -> dict[str, Any]:
        """The axes of your own model or loop, by name."""
        return dict(json.loads(self.settings))

    @cached_property
    def total_steps(self) -> int:
        """Optimizer steps; tokens are rounded up to whole steps."""
        if self.steps is not None:
            return int(self.steps)
        if self.tokens is not None:
            return math.ceil(self.tokens / (self.batch * self.context))
        assert self.tokens_per_parameter is not None
        nonzeros = hidden_nonzeros(self.width, self.depth, self.density)
        return math.ceil(self.tokens_per_parameter * nonzeros / (self.batch * self.context))

    @property
    def total_tokens(self) -> int:
        """Training tokens: steps x batch x context."""
        return self.total_steps * self.batch * self.context

    @cached_property
    def warmup_steps(self) -> int:
        """Steps of linear warm-up."""
        return round(self.warmup_fraction * self.total_steps)

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """The fields that say what is trained, the duration as steps: one value per stored column."""
        own = vars(self)
        return {name: own[name] for name in RESOLVED} | {"steps": self.total_steps}

    @cached_property
    def trial_id(self) -> str:
        """16 hexadecimal digits, equal for equal training runs on any machine.

        The SHA-256 of the resolved fields as JSON; floats by their shortest exact form. A field that was added later
        is left out at the value that it had before, so that stored ids stay valid.
        """
        hashed = {}
        for name, value in self.resolved.items():
            if name not in BEFORE or value != BEFORE[name]:
                hashed[name] = value
        return hash_of(as_json(hashed))

    @cached_property
    def shape(self) -> tuple[Any, ...]:
        """What trials of one ensemble share; everything else differs freely among them."""
        return shape_of(self.resolved)

    def replace(self, **changes: Any) -> Trial:
        """A trial with some fields changed; a new duration takes the place of the old one."""
        if not changes.keys() <= _FIELDS.keys():
            check_field_names(changes, Trial)
        if any(name in changes for name in _DURATION):
            changes = {**dict.fromkeys(_DURATION), **changes}
        own = vars(self)
        made = object.__new__(Trial)
        vars(made).update({name: own[name] for name in _FIELDS}, **changes)
        made._fill()
        check_fields(made, _FIELDS, changes)  # those that stay have been checked
        made._check_together()
        return made


_FIELDS = fields_of(Trial)
RESOLVED: dict[str, Field] = {name: f for name, f in _FIELDS.items() if name not in ("tokens", "tokens_per_parameter")}
"""The fields that say what is trained, the duration as steps, in their order, as they are declared."""
BEFORE: dict[str, Any] = {name: f.before for name, f in _FIELDS.items() if f.before is not MISSING}
"""Of fields that were added to the record: the value that stands for all trials until then."""
# Fields that may differ within an ensemble.
_FREE = frozenset(
    {
        *("scheme", "density", "seed", *TUNED),
        *("weight_decay_rule", "base_width", "base_density", "base_head_size"),
    }
)


_shared = itemgetter(*(name for name in RESOLVED if name not in _FREE))


def shape_of(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The shape of the Trial that a stored row came from."""
    shape: tuple[Any, ...] = _shared(row)
    return shape


def trial_from_row(row: Mapping[str, Any]) -> Trial:
    """The Trial that a stored row came from; its id equals the row's trial_id."""
    stored = {name: row[name] for name in RESOLVED if name in row}
    values = {**BEFORE, **stored}
    return Trial(**{name: typed(_FIELDS[name], value) for name, value in values.items()})


as_json = json.JSONEncoder(sort_keys=True).encode


def settings_text(settings: Any) -> str:
    """Settings, a mapping or its JSON, as JSON with sorted names: equal settings are equal texts.

    Raises ValueError for a name that no function could have as an argument, and for a value that is not text, a finite
    number, True or False.
    """
    given = settings
    if isinstance(settings, str):
        try:
            given = json.loads(settings)
        except ValueError:
            given = None
    if not isinstance(given, Mapping):
        raise ValueError(f"settings are {shown(settings)}; give them by name, such as {{'kv_group': 2}}.")
    plain = {}
    for name, value in given.items():
        if not isinstance(name, str) or not name.isidentifier() or name in _FIELDS:
            raise ValueError(f"settings have the name {shown(name)}; give names of your own, as Python allows them.")
        value = value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value
        is_number = isinstance(value, int | float) and math.isfinite(value)
        if not is_number and not isinstance(value, str):
            raise ValueError(f"setting {name} is {shown(value)}; allowed: text, finite numbers, True and False.")
        plain[name] = value
    return as_json(plain)


def hash_of(text: str) -> str:
    """16 hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_record() -> None:
    """Raise TypeError for a field of Trial that is not declared as `metadata_of_field` asks: the maintainer's slip."""
    for name, declared in RESOLVED.items():
        if declared.kind in ("int", "float") and not declared.within:
            raise TypeError(f"Trial.{name} is a number without a range; give within, such as '[0, 1]'.")
        if declared.optional and name not in _DURATION:
            raise TypeError(f"Trial.{name} may be None, which is not stored; let another value stand for none.")
    Trial(steps=1, **BEFORE)


_check_record()
