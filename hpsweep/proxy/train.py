"""train(trials) -> rows and curves, by the engine that suits them."""

from __future__ import annotations

from collections.abc import Sequence

from hpsweep.proxy.outcome import Finished, Outcome, Progress
from hpsweep.spec import Trial


def train(
    trials: Sequence[Trial],
    *,
    device: str = "cpu",
    progress: Progress | None = None,
    finished: Finished | None = None,
) -> Outcome:
    """Train the trials, which share one shape: on a CPU by the native engine where it can serve, else by torch.

    Rows are in the trials' order, and no trial's result depends on its neighbours. `progress` is called with (steps
    done, steps in all), `finished` with what came of trials that are whole before the others. Raises ValueError if the
    shapes differ or the data is unfit.
    """
    if device == "cpu":
        from hpsweep.proxy import native

        if native.why_unavailable() is None and not any(map(native.why_unsupported, trials)):
            return native.train_native(trials, device=device, progress=progress, finished=finished)
    from hpsweep.proxy import ensemble

    return ensemble.train_ensemble(trials, device=device, progress=progress, finished=finished)
