"""The schemes, in one table: which multipliers of size each keeps, and how figures and reports show it.

By the exponents of `rules.multipliers`: sp keeps none, so that base values are used at every size; mup (arXiv
2203.03466) keeps those of width, supar (arXiv 2405.15743) that of density too. A scheme that keeps m_d also has the
forward multipliers of embedding, readout and attention, with their alphas.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

Scheme = Literal["sp", "mup", "supar"]
Multiplier = Literal["m_d", "m_rho", "m_out"]


class Definition(NamedTuple):
    """The multipliers that a scheme keeps; its name, colour and marker in figures."""

    multipliers: frozenset[Multiplier]
    label: str
    color: str
    marker: str


_WIDTH: frozenset[Multiplier] = frozenset({"m_d", "m_out"})

SCHEMES: dict[Scheme, Definition] = {
    "sp": Definition(frozenset(), "SP", "#d55e00", "s"),
    "mup": Definition(_WIDTH, "μP", "#009e73", "D"),
    "supar": Definition(_WIDTH | {"m_rho"}, "SuPar", "#0072b2", "o"),
}
"""In the order of panels, legends and tables; a later one is preferred where nothing is said.

Colours are those of Okabe and Ito, safe for colour-blind eyes.
"""


def scheme_label(scheme: str) -> str:
    """What the scheme is called in figures and sentences."""
    return next(definition.label for name, definition in SCHEMES.items() if name == scheme)


def scales(scheme: Scheme) -> bool:
    """Whether anything depends on a model's sizes under the scheme."""
    return bool(SCHEMES[scheme].multipliers)


def scales_width(scheme: Scheme) -> bool:
    """Whether numbers follow the width, and with them the forward multipliers and the scale of attention."""
    return "m_d" in SCHEMES[scheme].multipliers


def scales_density(scheme: Scheme) -> bool:
    """Whether numbers follow the density."""
    return "m_rho" in SCHEMES[scheme].multipliers


def alike_at_base_density(scheme: str) -> list[Scheme]:
    """The other schemes that train alike at the base density, as mup and supar do: they differ in m_rho alone."""
    kept = {str(name): definition.multipliers - {"m_rho"} for name, definition in SCHEMES.items()}
    return [name for name in SCHEMES if name != scheme and kept[name] == kept.get(scheme)]


def preferred(present: Iterable[str]) -> list[Scheme]:
    """Those of the schemes that are present, the one that is taken where nothing is said first."""
    known = set(present)
    return [scheme for scheme in reversed(SCHEMES) if scheme in known]
