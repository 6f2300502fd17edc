"""Which engine trains, and why: asked once, before any work."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from typing import NamedTuple

from hpsweep.proxy import gpu, native
from hpsweep.proxy.outcome import check_precision
from hpsweep.spec import Trial
from hpsweep.sweep.worker import ENGINES


class Serving(NamedTuple):
    """The engine that trains, torch or native; and why it is torch on a CPU where none was asked for, else ""."""

    engine: str
    why: str = ""


def serving_engine(train: str, device: str, trials: Iterable[Trial], cards: Iterable[gpu.Card] = ()) -> Serving:
    """What trains these on a cpu or cuda device where `train` was asked for, one of ENGINES.

    Where the native engine hands over some trials only, it is said to train, and why tells of the others. Another
    trainer is taken to multiply zeros, as torch does. Raises ValueError where the native engine was asked for and
    cannot serve, where torch has to and is not installed, and where the device, or one of its GPUs as far as they are
    known, has not the trials' precision.
    """
    trials = list(trials)
    for precision in {trial.precision for trial in trials}:
        check_precision(precision, device)
        for card in cards:
            gpu.check_card(precision, card)
    asked = {path: name for name, path in ENGINES.items()}.get(train)
    if asked is None:
        return Serving("torch")
    if asked == "torch" or device != "cpu":
        engine, why = Serving("torch")
    else:
        engine, why = _native(trials)
    if asked == "native" and device != "cpu":
        raise ValueError(f"engine is native, which trains on a CPU, and device is {device}; use engine torch, or auto.")
    if asked == "native" and why:
        raise ValueError(f"engine is native, which cannot serve here: {why}; use engine torch, or auto.")
    if (engine == "torch" or why) and importlib.util.find_spec("torch") is None:
        because = ""
        if why:
            because = f" ({why})"
        raise ValueError(f"training needs torch{because}, which is not installed: pip install 'hpsweep[run]'.")
    return Serving(engine, why)


def _native(trials: Iterable[Trial]) -> Serving:
    """The native engine, if it trains any of them on this machine, and why not all."""
    why = native.why_unavailable()
    if why:
        return Serving("torch", why.rstrip("."))
    shapes = {trial.shape: trial for trial in trials}
    refused = list(filter(None, map(native.why_unsupported, shapes.values())))
    if not refused:
        return Serving("native")
    if len(refused) == len(shapes):
        return Serving("torch", refused[0])
    return Serving("native", refused[0])
