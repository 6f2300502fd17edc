"""Names of columns in tables of others: what is an outcome, what bookkeeping, what a hyperparameter or a seed.

A fit per group goes by whole names, as any other column may say what was trained. A law goes by the words in a name
too: its tables name their hyperparameters anyhow, and what is neither is asked for.
"""

from __future__ import annotations

import re

OUTCOMES = frozenset(
    {
        *("loss", "test_loss", "eval_loss", "valid_loss", "validation_loss", "final_loss", "best_loss", "min_loss"),
        *(
            "perplexity",
            "ppl",
            "val_ppl",
            "val_perplexity",
            "accuracy",
            "acc",
            "val_accuracy",
            "val_acc",
            "bpb",
            "val_bpb",
        ),
        *(
            "grad_norm",
            "runtime",
            "_runtime",
            "duration",
            "elapsed",
            "wall_time",
            "walltime",
            "wallclock",
            "wall_clock",
        ),
        *("train_time", "training_time", "total_time", "throughput", "tokens_per_second", "mfu"),
        *("memory", "peak_memory", "max_memory"),
        *("edge", "diverged", "converged"),
    }
)
"""Names of columns, in lower case, that hold what came out, if they hold numbers."""

BOOKKEEPING = frozenset(
    {
        *("host", "hostname", "node", "gpu_name", "user", "run_id", "run_name", "trial_name", "job_id", "slurm_job_id"),
        *(
            "pid",
            "url",
            "created",
            "created_at",
            "started",
            "started_at",
            "start_time",
            "ended_at",
            "end_time",
            "finished",
        ),
        *("timestamp", "_timestamp", "date", "datetime", "git_commit", "git_hash", "git_sha", "sha", "index"),
    }
)
"""Names of columns, in lower case, that hold who ran it, where and when."""

HYPERPARAMETER_WORDS = frozenset(
    {"lr", "lrs", "eta", "learning", "learningrate", "wd", "decay", "bs", "bsz", "batch", "batchsize", "optimizer",
     "optim", "schedule", "scheduler", "warmup", "momentum", "dropout", "clip", "beta", "beta1", "beta2", "betas",
     "eps", "epsilon", "init", "alpha"}
)  # fmt: skip
"""Words in the name of a column that is a hyperparameter: where it varies within a cell, the best is taken."""

SEED_WORDS = frozenset({"seed", "seeds", "rng", "replicate", "replica", "repeat", "rep"})
"""Words in the name of a column that tells repeated runs apart."""

OUTCOME_WORDS = frozenset(
    {"loss", "losses", "acc", "accuracy", "ppl", "perplexity", "nll", "bpb", "bpc", "error", "err", "se", "sem",
     "flops", "flop", "compute", "cost", "time", "seconds", "sec", "hours", "speed", "throughput", "mfu", "memory"}
)  # fmt: skip
"""Words in the name of a column that says what came out of a run, whatever else is in the name."""

LABEL_WORDS = frozenset(
    {"id", "ids", "uid", "name", "names", "run", "trial", "label", "title", "note", "notes", "comment", "tag", "tags",
     "host", "node", "gpu", "gpus", "device", "path", "file", "url", "commit", "hash", "user", "status", "state",
     "index", "timestamp", "date", "created", "started", "finished"}
)  # fmt: skip
"""Words in the name of a column that says which run it was, and where and when."""

DERIVED_COLUMNS = {
    "tokens": ("steps",),
    **dict.fromkeys(("parameters", "embedding_parameters", "hidden_parameters"), ("width", "depth")),
    **dict.fromkeys(("hidden_nonzeros", "flops_dense", "flops_sparse"), ("width", "depth", "density", "steps")),
    "vocabulary": ("data",),
}
"""Columns of hpsweep's that follow from fields; without those fields they say what was trained."""


def words_of_name(name: object) -> set[str]:
    """The words of a column's name: max_LR, learningRate and config.lr are max lr, learning rate and config lr."""
    return set(_words_in_order(name))


def _words_in_order(name: object) -> list[str]:
    split = re.sub(r"([a-z0-9])([A-Z])", r"\1 \2", str(name))
    return re.findall(r"[a-z]+\d?", split.lower())


def is_outcome(name: object) -> bool:
    """Whether a name, or a word in it, is that of what came out of a run."""
    return str(name).lower() in OUTCOMES or bool(words_of_name(name) & OUTCOME_WORDS)


def ends_in_outcome(name: object) -> bool:
    """Whether the last word of a name is that of what came out of a run: train/loss, and not loss_weight."""
    words = _words_in_order(name)
    return bool(words) and words[-1] in OUTCOME_WORDS


def is_label(name: object) -> bool:
    """Whether a name, or a word in it, says which run it was, and where and when."""
    return str(name).lower() in BOOKKEEPING or bool(words_of_name(name) & LABEL_WORDS)
