"""The native engine: whole steps of training in C, one trial per thread, multiplying nonzeros only where that pays.

engine.c and its headers follow model.py function by function; build.py compiles them on first use; engine.py is the
same interface as the torch engine's.
"""

from hpsweep.proxy.native.build import why_unavailable
from hpsweep.proxy.native.choice import product_way, too_long, why_unsupported
from hpsweep.proxy.native.engine import NativeTrial, train_native

__all__ = ["NativeTrial", "product_way", "too_long", "train_native", "why_unavailable", "why_unsupported"]
