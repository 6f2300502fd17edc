from __future__ import annotations

import torch
from jaxtyping import install_import_hook

# Shapes in the proxy's signatures are enforced while the tests run.
install_import_hook("hpsweep.proxy", "beartype.beartype")

# As in a worker. Several threads on a busy machine wait for each other most of the time.
torch.set_num_threads(1)
