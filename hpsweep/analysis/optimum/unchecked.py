"""What is not known of runs that were read from a table of others: what analyses take on trust."""

from __future__ import annotations

import pandas as pd

from hpsweep.analysis.findings import Finding
from hpsweep.store.settings import IMPORTED, is_imported


def unchecked(runs: pd.DataFrame, over: str) -> list[Finding]:
    """Findings on what could not be checked of runs that `hp.runs` read; none of a sweep of hpsweep's own."""
    if not is_imported(runs):
        return []
    own = runs[runs["model"] == IMPORTED]
    found = [Finding(code="imported")]
    assumed = sorted({text.partition("assumed: ")[2] for text in own["engine"].dropna()} - {""})
    if assumed:
        values = "; ".join(assumed)
        fields = [pair.split(" ")[0] for pair in assumed[0].split(", ")]
        found.append(Finding(code="assumed_fields", numbers={"fields": fields, "values": values}))
    if own["seed"].nunique() > 1:
        found.append(Finding(code="pairing", numbers={"field": over or "setting"}))
    return found


def unchecked_text(runs: pd.DataFrame, over: str) -> str:
    """The findings in one line; empty of a sweep of hpsweep's own."""
    return " ".join(map(str, unchecked(runs, over)))
