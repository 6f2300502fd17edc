"""Writes docs/fields.md: every field of the records and every column of the store, as they are declared.

python docs/fields.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

from hpsweep.schema import CURVE_COLUMNS, RUN_COLUMNS
from hpsweep.spec import Field, Refine, Sweep, Target, Trial, fields_of
from hpsweep.spec.command import Command

PAGE = Path(__file__).with_suffix(".md")

_BEGINNING = """\
# Fields and columns

What an experiment says (`hp.Trial`, `hp.Sweep`, `hp.Refine`, `hp.Command`, `hp.Target`), and what is stored of it. An
end of a range is allowed where `[` or `]` stands, and not where `(` or `)` does. `python docs/fields.py` writes this
page from the declarations in `hpsweep/spec/` and `hpsweep/schema.py`.
"""

_RECORDS = {
    Trial: "One training run. Exactly one of `steps`, `tokens` and `tokens_per_parameter` is given.",
    Sweep: "All trials of one experiment.",
    Refine: "When a refinement ends: `Sweep(search='refine', refine=Refine(...))`.",
    Command: "A script that trains a trial, in place of the GPT: [your own script](own_script.md).",
    Target: "The large sparse model that a card is for. A field left None is that of the proxy.",
}


def page() -> str:
    """The page as Markdown."""
    parts = [_BEGINNING]
    for record, text in _RECORDS.items():
        parts += [f"## {record.__name__}\n\n{text}\n", _table(fields_of(record).values(), of_record=True)]
    runs = "A row per trial, as `hp.load(folder)` returns it. Null: not known, or none."
    curves = "A row per point of a training curve, as `hp.load_curves(folder)` returns it."
    parts += [f"## Columns of runs\n\n{runs}\n", _table(RUN_COLUMNS, of_record=False)]
    parts += [f"## Columns of curves\n\n{curves}\n", _table(CURVE_COLUMNS, of_record=False)]
    return "\n".join(parts)


def _table(fields: Iterable[Field], *, of_record: bool) -> str:
    """A row per field or column; only fields of a record have a default."""
    head = ["field", "type", "default"] if of_record else ["column", "type"]
    rows = [[*head, "unit", "range", "meaning"]]
    rows.append(["---"] * len(rows[0]))
    for field in fields:
        kind = field.kind.replace("|", "\\|")  # else it would end the cell
        named = [f"`{field.name}`", f"`{kind}`"]
        default = [_default(field)] if of_record else []
        rows.append([*named, *default, field.unit, _allowed(field), field.meaning])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _default(field: Field) -> str:
    return "must be given" if field.default is dataclasses.MISSING else f"`{field.default!r}`"


def _allowed(field: Field) -> str:
    """The range or the choices."""
    if field.choices:
        return ", ".join(f"`{choice}`" for choice in field.choices)
    return f"`{field.within}`" if field.within else ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
