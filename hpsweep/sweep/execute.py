"""Where ensembles are trained: worker processes of this machine, or Ray Tune.

Both ask a Plan for ensembles and hand it what came out; neither knows the store, the search or the display.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from hpsweep.proxy.compile_choice import compile_choice
from hpsweep.sweep.local import local_place
from hpsweep.sweep.worker import Place


@contextlib.contextmanager
def worker_place(
    address: str = "local", *, workers: int | None = None, device: str = "auto", gpus_per_worker: float = 1.0
) -> Iterator[Place]:
    """The place that `address` names: "local", "auto" (this machine's Ray cluster) or a Ray address.

    Raises ValueError, within seconds, for an unreachable address, a device that is not there, workers below 1,
    gpus_per_worker outside (0, 1], and where there is a GPU for an unknown word in HPSWEEP_COMPILE. Training there
    raises ConnectionError if the cluster goes away.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers is {workers}; at least 1 is needed. Leave it out to use all cores or GPUs.")
    if not 0 < gpus_per_worker <= 1:
        raise ValueError(f"gpus_per_worker is {gpus_per_worker}; allowed: above 0, up to 1 (a worker uses one GPU).")
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device is {device!r}; allowed: auto, cpu, cuda.")
    if address == "local":
        yield _checked(local_place(workers, device, gpus_per_worker))
        return
    from hpsweep.sweep.cluster import ray_cluster, ray_place

    with ray_cluster(address) as ray:
        yield _checked(ray_place(ray, workers, device, gpus_per_worker))


def _checked(here: Place) -> Place:
    """The place, after a check of what the environment says of it."""
    if here.device == "cuda":
        compile_choice()
    return here
