"""The kind, fan-in and width multipliers of every tensor of a torch module, by comparing its shapes with a base's.

A dimension that differs is a width. Where shapes, values and the type of the owning module do not settle a tensor, one
ValueError names all of those, and the line that settles them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, get_args

from torch import nn

from hpsweep.architectures import SPARSE, VECTORS, Kind
from hpsweep.own_model.tensors.base import built_base, check_widths, plain_base, shapes_of
from hpsweep.own_model.tensors.choice import axis_question, beginning_question, chosen_kinds, fan_in_question
from hpsweep.own_model.tensors.ends import missing_end
from hpsweep.own_model.tensors.experts import growing_experts
from hpsweep.own_model.tensors.forwards import Forwards
from hpsweep.own_model.tensors.guess import Guess
from hpsweep.own_model.tensors.initial import AsBuilt, Beginning
from hpsweep.own_model.tensors.remedies import Besides, Question, questions_text
from hpsweep.own_model.tensors.reparametrized import at_rest, make_plain, refusal_text
from hpsweep.own_model.tensors.roles import Axes, differing_axes, fan_in_of, summed_axes
from hpsweep.own_model.tensors.storage import check_separate
from hpsweep.own_model.tensors.uses import (
    Use,
    parameter_of,
    plain_uses,
    tensor_uses,
    unwrapped,
    uses_by_name,
    values_by_pattern,
)

_WITH_FAN_IN: tuple[Kind, ...] = (*SPARSE, "readout")
_ANSWERS = 4
"""Rounds of answers that leave other questions: its axis, its kind, its values."""


class Derived(NamedTuple):
    """What the rules need to know of a tensor. Its first name is the parameter's, the others are tied to it.

    `readouts` are those of the names by which a tied embedding is the readout. `m_d` is fan_in / base fan_in; for a
    tensor with one width or none, that width's ratio. `dense`: a density for all hidden matrices is not meant for it.
    `departs` says in which way its layer returns something else than the product of weight and input, or is empty.
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    kind: Kind
    readouts: tuple[str, ...]
    fan_in: int | None
    m_d: float
    m_out: float
    beginning: Beginning
    dense: bool
    departs: str


def derived_tensors(
    model: nn.Module,
    base: object,
    *,
    delta: object = None,
    kinds: Mapping[str, Kind] | None = None,
    fan_in_axis: Mapping[str, Axes] | None = None,
    partial: bool = True,
    also: Callable[[Mapping[str, Derived]], Besides] = lambda derived: Besides(),
) -> dict[str, Derived]:
    """Every tensor of the model that trains, by name, in the order of the model's parameters.

    `base` and `delta` are modules, functions that return one, or configurations that the model's class takes; the last
    two are built without memory, on the meta device, and the base once more with memory where only its values tell how
    a tensor begins. `delta` is only needed where base and model have equal widths. Unless it is `partial`, the model
    must have an embedding and a readout. Raises ValueError for a base of another architecture, and for tensors that
    cannot be decided: one error for all that is to be changed, with what `also` says of the tensors as they are
    proposed there.
    """
    _check_model(model)
    _check_mapping(kinds, "kinds", "patterns to kinds", "residual_out", str)
    fan_in_axis = _axes(fan_in_axis)
    for pattern, kind in (kinds or {}).items():
        if kind not in get_args(Kind):
            raise ValueError(f"kinds has {pattern!r}: {kind!r}; allowed: {', '.join(get_args(Kind))}.")
    model = unwrapped(model)
    check_separate({places[0].name: parameter_of(places[0]) for places in tensor_uses(model)})
    refused = refusal_text(model)
    with at_rest(model):
        compared = _Compared.of(model, base, delta, refuse_base=not refused)
        every = list(compared.uses.values())
        said: Mapping[str, Kind] = kinds or {}
        try:
            given = _Given(
                values_by_pattern(said, every, "kinds"), values_by_pattern(fan_in_axis, every, "fan_in_axis")
            )
        except ValueError as error:  # of computed weights the names to be given are those of plain ones
            raise ValueError("\nBesides, ".join(text for text in (refused, str(error)) if text)) from None
        decided, questions = _settled(compared, given)
        derived = {name: _derived(name, compared, decided) for name in compared.trained if name in decided.beginnings}
        ends = "" if partial else missing_end(decided.chosen, decided.guesses)
        if refused or questions or ends:
            described = {}
            for name, places in compared.trained.items():
                shape = tuple(parameter_of(places[0]).shape)
                described[name] = f"{shape} in {type(places[0].module).__name__}"
            names = [use.name for places in compared.trained.values() for use in places]
            besides = also(derived) if refused or questions else Besides()
            asked = questions_text(questions, described, names, ends, besides)
            raise ValueError("\nBesides, ".join(text for text in (refused, asked) if text))
    return derived


