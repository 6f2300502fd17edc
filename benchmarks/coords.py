"""Where the coordinate check of supar is flat along density, and where it is not: width, tokens, learning rate, steps.

    python -m benchmarks.coords

For every setting the largest slope of a size, an own change and a change over density 1, 1/8 and 1/64, octaves per
halving, of 14 modules and 4 seeds, and how large the changes are: the median over modules of change / size, dense.
Some minutes.
"""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd

from hpsweep.analysis.coords import coordinate_slopes
from hpsweep.coords.sizes import coordinate_check
from hpsweep.spec import Trial

BASE = {"width": 512, "tokens": 6, "lr": -9, "steps": 4}
SETTINGS: tuple[dict[str, int], ...] = (
    *({}, {"width": 128}, {"width": 256}, {"width": 1024}),
    *({"tokens": 1}, {"tokens": 32}, {"tokens": 256}),
    *({"width": 256, "lr": -7}, {"width": 256, "lr": -7, "tokens": 256}),
    *({"lr": -11}, {"lr": -8}, {"lr": -7}, {"lr": -7, "width": 1024}, {"lr": -7, "steps": 1}),
    *({"steps": 1}, {"steps": 16}),
)
"""What differs from BASE; lr is the power of 2."""


def measured(width: int, tokens: int, lr: int, steps: int) -> dict[str, Any]:
    """The largest slopes along density, and the size of the changes."""
    context, batch = (tokens, 1) if tokens <= 64 else (64, tokens // 64)
    trial = Trial(lr=2.0**lr, steps=1, context=context, batch=batch, head_size=16)
    sizes = coordinate_check(trial, widths=[width], densities=[1, 1 / 8, 1 / 64], seeds=range(4), steps=steps)
    slopes = coordinate_slopes(sizes).groupby("quantity")["slope"].max()
    dense = sizes[sizes["density"] == 1].set_index(["module", "seed"])
    moved = dense[dense["step"] == steps]["change"] / dense[dense["step"] == 0]["size"]
    largest = {quantity: slopes[quantity] for quantity in ("size", "own", "change")}
    return largest | {"change/size": float(moved.median())}


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore", UserWarning)  # fewer than 8 nonzeros per neuron are meant
    rows = []
    for changed in SETTINGS:
        setting = BASE | changed
        rows.append(setting | {"nonzeros": setting["width"] / 64} | measured(**setting))
    print(pd.DataFrame(rows).to_string(index=False, float_format=lambda number: f"{number:.3g}"))


if __name__ == "__main__":
    main()
