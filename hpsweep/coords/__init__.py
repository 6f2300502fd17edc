"""The coordinate check: whether activations, and what training changes of them, keep their size as a model scales.

    sizes = hp.coords.check(build, widths=[64, 256], densities=[1, 1 / 16])   # measured; needs torch
    slopes = hp.coords.slopes(sizes)                                          # octaves per octave, with intervals
    verdicts = hp.coords.verdicts(slopes)                                     # a row per module
    print(hp.coords.text(slopes))                                             # the same in words

`check` is loaded when it is first used, so that stored tables are read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hpsweep.analysis.coords import coordinate_slopes as slopes
from hpsweep.analysis.coords import coordinate_text as text
from hpsweep.analysis.coords import coordinate_verdicts as verdicts

if TYPE_CHECKING:
    from hpsweep.coords.sizes import coordinate_check as check

__all__ = ["check", "slopes", "text", "verdicts"]


def __getattr__(name: str) -> Any:
    if name != "check":
        raise AttributeError(f"hpsweep.coords has no {name!r}; it has {', '.join(__all__)}.")
    from hpsweep.coords.sizes import coordinate_check

    return coordinate_check


def __dir__() -> list[str]:
    return __all__
