"""Which engine trains, and why: asked once, before any work."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

from hpsweep.sweep.worker import ENGINES, function


class Serving(NamedTuple):
    """The engine that trains, torch or native, and why it is torch on a CPU where none was asked for, else ""."""

    engine: str
    why: str = ""


def serving(train: str, device: str) -> Serving:
    """What serves on a cpu or cuda device of this machine where `train` was asked for, one of ENGINES.

    Another trainer is taken to multiply zeros, as the torch engine does. Raises ValueError where the native engine
    was asked for and cannot serve, and where torch has to serve and is not installed.
    """
    asked = {path: name for name, path in ENGINES.items()}.get(train)
    if asked is None:
        return Serving("torch")
    if asked == "native" and device != "cpu":
        raise ValueError(f"engine is native, which trains on a CPU, and device is {device}; use engine torch, or auto.")
    why = "" if asked == "torch" or device != "cpu" else unavailable() or ""
    if asked == "native" and why:
        raise ValueError(f"engine is native, which cannot serve here: {why}. Use engine torch, or auto.")
    if device == "cpu" and asked != "torch" and not why:
        return Serving("native")
    if importlib.util.find_spec("torch") is None:
        raise ValueError("training needs torch, which is not installed: pip install 'hpsweep[run]'.")
    return Serving("torch", why)


def unavailable() -> str | None:
    """Why the native engine cannot serve on this machine, in one line; None where it can."""
    try:
        ask = function("hpsweep.proxy.native:unavailable")
    except (ImportError, AttributeError):
        return "this hpsweep has no native engine"
    why: str | None = ask()
    return why and why.rstrip(".")
