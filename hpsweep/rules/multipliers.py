"""THE table: how init std, learning rate, forward multiplier and eps of each kind of tensor scale with a model's sizes.

    m_d    width multiplier, fan_in / base fan_in of the tensor
    m_rho  density multiplier, density / base density of the tensor; 1 for a dense tensor
    m_out  fan_out / base fan_out; only SGD's learning rates and Adam's eps depend on it

A scheme keeps some of these (`schemes.SCHEMES`); the others are 1 under it. For Adam: arXiv 2405.15743, Table 1; for
SGD: arXiv 2203.03466, Table 8, with m_rho beside the fan-in. A tensor with one width or none (embedding, norm, bias)
has that width's multiplier as m_d. Base hyperparameters are the values at m_d = m_rho = m_out = 1.

What is of kind `keep` is trained as norms and biases are: base lr, no decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from hpsweep.architectures import SPARSE, VECTORS, Kind, tensors
from hpsweep.schemes import SCHEMES, Scheme, scales_width
from hpsweep.spec import Trial

OptimizerRule = Literal["adam", "sgd"]


class Exponents(NamedTuple):
    """A quantity is multiplied by the product of each multiplier raised to its exponent."""

    m_d: float = 0.0
    m_rho: float = 0.0
    m_out: float = 0.0


ONE = Exponents()


class Rule(NamedTuple):
    """How one kind of tensor scales: `lr` and `eps` are Adam's, `sgd_lr` is SGD's."""

    init_std: Exponents = ONE
    lr: Exponents = ONE
    forward: Exponents = ONE
    sgd_lr: Exponents = ONE
    eps: Exponents = ONE


_MATRIX = Rule(
    init_std=Exponents(m_d=-0.5, m_rho=-0.5),
    lr=Exponents(m_d=-1, m_rho=-1),
    sgd_lr=Exponents(m_d=-1, m_rho=-1, m_out=1),
    eps=Exponents(m_out=-1),
)
_OF_ONE_WIDTH = Rule(sgd_lr=Exponents(m_d=1), eps=Exponents(m_d=-1))

RULES: dict[Kind, Rule] = {
    "embedding": _OF_ONE_WIDTH,
    "hidden": _MATRIX,
    "residual_out": _MATRIX,
    "norm": _OF_ONE_WIDTH,
    "bias": _OF_ONE_WIDTH,
    "keep": _OF_ONE_WIDTH,
    "readout": Rule(forward=Exponents(m_d=-1), sgd_lr=Exponents(m_d=1), eps=Exponents(m_d=-1)),
}
"""Adam's eps follows the gradients. A matrix's gradient is that of its output times its input, which keeps its size:
it shrinks with its output's width, as its bias's does, and the readout's with its forward multiplier. Kept weights have
gradients of one size whatever the density. Exact where all widths grow alike; with several ratios a layer's
gradient at initialization goes by the geometric mean of its own ratio and the readout's, and eps by its own. The
proxies leave eps at a value so small that it does not matter. SGD's readout has the forward multiplier
alpha_output / m_d, as Adam's has.
"""

DECAYED: dict[Kind, bool] = {
    "embedding": True,
    "hidden": True,
    "residual_out": True,
    "norm": False,
    "bias": False,
    "keep": False,
    "readout": True,
}
"""Whether weight decay acts on a kind: on matrices, not on gains and biases (as nanoGPT does)."""


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """What a model and an optimizer need to know of one tensor; they know no scheme.

    init_std of a norm gain is 0 around 1, of a bias 0 around 0, of what is kept 0 around its own values. weight_decay
    is AdamW's, which multiplies it with lr.
    """

    kind: Kind
    m_d: float
    m_rho: float
    init_std: float
    lr: float
    weight_decay: float
    forward: float


def kind_numbers(
    trial: Trial, kind: Kind, *, m_d: float, m_rho: float, m_out: float = 1.0, optimizer: OptimizerRule = "adam"
) -> Numbers:
    """The numbers of one tensor of `kind` for the trial's base hyperparameters.

    `m_d`, `m_rho` and `m_out` (only SGD's rules need it) are the tensor's own; a dense tensor of a sparse model has
    m_rho = 1. A tied readout is the embedding's tensor: ask for kind "embedding", and take `readout_multiplier` for
    its second use. Raises ValueError for an unknown kind or optimizer.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"unknown kind of tensor {kind!r}; allowed: {', '.join(get_args(Kind))}.")
    if optimizer not in get_args(OptimizerRule):
        raise ValueError(
            f"optimizer is {optimizer!r}; allowed: {', '.join(get_args(OptimizerRule))}. Adam's rules hold for AdamW "
            "and others that divide by the size of the gradient, SGD's for those that do not."
        )
    rule = RULES[kind]
    lr_exponents = rule.lr if optimizer == "adam" else rule.sgd_lr

    def scale(exponents: Exponents) -> float:
        return _factor(trial.scheme, exponents, m_d=m_d, m_rho=m_rho, m_out=m_out)

    init_std = trial.init_std * scale(rule.init_std)
    if kind == "residual_out":  # 2 matrices of each block add to the residual stream
        init_std *= (2 * trial.depth) ** -0.5
    if kind in VECTORS:
        init_std = 0.0
    lr = trial.lr * scale(lr_exponents)
    if kind == "embedding":
        lr *= trial.embedding_lr_mult
    weight_decay = trial.weight_decay
    if trial.weight_decay_rule == "independent":
        # lr x weight_decay is then the same at every width and density; "coupled" lets it scale with the lr,
        # as the published code does.
        weight_decay /= scale(lr_exponents)
    forward = scale(rule.forward)
    if scales_width(trial.scheme):
        forward *= {"embedding": trial.alpha_input, "readout": trial.alpha_output}.get(kind, 1.0)
    return Numbers(
        kind=kind,
        m_d=m_d,
        m_rho=m_rho,
        init_std=init_std,
        lr=lr,
        weight_decay=weight_decay if DECAYED[kind] else 0.0,
        forward=forward,
    )


