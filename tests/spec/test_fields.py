"""Every field is declared once: what lists fields says what the declarations say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from hpsweep import store
from hpsweep.schema import CURVE_COLUMNS, CURVES, RUN_COLUMNS, RUNS
from hpsweep.spec import Refine, Sweep, Target, Trial, fields_of
from tests.paths import ROOT

RECORDS = (Trial, Sweep, Refine, Target)
REFERENCE = sorted(path.parent for path in (ROOT / "results" / "reference").glob("*/runs"))


def test_the_page_of_fields_is_current() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "fields.py"))["page"]()
    assert (ROOT / "docs" / "fields.md").read_text() == page, "python docs/fields.py writes it anew"


@pytest.mark.parametrize("record", RECORDS)
def test_the_docstring_of_a_record_has_a_line_for_each_field(record: type) -> None:
    lines = {line.strip() for line in (record.__doc__ or "").splitlines()}
    for name, field in fields_of(record).items():
        line = next(line for line in lines if line.startswith(f"{name}: "))
        assert field.meaning in line
        assert field.unit in line
        assert not field.within or str(field.within) in line
        assert all(choice in line for choice in field.choices)


def test_every_field_and_column_has_a_meaning_and_every_number_a_range() -> None:
    for field in [*(field for record in RECORDS for field in fields_of(record).values()), *RUN_COLUMNS, *CURVE_COLUMNS]:
        assert field.meaning, field
        assert (field.within is not None) == (field.kind in ("int", "float")), field


@pytest.mark.parametrize(("schema", "columns"), [(RUNS, RUN_COLUMNS), (CURVES, CURVE_COLUMNS)])
def test_the_schema_says_unit_and_meaning_of_every_column(schema: object, columns: object) -> None:
    assert schema.names == [column.name for column in columns]  # type: ignore[attr-defined]
    for column in columns:  # type: ignore[attr-defined]
        said = schema.field(column.name).metadata  # type: ignore[attr-defined]
        assert said == {b"unit": column.unit.encode(), b"meaning": column.meaning.encode()}


@pytest.mark.parametrize("folder", REFERENCE, ids=lambda folder: folder.name)
def test_what_is_stored_is_within_the_declared_ranges(folder: Path) -> None:
    for table, columns in ((store.load(folder), RUN_COLUMNS), (store.load_curves(folder), CURVE_COLUMNS)):
        for column in columns:
            values = table[column.name].dropna().unique().tolist()
            assert not column.within or all(value in column.within for value in values), column
            assert not column.choices or set(values) <= set(column.choices), column
