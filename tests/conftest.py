from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from jaxtyping import install_import_hook

from tests import processes

# Shapes in the proxy's signatures are enforced while the tests run.
install_import_hook("hpsweep.proxy", "beartype.beartype")

# As in a worker. Several threads on a busy machine wait for each other most of the time.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_process_outlives_its_test() -> Iterator[None]:
    yield
    processes.end_all()