class _Given(NamedTuple):
    """What is said of tensors, by name: their kind, and what they sum over; by the caller, or as it is proposed."""

    kinds: Mapping[str, Kind | None]
    axes: Mapping[str, Axes | None]

    def answered(self, questions: Mapping[str, Question]) -> _Given:
        """With what the questions propose."""
        kinds = {name: question.kind for name, question in questions.items() if question.kind is not None}
        axes = {name: question.axis for name, question in questions.items() if question.axis is not None}
        return _Given({**self.kinds, **kinds}, {**self.axes, **axes})


class _Decided(NamedTuple):
    """What is known of tensors, by name, and what is not."""

    guesses: dict[str, Guess]
    chosen: dict[str, Kind]
    beginnings: dict[str, Beginning]  # of those that are settled and train
    questions: dict[str, Question]


def _settled(compared: _Compared, given: _Given) -> tuple[_Decided, dict[str, Question]]:
    """(what is decided where every question is answered as it is proposed, the questions).

    An answer may leave another question, as of the values of a tensor that is drawn then; all are asked at once.
    """
    asked: dict[str, Question] = {}
    decided = _decide(compared, given)
    for _ in range(_ANSWERS):
        new = {name: question for name, question in decided.questions.items() if asked.get(name) != question}
        if not new:
            break
        asked |= new
        given = given.answered(new)
        decided = _decide(compared, given)
    return decided, {name: asked[name] for name in compared.trained if name in asked}


def _decide(compared: _Compared, given: _Given) -> _Decided:
    """The kind and the beginning of every tensor, or what is to be asked of it."""
    uses = compared.uses
    trained = compared.trained
    experts = growing_experts(uses, compared.others)
    guesses = {
        name: Guess.of(places, compared.others, compared.widths[name], given.axes.get(name), compared.forwards)
        for name, places in uses.items()
    }
    for name, axis in experts.routers.items():
        guesses[name] = guesses[name]._replace(kinds=frozenset({"router"}), axis=axis)
    known = {name: given.kinds.get(name) for name in uses}
    chosen, questions = chosen_kinds(uses, guesses, known, compared.widths, compared.built, experts)
    beginnings: dict[str, Beginning] = {}
    for name, places in trained.items():
        shape = tuple(parameter_of(places[0]).shape)
        if name in questions:
            continue
        if chosen[name] in _WITH_FAN_IN and (len(shape) < 2 or guesses[name].axis is None):
            questions[name] = fan_in_question(shape, chosen[name])
            continue
        if chosen[name] in SPARSE and guesses[name].assumed:
            questions[name] = axis_question(shape, chosen[name], guesses[name], compared.widths[name])
            continue
        beginning = compared.built.beginning(name, chosen[name], given=given.kinds.get(name) is not None)
        if beginning.problem:
            questions[name] = beginning_question(beginning.problem, chosen[name])
        else:
            beginnings[name] = beginning
    asked = {name: questions[name] for name in trained if name in questions}
    return _Decided(guesses, chosen, beginnings, asked)


class _Compared(NamedTuple):
    """A model beside its base, and delta if there is one, tensor by tensor; by the first name of each."""

    uses: dict[str, tuple[Use, ...]]
    trained: dict[str, tuple[Use, ...]]  # those of them that train
    narrow: dict[str, tuple[int, ...]]  # shapes in the base
    widths: dict[str, list[int]]  # the dimensions that differ
    others: list[dict[str, Use]]  # the uses in base and delta, by name
    built: AsBuilt  # the values that they are built with
    forwards: Forwards

    @classmethod
    def of(cls, model: nn.Module, base: object, delta: object, *, refuse_base: bool) -> _Compared:
        """Compare all tensors; `refuse_base`: base and delta have no computed weights, or are refused."""
        uses = plain_uses(model)
        trained = [places for places in uses if parameter_of(places[0]).requires_grad]
        if not trained:
            raise ValueError(
                f"none of the {len(tensor_uses(model))} parameters of {type(model).__name__} trains (requires_grad is "
                "False): there is nothing to plan. Call model.requires_grad_(True), or parametrize before it is frozen."
            )
        sources = {"base": base}
        if delta is not None:
            sources["delta"] = delta
        modules = {word: plain_base(source, model, word, refuse=refuse_base) for word, source in sources.items()}
        sizes = [shapes_of(module, uses, word) for word, module in modules.items()]
        shapes = {places[0].name: tuple(parameter_of(places[0]).shape) for places in uses}
        widths = {}
        for name, shape in shapes.items():
            others = [shapes_there[name] for shapes_there in sizes]
            widths[name] = differing_axes(shape, others)
        check_widths(shapes, sizes[0], widths)

        def fill() -> dict[str, Use]:
            filled = modules["base"]
            if not isinstance(base, nn.Module):
                filled = built_base(base, model, "base", filled=True)
                make_plain(filled)
            return uses_by_name(filled)

        every = {places[0].name: places for places in uses}
        return cls(
            uses=every,
            trained={places[0].name: places for places in trained},
            narrow=sizes[0],
            widths=widths,
            others=[uses_by_name(module) for module in modules.values()],
            built=AsBuilt(every, fill),
            forwards=Forwards(),
        )


