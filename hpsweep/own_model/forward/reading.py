"""One measured factor of a forward pass, and the multipliers that a plan asks for."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from hpsweep.own_model.data import PlanData


class FactorReading(NamedTuple):
    """One factor: of the tensor use or the attention module `name`, what the rules ask for and what is there.

    `factor` is None where it was not seen, and NaN where it is not one number.
    """

    name: str
    kind: Literal["embedding", "readout", "attention"]
    expected: float
    factor: float | None
    why: str  # it was not seen, or is in doubt; else empty
    tolerance: float

    @property
    def right(self) -> bool:
        """Whether the factor is the one that is asked for, without doubt."""
        if self.factor is None or self.why:
            return False
        return math.isclose(self.factor, self.expected, rel_tol=self.tolerance)

    @property
    def needless(self) -> bool:
        """Whether nothing was seen where nothing has to be multiplied."""
        if self.factor is not None:
            return False
        is_one = self.expected == 1.0 and self.kind != "attention"
        return is_one or self.why in (UNUSED, NO_SOFTMAX)


NO_SOFTMAX = "it multiplies activations, and no softmax takes them: a mixer that has no attention factor"
UNUSED = "nothing is looked up by it, but by another name of the same tensor"


def forward_factors(plan: PlanData, kind: str | None = None) -> dict[str, float]:
    """Name of every use of an embedding or readout -> its forward multiplier by the plan."""
    result = {}
    for first, tensor in plan.tensors.items():
        for name in (first, *tensor.tied):
            use = tensor.kind
            factor: float | None = tensor.forward
            if name in tensor.readouts:  # the second use of a tied embedding
                use = "readout"
                factor = tensor.readout_forward
            if use in ("embedding", "readout") and kind in (None, use):
                result[name] = 1.0 if factor is None else factor
    return result
