"""The report of a results folder: a verdict, and the tables and drawings it rests on.

`report` turns runs into records that know nothing of a page; `Report.save` puts them into report.html, one file that
refers to nothing outside, and report.md with its drawings beside it. The same runs give the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hpsweep.analysis.plots.style import SCHEMES
from hpsweep.analysis.report import costs as report_costs
from hpsweep.analysis.report import html as report_html
from hpsweep.analysis.report import joint as report_joint
from hpsweep.analysis.report import law as report_law
from hpsweep.analysis.report import markdown as report_md
from hpsweep.analysis.report import runs as report_runs
from hpsweep.analysis.report import sections as report_sections
from hpsweep.analysis.report.parts import ReportData
from hpsweep.analysis.report.tables import Tables, tables_of
from hpsweep.analysis.report.verdict import verdict_of
from hpsweep.analysis.runs.arguments import check_folder_path, check_frame
from hpsweep.analysis.runs.prepare import without_columns
from hpsweep.english import counted, listed
from hpsweep.spec import Sweep
from hpsweep.store import as_loaded, replacing
from hpsweep.text import shown, visible

FIGURES = "report_figures"
"""The folder of report.md's drawings."""


class Report(ReportData):
    """A verdict, and the sections that carry it. `report` makes it; in a notebook it shows itself as its page."""

    def save(self, folder: str | Path) -> list[Path]:
        """Write report.html and report.md, with its drawings in report_figures, into the folder, which is made.

        Returns the two paths. Raises ValueError for what is no path.
        """
        check_folder_path("folder", folder)
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        figures = folder / FIGURES
        wanted = {figures / f"{panel.name}.svg": panel.svg for panel in self.panels}
        if wanted:
            figures.mkdir(parents=True, exist_ok=True)
        for old in set(figures.glob("*.svg")) - set(wanted):
            old.unlink()
        pages = {
            folder / "report.html": report_html.render(self),
            folder / "report.md": report_md.render(self, FIGURES),
        }
        for path, text in {**wanted, **pages}.items():
            with replacing(path) as temporary:
                temporary.write_text(visible(text), encoding="utf-8")  # what trials failed with, too
        return list(pages)

    def _repr_html_(self) -> str:
        """The page, in a frame of its own: its style leaves the notebook alone."""
        page = escape(report_html.render(self))
        return f'<iframe srcdoc="{page}" width="100%" height="700" style="border: 0"></iframe>'


def report(
    runs: pd.DataFrame,
    sweep: Sweep | None = None,
    *,
    folder: str = "results/NAME",
    left_out: int = 0,
    stages: Sequence[Mapping[str, Any]] = (),
    whole: bool = True,
    ignore: Sequence[str] = (),
    say: Callable[[str], None] = lambda message: None,
) -> Report:
    """The report of runs, and of the sweep that they are of; sweep/recorded.py has what users call.

    The recorded sweep says what was planned and for which target; `folder` is what commands in the report name;
    `left_out` counts stored trials that are not of the sweep. `stages` are those of sweep.refine.refinement_records,
    one per group of a refinement: without them nothing is said of what it still lacks, nor where the runs are not the
    `whole` of what is stored. `say` is called with what is computed next.

    What cannot be computed is said, with why, and never raised. Raises ValueError for what is no table of runs, sweep
    or path, and for schemes that hpsweep does not know.
    """
    check_frame(runs)
    check_folder_path("folder", folder)
    if sweep is not None and not isinstance(sweep, Sweep):
        raise ValueError(f"sweep is {shown(sweep)}; give a Sweep, or None where none is recorded.")
    runs = as_loaded(without_columns(runs, ignore))
    if odd := sorted({*map(str, runs["scheme"].dropna().unique())} - {*SCHEMES}):
        raise ValueError(f"runs have scheme {', '.join(odd)}; allowed: {', '.join(SCHEMES)}.")
    folder = str(folder)
    tables = tables_of(runs, sweep, stages, say, whole=whole)
    say("figures")
    sections = (
        report_sections.losses(tables),
        report_sections.target(tables),
        report_sections.optima(tables),
        report_joint.joint(tables),
        report_sections.drifts(tables),
        report_costs.regret(tables),
        report_costs.basins(tables),
        report_law.law(tables),
        report_runs.ledger(tables, left_out),
        report_runs.provenance(tables, folder),
    )
    name = sweep.name if sweep else Path(folder).name
    return Report(title=name, about=_about(tables), verdict=verdict_of(tables), sections=tuple(filter(None, sections)))


def _about(tables: Tables) -> str:
    runs = tables.runs
    if runs.empty:
        return "No trial is stored yet."
    schemes = listed([SCHEMES[name].label for name in SCHEMES if (runs["scheme"] == name).any()])
    tokens = f", {np.median(runs['tokens']):,.0f} tokens a trial" if runs["tokens"].notna().any() else ""
    trials, data = counted(len(runs), "trial"), listed(sorted(runs["data"].unique()))
    return f"{trials} under {schemes}{tokens}, on the data {data}. Losses are in {tables.unit.note()}."
