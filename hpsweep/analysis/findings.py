"""What speaks against a result: a record with a code, and the one table that has the words of every code.

Producers return findings of the fitted data: transfer/card_findings.py and transfer/joint.py those of a card,
report/caveats.py those of the stored runs and their groups. A card keeps its findings, and card, report, command line
and notebooks show their words. A new finding is a line of WORDS, one of REMEDIES where a run would help, and what its
producer does.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hpsweep.analysis.runs.places import group_label
from hpsweep.axes import value_label
from hpsweep.english import first_places, hyperparameter_name, listed
from hpsweep.schemes import scheme_label

STABLE, MOVES, UNDETERMINED = VERDICTS = ("stable", "moves", "undetermined")
"""Whether an optimum stays put along an axis: what a drift is called. The last two are codes of findings, too."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a user of a result must know; its text is its sentence of WORDS and its remedy.

    `axis` is the field along which it holds, and `scheme` the scheme; each is empty where it is about none.
    `numbers` has what the sentence names, as plain data that JSON can hold, with None for what is missing.
    """

    code: str
    axis: str = ""
    scheme: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", _plain(self.numbers))

    def __str__(self) -> str:
        speaker = _Speaker(self.axis)
        named = {**self.numbers, "axis": self.axis, "scheme": self.scheme}
        sentences = [WORDS[self.code], REMEDIES.get(self.code, "")]
        return " ".join(_capital(speaker.vformat(text, (), named)) for text in sentences if text)


WORDS: dict[str, str] = {
    # the stored runs
    "missing": "Incomplete: {missing:,} of {planned:,} planned {planned:trial|trials} {missing:is|are} missing.",
    "missing_at_least": "Incomplete: at least {missing:,} of at least {planned:,} planned {planned:trial|trials} "
    "{missing:is|are} missing.",
    "refining": "Incomplete: the refinement of {groups} {groups:group|groups} has not ended.",
    "failed": "Incomplete: {failed:,} {failed:trial|trials} failed and {failed:is|are} excluded.",
    "mixed": "The runs differ in {fields:list}. Small differences in loss may come from that.",
    "imported": "The runs are read from a table. It is not checked that they share their data, their code and how "
    "their loss was measured.",
    "assumed_fields": "The table does not say {fields:list}; assumed: {values}.",
    "pairing": "It is not checked that runs of one seed saw the same data in the same order at every {field:name}. "
    "Intervals count on it.",
    # the optima of groups
    "groups_edge": "The best {field:name} is only a bound (status edge) in {count} of {groups} "
    "{groups:group|groups}: {places:places}.",
    "groups_flat": "The best {field:name} is not identified (status flat) in {count} of {groups} "
    "{groups:group|groups}: {places:places}.",
    "groups_none": "There is no best {field:name} (status none) in {count} of {groups} {groups:group|groups}: "
    "{places:places}.",
    "groups_assumed": "The intervals of {count} of {groups} {groups:group|groups} rest on assumed noise. Their seeds "
    "are too few to measure it.",
    # the proxy's optimum
    "bound": "The best {field:name} {value:.4g} is a bound, not an optimum: {why}.",
    "not_identified": "The best {field:name} is not identified: {why}. The best value tried, {value:.4g}, is used.",
    "assumed_noise": "The interval of the optimum rests on assumed noise.",
    "wide_interval": "The best {field:name} is only known to lie between {low:.3g} and {high:.3g}.",
    "end_of_values": "The best {field:name} {value:g} is a bound, not an optimum: it is the {end} value tried.",
    "as_good": "Other settings are as good within noise and were not chosen: {settings:places}.",
    # what the rules do not correct
    "few_nonzeros": "The target keeps {nonzeros:.1f} weights per neuron (width x density). Below {fewest} the rules "
    "may not hold.",
    "not_corrected": "{axis} changes from {first:value} to {last:value}. No scheme here corrects for it.",
    "unseen_rules": "What {model} makes of learning rate and init std at another size was not seen: that it follows "
    "{scheme:scheme} is the script's own word.",
    "duration_unknown": "The duration of the target is not given. The proxy saw {proxy:.3g} tokens per nonzero hidden "
    "parameter, {per_step} a step. No scheme here corrects for another duration or batch.",
    "duration": "The target sees {target:.3g} tokens per nonzero hidden parameter, the proxy {proxy:.3g}. No scheme "
    "here corrects for it, or for a batch other than {per_step} tokens.",
    "coupled_decay": "Weight decay is coupled: at the target the hidden lr is {factor:.4g} x the proxy's, and so is "
    "lr x weight_decay.",
    "unscaled": "Scheme {scheme:scheme} does not correct for width or density. Its optimum may move.",
    # where the target is
    "untested": "Transfer from {axis} {first:value} to {last:value} is untested: this sweep has one {axis}.",
    "drift_unknown": "Transfer from {axis} {first:value} to {last:value} is untested: no two models differ in {axis} "
    "alone.",
    "drift_refused": "There is no drift along {axis} at {at:place}: {why}.",
    "beyond_tuned": "The tuned models end at {axis} {last:value}. The target's {value:value} is {factor:.3g} times "
    "further.",
    # optima that move
    MOVES: "The best {field:name} moves along {axis} under {scheme:scheme} at {places:places}.",
    UNDETERMINED: "It is undetermined whether the best {field:name} moves along {axis} under {scheme:scheme} at "
    "{places:places}.",
    "drift_better": "The {field:name} along the fitted drift, {value:.4g} [{low:.4g}, {high:.4g}], is recommended: "
    "{why}. At {at:place} it lost {drift_regret:.3f} {unit}, and the constant {constant_regret:.3f}. This card has the "
    "constant.",
    "drift_possible": "The optimum moves, and this card has the constant. Along the fitted drift the {field:name} "
    "would be {value:.4g} [{low:.4g}, {high:.4g}]: {why}.",
    "drift_used": "This card has the {field:name} along the fitted drift: {value:.4g} [{low:.4g}, {high:.4g}].",
    "drift_used_against": "This card has the {field:name} along the fitted drift: {value:.4g} [{low:.4g}, "
    "{high:.4g}]. That is not recommended: {why}.",
    "no_loss": "At {at:place} the proxy's setting has no loss: {why}.",
    "rival": "Re-tuned {rival:scheme} beats transferred {scheme:scheme} by up to {gap:.3f} {unit}, at {at:place}.",
    # joint optima at other models
    "elsewhere": "At {at:place} the best {field:name} is {opt:.4g} [{low:.4g}, {high:.4g}]. That is {octaves:+.2f} "
    "octaves from the {used:.4g} used.",
    "elsewhere_edge": "At {at:place} the best {field:name} is {ends:range}. That excludes the {used:.4g} used.",
    "elsewhere_flat": "At {at:place} the best {field:name} is not identified, and the range left open, {ends:range}, "
    "excludes the {used:.4g} used.",
    "joint_unknown": "At {at:place} the joint optimum is not known: {why}.",
}
"""The sentence of every code.

