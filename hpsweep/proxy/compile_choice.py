"""Whether the step of an ensemble is compiled on a GPU, and what that costs and saves; without torch, for `plan`."""

from __future__ import annotations

import os

COMPILE = "HPSWEEP_COMPILE"
"""The environment variable that says whether steps are compiled on a GPU: auto, where it pays; always; never."""

COMPILE_SECONDS = 60.0
"""What compiling a step is taken to cost. An estimate: Inductor takes 20 to 60 s for it, if it has cached nothing."""

SAVED = 0.4
"""The share of a step's time that compiling it is taken to save. An estimate, by the bytes that a step moves."""


def compile_choice() -> str:
    """The value of HPSWEEP_COMPILE: auto, always or never. Raises ValueError if it is something else."""
    choice = os.environ.get(COMPILE, "auto")
    if choice not in ("auto", "always", "never"):
        raise ValueError(f"{COMPILE} is {choice!r}; it can be auto (where it pays, the default), always or never.")
    return choice


def compiling_pays(seconds_left: float) -> bool:
    """Whether to compile the step of a training that takes so many seconds more if it is not compiled."""
    choice = compile_choice()
    if choice == "auto":
        return SAVED * seconds_left > COMPILE_SECONDS
    return choice == "always"
