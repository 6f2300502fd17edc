"""How far the engines' losses are apart over 40 steps: python -m benchmarks.agreement

The largest difference of a training loss, nats/token, at step 0 and over all steps: native against torch, and torch
by one library (MKL, and fused attention) against torch by the other (oneDNN, and attention in its parts; where it can
choose). Two ways to round are apart by as much as training is chaotic, which it is at high learning rates; no engine is
nearer to the truth then.
"""

from __future__ import annotations

import argparse
from itertools import product
from typing import get_args
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.matrices import native_or_exit
from benchmarks.record import table
from hpsweep.proxy import device, ensemble_state
from hpsweep.proxy.data import load_dataset
from hpsweep.proxy.native import NativeTrial
from hpsweep.schemes import Scheme
from hpsweep.spec import Trial

STEPS = 40


def by_torch(trial: Trial, *, onednn: bool) -> npt.NDArray[np.float64]:
    """Losses of every step, with float32 products by oneDNN or by MKL."""
    with mock.patch.object(device, "onednn_is_better", return_value=onednn):
        member = ensemble_state.Ensemble([trial], load_dataset(trial.data), torch.device("cpu"))
        history = torch.full((STEPS, 1), torch.nan)
        for step in range(STEPS):
            member.step(step, history)
    return history[:, 0].double().numpy()


def apart(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The difference at step 0, and the largest."""
    difference = np.abs(one - other)
    return float(difference[0]), float(difference.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--rates", type=float, nargs="+", default=[2.0**-k for k in (9, 7, 6, 5)], help="base lr")
    parser.add_argument("--densities", type=float, nargs="+", default=[1, 1 / 4, 1 / 16, 1 / 64])
    given = parser.parse_args()
    torch.set_num_threads(1)
    with native_or_exit():
        _show(given)


def _show(given: argparse.Namespace) -> None:
    rows = []
    for scheme, lr, density in product(get_args(Scheme), given.rates, given.densities):
        trial = Trial(width=given.width, steps=STEPS, scheme=scheme, lr=lr, density=density)
        native = NativeTrial(trial, load_dataset(trial.data)).steps(0, STEPS)
        mkl, onednn = by_torch(trial, onednn=False), by_torch(trial, onednn=True)
        native_apart, torch_apart = apart(native, mkl), apart(onednn, mkl)
        rows.append([scheme, f"{lr:.4g}", f"{density:.4g}", *(f"{x:.0e}" for x in (*native_apart, *torch_apart))])
    heads = ["native - torch, step 0", "largest", "torch - torch, step 0", "largest"]
    print(table(["scheme", "lr", "density", *heads], rows))


if __name__ == "__main__":
    main()
