"""What every field of a law's JSON may hold; a law is checked by this table when it is read."""

from __future__ import annotations

from hpsweep.analysis.law_fit import THETA
from hpsweep.records import choice, mapping, number, optional, plain, rows, table, text, whole

_REAL = number(-1e300, 1e300)
_POSITIVE = number(0, 1e300, ends="(]")
_ROWS = rows(mapping(plain))
_ENDS = rows(_REAL, least=2, most=2)

LAW = table(
    form=choice("dense", "sparse"),
    status=choice("ok", "weak", "not_converged"),
    why=text,
    coefficients=mapping(optional(_REAL)),
    centred=table(**dict.fromkeys(THETA, _REAL)),
    centre=table(params=_POSITIVE, tokens=_POSITIVE),
    objective=number(0, 1e300),
    delta=_POSITIVE,
    cells=whole(1),
    ranges=table(sparsity=_ENDS, params=_ENDS, tokens=_ENDS, loss=_ENDS),
    levels=mapping(whole(1)),
    conventions=mapping(text),
    starts=table(polished=whole(0), agreeing=whole(0)),
    intervals=_ROWS,
    weak=rows(table(coefficient=text, reason=text)),
    warnings=rows(text),
    left_out=_ROWS,
    held_out=_ROWS,
    correlations=_ROWS,
    profiles=_ROWS,
    residuals=_ROWS,
    replicates=rows(rows(_REAL, least=len(THETA), most=len(THETA))),
    seed=whole(0),
    schema_version=whole(1),
)
"""The check of a whole law."""
