"""The record Target: the large sparse model that a card is for."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from hpsweep.spec.checks import check_fields
from hpsweep.spec.fields import documented, field, fields_of
from hpsweep.spec.trial import Trial

_TRIAL = {f.name: f.metadata for f in dataclasses.fields(Trial)}


def _of_trial(name: str, meaning: str = "") -> dict[str, Any]:
    """The metadata of a field of a trial, which the target has too."""
    return {**_TRIAL[name], "meaning": meaning or _TRIAL[name]["meaning"]}


@documented
@dataclass(frozen=True, kw_only=True)
class Target:
    """The large sparse model that receives tuned hyperparameters, and what is known of its training.

    Fields left None are taken from the proxy. base_width and base_density are always the proxy's. Raises ValueError
    naming the value, the allowed range and the remedy.
    """

    width: int = dataclasses.field(metadata=_of_trial("width"))
    density: float = dataclasses.field(metadata=_of_trial("density"))
    depth: int | None = dataclasses.field(default=None, metadata=_of_trial("depth"))
    head_size: int | None = dataclasses.field(default=None, metadata=_of_trial("head_size"))
    context: int | None = dataclasses.field(default=None, metadata=_of_trial("context"))
    vocabulary: int | None = field(None, "size of the vocabulary", "tokens", "[2, 16777216]")
    tokens: int | None = dataclasses.field(default=None, metadata=_of_trial("tokens", "training tokens"))
    mask_seed: int = dataclasses.field(default=0, metadata=_of_trial("seed", "seed of the masks"))

    def __post_init__(self) -> None:
        fields = fields_of(Target)
        check_fields(self, fields, fields)
        if self.head_size is not None and self.width % self.head_size:
            raise ValueError(
                f"target width {self.width} is not divisible by head_size {self.head_size}; "
                "choose a width that is a multiple of the head size."
            )