def _check_model(model: object) -> None:
    """Raise ValueError for what is no module with whole parameters."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"the model is {model!r}; it must be a torch.nn.Module.")
    if not any(True for _ in model.parameters()):
        raise ValueError(f"the model {type(model).__name__} has no parameters; give the module that is trained.")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(f"{name} of the model has no shape yet; call the model once on inputs before.")


def _check_mapping(given: object, word: str, what: str, example: object, value: type) -> None:
    as_in = f"as in {{'*.down.weight': {example!r}}}"
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"{word} is {given!r}; it must map {what}, {as_in}.")
    for pattern, each in (given or {}).items():
        if not isinstance(pattern, str) or not isinstance(each, value) or isinstance(each, bool):
            raise ValueError(f"{word} has {pattern!r}: {each!r}; it must map {what}, {as_in}.")


def _axes(given: Mapping[str, Axes] | None) -> Mapping[str, Axes]:
    """Patterns to the dimensions that are summed over, one or a tuple. Raises ValueError for anything else."""
    if isinstance(given, Mapping):
        lists = {pattern: axes for pattern, axes in given.items() if isinstance(axes, list | tuple)}
        for pattern, axes in lists.items():
            whole = all(isinstance(axis, int) and not isinstance(axis, bool) for axis in axes)
            if not axes or not whole or len(set(axes)) < len(axes):
                raise ValueError(
                    f"fan_in_axis has {pattern!r}: {axes!r}; of several give each once, as in {{{pattern!r}: (0, 1)}}."
                )
        _check_mapping({p: v for p, v in given.items() if p not in lists}, "fan_in_axis", "patterns to axes", 1, int)
        return {pattern: tuple(axes) if pattern in lists else axes for pattern, axes in given.items()}  # type: ignore[arg-type]
    _check_mapping(given, "fan_in_axis", "patterns to axes", 1, int)
    return {}


def _derived(name: str, compared: _Compared, decided: _Decided) -> Derived:
    """What the rules need to know of a tensor that is settled."""
    places = compared.trained[name]
    guess = decided.guesses[name]
    kind = decided.chosen[name]
    axis = guess.axis
    shape = tuple(parameter_of(places[0]).shape)
    ratios = {i: shape[i] / compared.narrow[name][i] for i in compared.widths[name]}
    fan_in = None
    if axis is not None and kind not in VECTORS and (kind != "embedding" or guess.kinds & {"input", "readout"}):
        fan_in = fan_in_of(places[0], shape, axis)
    if kind in _WITH_FAN_IN:
        assert axis is not None
        m_d = math.prod(ratios.pop(summed, 1.0) for summed in summed_axes(places[0], axis))
        m_out = math.prod(ratios.values())
        if guess.groups is not None and axis == 0:  # (in, out / groups, ...)
            m_d = m_d / guess.groups
            m_out = m_out * guess.groups
    else:
        m_d = math.prod(ratios.values())
        m_out = 1.0
    departs = ""
    if kind in SPARSE:
        others = [of[places[0].name] for of in compared.others]
        departs = compared.forwards.departs(places[0], others, lambda: compared.built.in_base(places[0].name))
    return Derived(
        names=tuple(use.name for use in places),
        shape=shape,
        kind=kind,
        readouts=guess.readouts if kind == "embedding" else (),
        fan_in=fan_in,
        m_d=m_d,
        m_out=m_out,
        beginning=decided.beginnings[name],
        dense=guess.groups is not None or "router" in guess.kinds,
        departs=departs,
    )
