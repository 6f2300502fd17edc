from __future__ import annotations

from jaxtyping import install_import_hook

# Shapes in the proxy's signatures are enforced while the tests run.
install_import_hook("hpsweep.proxy", "beartype.beartype")
