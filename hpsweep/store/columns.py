"""Columns as the schema has them: tables that pandas or another writer made are cast to its names and types."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from hpsweep.schema import DONE
from hpsweep.spec import BEFORE


def aligned_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the schema's columns, absent ones null, types cast, and then others. ArrowInvalid if not ours.

    As pandas and others write them are cast: dictionaries, large strings, floats that were integers before a null came
    in, times of another unit or zone, or as text. A field of the trial that the record did not have yet when the rows
    were made has the value that stands for that time.
    """
    _check_identities(table, schema)
    if _needs_no_cast(table, schema):
        aligned = table
    else:
        columns = [_cast_column(table, field) for field in schema]
        aligned = pa.table(columns, schema=schema)
        for name in table.column_names:
            if name not in schema.names:
                aligned = aligned.append_column(name, _decoded(table[name]))
    if "status" in schema.names:
        _check_statuses(aligned)
    return aligned


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this type are text, also where a dictionary encodes them."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _check_identities(table: pa.Table, schema: pa.Schema) -> None:
    """Raise ArrowInvalid where a row does not say which trial it is of, and what became of it."""
    second = "status" if "status" in schema.names else "step"
    for name in ("trial_id", second):
        if name not in table.column_names or table[name].null_count:
            raise pa.ArrowInvalid(f"not written by hpsweep: {name} is missing")
    if not is_text(table.schema.field("trial_id").type):
        raise pa.ArrowInvalid("not written by hpsweep: trial_id is no text")


def _check_statuses(table: pa.Table) -> None:
    """Raise ArrowInvalid for a status that hpsweep does not write."""
    unknown = set(table["status"].unique().to_pylist()) - {*DONE, "failed"}
    if unknown:
        raise pa.ArrowInvalid(f"not written by hpsweep: status {', '.join(sorted(map(str, unknown)))}")


def _needs_no_cast(table: pa.Table, schema: pa.Schema) -> bool:
    if not table.schema.equals(schema):
        return False
    later_fields = [name for name in BEFORE if name in schema.names]
    return not any(table[name].null_count for name in later_fields)


def _cast_column(table: pa.Table, field: pa.Field) -> pa.ChunkedArray | pa.Array:
    """The column of that name and type; null where there is none, or the value of before the field was added."""
    before = pa.scalar(BEFORE.get(field.name), field.type)
    if field.name not in table.column_names:
        return pa.repeat(before, table.num_rows)
    column = _cast(table[field.name], field)
    if before.is_valid:
        return column.fill_null(before)
    return column


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """The column as the schema's type. ArrowInvalid, with its name, where a value is none of that type."""
    try:
        column = _decoded(column)
        # pandas makes floats of integers where one is missing, and NaN of that one
        if pa.types.is_floating(column.type) and pa.types.is_integer(field.type):
            column = pc.if_else(pc.is_nan(column), None, column)
        if pa.types.is_timestamp(field.type):
            column = _with_time_zone(column)
            return column.cast(field.type, safe=False)  # nanoseconds of another writer are cut
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise pa.ArrowInvalid(f"column {field.name}: {str(error).splitlines()[0]}") from None


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column with its values where it has numbers of them, as pandas' categories are written."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def _with_time_zone(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of times with a zone: UTC where none is written."""
    if is_text(column.type):
        column = column.cast(pa.timestamp("us", tz="UTC"))
    if pa.types.is_timestamp(column.type) and column.type.tz is None:
        return pc.assume_timezone(column, "UTC")
    return column
