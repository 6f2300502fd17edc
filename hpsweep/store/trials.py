"""Which of the stored rows count: each trial once, and which of them are done."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hpsweep.schema import DONE, RUNS
from hpsweep.store.columns import is_text


def distinct_trials(table: pa.Table) -> pa.Table:
    """Each trial once per data_hash: the earliest finished row, else the latest failed one.

    The same trial on other data is another run: it must stay visible, so that mixed data is refused. So is one with
    another value in a column that is not hpsweep's.
    """
    if pc.count_distinct(table["trial_id"]).as_py() == table.num_rows:
        return table
    # a number per run: rows of one trial, on the same data, with the same values in the columns of others
    foreign = [name for name in table.column_names if name not in RUNS.names]
    run = _codes(table["trial_id"])
    for name in ("data_hash", *foreign):
        codes = _codes(table[name])
        run = np.unique(run * (codes.max() + 1) + codes, return_inverse=True)[1]
    # a run with one row keeps it
    rows = np.bincount(run)
    keep = rows[run] == 1
    # of one with several rows the first counts: finished before failed, then the earliest finished, the latest failed
    again = np.flatnonzero(~keep)
    several = table.select(["status", "finished_at"]).take(pa.array(again))
    failed = ~is_done(several).to_numpy()
    times = several["finished_at"].cast(pa.int64()).fill_null(0).to_numpy()
    order = np.lexsort((np.where(failed, -times, times), failed, run[again]))
    _, first = np.unique(run[again][order], return_index=True)
    keep[again[order[first]]] = True
    return table.filter(pa.array(keep))


def _codes(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A number per distinct value, from 0; null is one of them. Lists and objects of others are compared as text."""
    if not pa.types.is_primitive(column.type) and not is_text(column.type):
        column = pa.chunked_array([pa.array(map(repr, column.to_pylist()), pa.string())])
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    return np.asarray(encoded.indices.to_numpy(), dtype=np.int64)


def is_done(table: pa.Table) -> pa.ChunkedArray:
    """Whether each row's trial need not be trained again."""
    return pc.is_in(table["status"], pa.array(DONE))


def finished_trials(runs: pa.Table) -> set[str]:
    """Ids of the trials that need not be trained again."""
    return set(runs["trial_id"].filter(is_done(runs)).to_pylist())
