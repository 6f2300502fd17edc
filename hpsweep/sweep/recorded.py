"""The sweep that a results folder records, and the report of its runs, which compares them with what was planned.

`hp.load` puts both into the attrs of its table, so that a report of the table is that of the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from hpsweep.spec import BEFORE, Command, Loop, Model, Refine, Sweep, Target, Trial
from hpsweep.store import FOLDER, RECORDED, STORED
from hpsweep.sweep.own_runs import own_runs

if TYPE_CHECKING:
    import pandas as pd

    from hpsweep.analysis.report.page import Report


def _recorded_code(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What trains in the place of the built-in GPT, where the sweep had that; none of the user's files is read."""
    code: dict[str, Any] = {}
    if meta.get("model"):
        code["model"] = Model.from_dict(meta["model"])
    if meta.get("train"):
        code["train"] = Loop.from_dict(meta["train"])
    if meta.get("command"):
        code["command"] = Command(**meta["command"])
    return code


def recorded_sweep(meta: Mapping[str, Any], folder: str) -> Sweep | None:
    """The sweep of what `store.read_meta` read; None where nothing is recorded. Raises ValueError for what is none."""
    if not meta:
        return None
    try:
        target = Target(**meta["target"]) if meta["target"] else None
        refine = Refine(**meta["refine"]) if meta.get("refine") else None
        base = Trial(**{**BEFORE, **meta["base"]})
        return Sweep(**{**meta, "base": base, "refine": refine, "target": target, **_recorded_code(meta)})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder}/meta.json is not what hpsweep wrote ({error}); restore or remove it.") from None


def report(
    runs: pd.DataFrame,
    sweep: Sweep | None = None,
    *,
    folder: str | None = None,
    ignore: Sequence[str] = (),
    say: Callable[[str], None] = lambda message: None,
) -> Report:
    """What the runs say, verdict first: `save` writes it as a page, and a notebook shows it.

    Of runs that `hp.load` returned it is the page of `hpsweep report`: the folder and the sweep that it records, with
    its target, are in `runs.attrs`. Of a part of them, such as runs[runs.scheme == "supar"], it has the same target and
    title, and does not say what is missing. Another `sweep` and `folder` may be given: the sweep says what was planned
    and for which target, `folder` is what commands on the page name. `say` is called with what is computed next.

    What cannot be computed is said on the page, with why, and never raised. Raises ValueError for what is no table of
    runs, sweep or path, and for schemes that hpsweep does not know.
    """
    from hpsweep.analysis.report.page import report as page_of
    from hpsweep.analysis.runs.arguments import check_frame

    check_frame(runs)
    folder = runs.attrs.get(FOLDER, "results/NAME") if folder is None else folder
    recorded = None if sweep else recorded_sweep(runs.attrs.get(RECORDED, {}), str(folder))
    if recorded is None or "trial_id" not in runs:
        return page_of(runs, sweep or recorded, folder=folder, ignore=ignore, say=say)
    whole = len(runs) == runs.attrs[STORED]
    own = own_runs(runs, recorded)
    return page_of(
        own,
        recorded,
        folder=folder,
        left_out=len(runs) - len(own),
        stages=_stages(runs, recorded) if whole else [],
        whole=whole,
        ignore=ignore,
        say=say,
    )


def _stages(runs: pd.DataFrame, sweep: Sweep) -> list[dict[str, Any]]:
    """Where each group of a refinement is; of other sweeps nothing."""
    if sweep.search != "refine":
        return []
    from hpsweep.sweep.refine import refinement_records

    return refinement_records(sweep, pa.Table.from_pandas(runs, preserve_index=False).to_pylist())