def eps_multiplier(scheme: Scheme, kind: Kind, *, m_d: float, m_out: float) -> float:
    """The factor of Adam's eps for a tensor."""
    return _factor(scheme, RULES[kind].eps, m_d=m_d, m_out=m_out)


def _factor(scheme: Scheme, exponents: Exponents, *, m_d: float, m_rho: float = 1.0, m_out: float = 1.0) -> float:
    """The product of the multipliers that the scheme keeps, each raised to its exponent."""
    kept = SCHEMES[scheme].multipliers
    if "m_d" not in kept:
        m_d = 1.0
    if "m_rho" not in kept:
        m_rho = 1.0
    if "m_out" not in kept:
        m_out = 1.0
    return float(m_d**exponents.m_d * m_rho**exponents.m_rho * m_out**exponents.m_out)


def attention_scale(trial: Trial) -> float:
    """The factor of the trial's attention logits."""
    return logit_scale(trial.scheme, trial.head_size, base=trial.base_head_size, alpha=trial.alpha_attention)


def logit_scale(scheme: Scheme, head_size: int, *, base: int, alpha: float) -> float:
    """The factor of attention logits at a head size, 1 / sqrt(head size) under sp.

    Under mup and supar it is alpha sqrt(base head size) / head size: equal to sp's at the base model, and falling as
    1 / head size from there, since queries and keys become alike in training (arXiv 2203.03466, definition 4.1). The
    published code of both schemes has a base head size of 1.
    """
    root = float(head_size**-0.5)
    if not scales_width(scheme):
        return root
    if base == head_size:
        return alpha * root  # sp's, to the last bit
    published = float(base**0.5 / head_size)
    return alpha * published


def readout_multiplier(trial: Trial) -> float:
    """The factor of the readout's output: alpha_output / m_d, or 1 under sp; tied or not."""
    return kind_numbers(trial, "readout", m_d=trial.m_d, m_rho=1.0).forward


def tensor_numbers(trial: Trial, vocabulary: int) -> dict[str, Numbers]:
    """The numbers of every tensor of the trial's model, by name."""
    by_name = {}
    for name, (_, kind) in tensors(trial, vocabulary).items():
        m_rho = trial.m_rho if kind in SPARSE else 1.0
        by_name[name] = kind_numbers(trial, kind, m_d=trial.m_d, m_rho=m_rho)
    return by_name