Fields are those of `numbers`, and axis and scheme. Beside Python's formats there are: value (of the finding's axis),
grid (several such values), name (of a hyperparameter), scheme, list, place, places, range, and one|many after a count.
"""

REMEDIES: dict[str, str] = {
    "missing": "hpsweep run trains what is missing.",
    "missing_at_least": "hpsweep run trains what is missing.",
    "refining": "hpsweep run goes on with it.",
    "failed": "hpsweep status says why.",
    "groups_edge": "Extend the grid there.",
    "groups_flat": "Add seeds, or a wider range of values.",
    "groups_none": "Add values with finite losses.",
    "groups_assumed": "Train at least 2 seeds.",
    "bound": "Extend the grid there.",
    "not_identified": "Add seeds, or a wider range of values.",
    "assumed_noise": "Train the proxy with at least 2 seeds.",
    "wide_interval": "Train more seeds, or finer values.",
    "end_of_values": "Extend the grid there.",
    "few_nonzeros": "Use a wider or denser target.",
    "not_corrected": "Use {axis} {last:value} in the proxy, or check with a small sweep of the target.",
    "unseen_rules": "Check a module of the same model by hpsweep coords.",
    "duration_unknown": "Give the target's tokens to compare.",
    "duration": "Train the proxy for as many tokens per nonzero parameter (tokens_per_parameter).",
    "coupled_decay": "weight_decay_rule='independent' keeps lr x weight_decay.",
    "unscaled": "Re-tune at the target.",
    "untested": "Add {axis}={add:grid} to the grid.",
    "drift_unknown": "Train several {axis} values of the same model.",
    MOVES: "Re-tune at the target.",
    UNDETERMINED: "Add seeds or finer values around the optima.",
    "drift_better": "along_drift=True, or --along-drift, uses it.",
    "rival": "Compare best_scheme in hpsweep optimum.",
}
"""What to run next, for the codes of which something helps; with the same fields."""


class _Speaker(string.Formatter):
    """Fills in a sentence on an axis."""

    def __init__(self, axis: str) -> None:
        self.axis = axis

    def format_field(self, value: Any, format_spec: str) -> Any:
        """A field in one of the formats that WORDS names, or in Python's."""
        if "|" in format_spec:
            one, many = format_spec.split("|")
            return one if value == 1 else many
        if format_spec == "value":
            return value_label(self.axis, value)
        if format_spec == "grid":
            return f"[{', '.join(value_label(self.axis, each) for each in value)}]"
        if format_spec in _SHOWN:
            return _SHOWN[format_spec](value)
        return super().format_field(value, format_spec)


def _range(ends: Sequence[float | None]) -> str:
    """Between 0.01 and 0.1; of an open side the other one."""
    low, high = ends
    if low is None:
        return f"below {high:.4g}"
    if high is None:
        return f"above {low:.4g}"
    return f"between {low:.4g} and {high:.4g}"


_SHOWN: dict[str, Callable[[Any], str]] = {
    "name": hyperparameter_name,
    "scheme": scheme_label,
    "list": listed,
    "place": group_label,
    "places": lambda places: first_places([group_label(at) for at in places]),
    "range": _range,
}


def _capital(text: str) -> str:
    """The sentence with a capital; a command or an option stays as it is typed."""
    first = text.split(" ")[0]
    typed = first == "hpsweep" or "=" in first
    return text if typed else text[0].upper() + text[1:]


def _plain(value: Any) -> Any:
    """Python's own numbers, lists and mappings, and None for what is missing or not finite."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    found = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(found, float) and not math.isfinite(found) else found
