"""The verb train: the target run of a card, in this process or in those that torchrun started."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

from hpsweep.cli.arguments import add_field
from hpsweep.cli.output import print_json, say
from hpsweep.spec import Trial, fields_of
from hpsweep.sweep.progress import value
from hpsweep.text import duration
from hpsweep.units import unit_of_sources

_LINE_SECONDS = 30.0  # between lines of progress; on a terminal one line is kept up to date


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    to.add_argument("card", metavar="CARD", help="the card, a JSON file that transfer wrote")
    trial = fields_of(Trial)
    add_field(to, trial["data"], "the proxy's")
    length = to.add_mutually_exclusive_group()
    add_field(length, trial["tokens"], "those of the card")
    add_field(length, trial["steps"], "as many as the tokens need")
    add_field(to, trial["batch"], "the proxy's", of="all processes together")
    add_field(to, trial["eval_sequences"], "1024")
    add_field(to, trial["seed"], "the card's")
    to.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="what to train on")
    add_field(to, trial["precision"], "float32", flag="--dtype")
    to.set_defaults(dtype="float32")
    to.add_argument("--compile", action="store_true", help="compile the model with torch.compile")
    to.add_argument("--accumulate", type=int, default=1, metavar="K", help="parts a process splits its batch into")
    to.add_argument("--checkpoint-every", type=int, metavar="N", help="steps; default: a twentieth of all")
    to.add_argument("--out", metavar="FOLDER", help="results folder; default: target/ beside the card")


def run(a: argparse.Namespace) -> None:
    """Train the target of a card, and say what came out; of several processes the first one speaks."""
    if importlib.util.find_spec("torch") is None:
        raise ValueError("training needs torch, which is not installed: pip install 'hpsweep[run]'.")
    from hpsweep.analysis.transfer.card import Card
    from hpsweep.target.ranks import own_rank
    from hpsweep.target.run import check_split, train_target
    from hpsweep.target.trial import trial_to_train

    card, first = Card.read(a.card), own_rank() == 0
    names = ("data", "steps", "tokens", "batch", "eval_sequences", "seed")
    given = {name: getattr(a, name) for name in names}
    trial, data = trial_to_train(card, precision=a.dtype, **{n: v for n, v in given.items() if v is not None})
    check_split(trial, a.accumulate, a.checkpoint_every)
    folder = Path(a.out or Path(a.card).parent / "target")
    if first:
        for warning in card.warnings:
            say(f"warning: {warning}")
        if data.data_hash != card.evidence["data_hash"]:
            say(f"warning: the proxy was tuned on other data (data_hash {card.evidence['data_hash']}).")
        say(_described(trial, folder))
    row = train_target(
        trial,
        data,
        folder,
        device=a.device,
        compiled=a.compile,
        accumulate=a.accumulate,
        checkpoint_every=a.checkpoint_every,
        progress=_Progress(trial) if first else None,
        say=say if first else lambda message: None,
    )
    if first:
        _print(row, folder, a.json)


def _described(trial: Trial, folder: Path) -> str:
    shape = f"width {trial.width}, depth {trial.depth}, density {value(trial.density)}"
    length = f"{trial.total_steps} step{'s' * (trial.total_steps > 1)} of {trial.batch} x {trial.context} tokens"
    if trial.tokens is not None and trial.tokens != trial.total_tokens:
        length += f" ({trial.total_tokens} tokens, where {trial.tokens} were asked for: steps are whole)"
    return f"trains {trial.scheme} at {shape} for {length} on {trial.data}, into {folder}"


class _Progress:
    """Writes how far the run is to stderr: one line kept up to date on a terminal, else a line now and then."""

    def __init__(self, trial: Trial) -> None:
        self.per_step = trial.batch * trial.context
        self.terminal = sys.stderr.isatty()
        self.begun: tuple[float, int] | None = None
        self.shown = time.monotonic()

    def __call__(self, taken: int, steps: int, loss: float) -> None:
        now = time.monotonic()
        begun, first = self.begun = self.begun or (now, taken)  # the first steps compile and warm up
        if taken < steps and now - self.shown < (0.5 if self.terminal else _LINE_SECONDS):
            return
        self.shown = now
        line = f"step {taken} of {steps}, loss {loss:.4f}"
        if taken > first:
            seconds = (now - begun) / (taken - first)
            line += f", {self.per_step / seconds:,.0f} tokens/s, {duration((steps - taken) * seconds)} to go"
        end = "\n" if taken == steps or not self.terminal else ""
        print(f"\r\x1b[K{line}" if self.terminal else line, end=end, file=sys.stderr, flush=True)


def _print(row: dict[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        print_json({"folder": str(folder), **row, "finished_at": row["finished_at"].isoformat()})
    elif row["status"] == "diverged":
        print(f"diverged at step {row['diverged_step']}; stored in {folder} as trial {row['trial_id']}")
    else:
        print(
            f"val_loss {row['val_loss']:.4f} +- {row['val_loss_se']:.4f} {unit_of_sources([row['data']]).name} after "
            f"{row['tokens']} tokens "
            f"({duration(row['seconds'])}); stored in {folder} as trial {row['trial_id']}"
        )
