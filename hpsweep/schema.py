"""What the store holds: every column with its type, unit and meaning.

A row of RUNS is a trial, a row of CURVES a point of its training curve. A new column raises SCHEMA_VERSION.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from hpsweep.spec import DECLARED, RESOLVED

SCHEMA_VERSION = 2
"""Raised when a column changes its meaning or is added; older files stay readable."""

DONE = ("ok", "diverged")
"""Statuses of a trial that need not be trained again; the third status is failed."""

_TEXT, _INT, _FLOAT, _BOOL = pa.string(), pa.int64(), pa.float64(), pa.bool_()
_TIME = pa.timestamp("ms", tz="UTC")
_TYPES = {"float": _FLOAT, "int": _INT, "bool": _BOOL}  # of a field that is declared so, such as "int | None"


def _of_trial() -> Iterator[tuple[str, pa.DataType, str, str]]:
    """The columns of the trial's resolved fields, as its record declares them."""
    for name, said in RESOLVED.items():
        kind = next((kind for word, kind in _TYPES.items() if word in DECLARED[name].split(" | ")), _TEXT)
        yield name, kind, said["unit"], said["meaning"]


# (column, type, unit, meaning)
_RUN_COLUMNS: list[tuple[str, pa.DataType, str, str]] = [
    ("trial_id", _TEXT, "", "hash of the fields that determine the run"),
    *_of_trial(),
    # sizes
    ("tokens", _INT, "tokens", "training tokens"),
    ("parameters", _INT, "", "all parameters, pruned ones counted"),
    ("embedding_parameters", _INT, "", "token and position embeddings, and an untied readout"),
    ("hidden_parameters", _INT, "", "weights of the hidden matrices, pruned ones counted"),
    ("hidden_nonzeros", _INT, "", "kept weights of the hidden matrices"),
    ("flops_dense", _FLOAT, "FLOPs", "training FLOPs if zeros are multiplied"),
    ("flops_sparse", _FLOAT, "FLOPs", "training FLOPs if zeros are free"),
    # what came out
    ("status", _TEXT, "", "ok, diverged or failed"),
    ("val_loss", _FLOAT, "nats/token", "loss on the held-out sequences after training; null if not ok"),
    ("val_loss_se", _FLOAT, "nats/token", "standard error of val_loss over held-out sequences"),
    ("train_loss", _FLOAT, "nats/token", "mean training loss of the last twentieth of the steps"),
    ("initial_loss", _FLOAT, "nats/token", "training loss of the first batch, before any step"),
    ("diverged_step", _INT, "steps", "step at which the run was given up; null if not diverged"),
    ("error", _TEXT, "", "why a failed trial failed"),
    ("attempts", _INT, "", "times a failed trial was tried"),
    # what made it
    ("vocabulary", _INT, "tokens", "size of the vocabulary"),
    ("data_hash", _TEXT, "", "hash of the training and validation tokens"),
    ("device", _TEXT, "", "name of the device"),
    ("engine", _TEXT, "", "what trained it"),
    ("ensemble_size", _INT, "trials", "trials trained together"),
    ("seconds", _FLOAT, "seconds", "wall time of the ensemble divided by its size"),
    ("finished_at", _TIME, "UTC", "when the row was made"),
    ("hpsweep_version", _TEXT, "", ""),
    ("torch_version", _TEXT, "", ""),
    ("optuna_version", _TEXT, "", "null for grids"),
    ("python_version", _TEXT, "", ""),
    ("commit", _TEXT, "", "of the working folder, '+' if it had changes; null outside git"),
]
_CURVE_COLUMNS: list[tuple[str, pa.DataType, str, str]] = [
    ("trial_id", _TEXT, "", ""),
    ("step", _INT, "steps", "steps taken"),
    ("tokens", _INT, "tokens", "tokens seen"),
    ("train_loss", _FLOAT, "nats/token", "mean training loss since the point before"),
    ("val_loss", _FLOAT, "nats/token", "held-out loss; null where it was not measured"),
]


def _schema(columns: list[tuple[str, pa.DataType, str, str]]) -> pa.Schema:
    fields = [pa.field(name, kind, metadata={"unit": unit, "meaning": text}) for name, kind, unit, text in columns]
    return pa.schema(fields, metadata={"hpsweep_schema_version": str(SCHEMA_VERSION)})


RUNS = _schema(_RUN_COLUMNS)
"""Schema of a row per trial; units are in the field metadata."""
CURVES = _schema(_CURVE_COLUMNS)
"""Schema of the training curves, long form."""
