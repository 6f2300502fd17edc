"""The results folder: one Parquet row per trial, the only state that a sweep has.

    results/NAME/runs/part-<hash>.parquet     one row per trial, one file per finished ensemble
    results/NAME/curves/part-<hash>.parquet   long form: trial_id, step, tokens, train_loss, val_loss
    results/NAME/meta.json                    the resolved sweep
    results/NAME/.lock                        who writes here now: lock.py

A file is written under a temporary name, synced and renamed, the curves before the runs: a trial is either
stored whole or not at all, whatever is killed when. Only the process that holds the lock writes.
"""

from hpsweep.lock import FolderLost as FolderLost
from hpsweep.lock import Held as Held
from hpsweep.lock import lock as lock
from hpsweep.schema import CURVES as CURVES
from hpsweep.schema import DONE as DONE
from hpsweep.schema import RUNS as RUNS
from hpsweep.schema import SCHEMA_VERSION as SCHEMA_VERSION
from hpsweep.store.folder import check_folder as check_folder
from hpsweep.store.folder import check_versions as check_versions
from hpsweep.store.folder import read_meta as read_meta
from hpsweep.store.folder import recorded_code as recorded_code
from hpsweep.store.folder import write_meta as write_meta
from hpsweep.store.part import replacing as replacing
from hpsweep.store.part import write_part as write_part
from hpsweep.store.reading import FOLDER as FOLDER
from hpsweep.store.reading import RECORDED as RECORDED
from hpsweep.store.reading import STORED as STORED
from hpsweep.store.reading import as_loaded as as_loaded
from hpsweep.store.reading import check_readable as check_readable
from hpsweep.store.reading import finished_ids as finished_ids
from hpsweep.store.reading import is_empty as is_empty
from hpsweep.store.reading import load as load
from hpsweep.store.reading import load_curves as load_curves
from hpsweep.store.reading import one_data_hash as one_data_hash
from hpsweep.store.reading import read_runs as read_runs
from hpsweep.store.reading import status_counts as status_counts
from hpsweep.store.reading import with_record as with_record
from hpsweep.store.trials import finished_trials as finished_trials
from hpsweep.store.writing import append as append
from hpsweep.store.writing import compact as compact
