"""The verb coords: the coordinate check of the proxies, with its verdict first."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from hpsweep.cli.arguments import add_field, add_figures, numbers, wholes
from hpsweep.cli.inputs import made
from hpsweep.cli.output import output_of, print_json, records, say
from hpsweep.english import counted
from hpsweep.spec import Trial, fields_of

TOKENS = 6
"""In one sequence: with many tokens for few nonzeros per neuron, changes grow as density falls (docs/coords.md)."""

_HEAD_SIZE = 16  # without --heads


def add(to: argparse.ArgumentParser) -> None:
    """The options."""
    trial = fields_of(Trial)
    add_field(to, trial["scheme"], "supar")
    to.add_argument("--widths", type=wholes, default=[64, 128, 256, 512], metavar="N,N", help="default: 64,128,256,512")
    to.add_argument(
        "--densities", type=numbers, default=[1, 1 / 4, 1 / 16, 1 / 64], metavar="D,D", help="default: 1,1/4,1/16,1/64"
    )
    to.add_argument("--seeds", type=int, default=12, metavar="K", help="models of each; default: 12")
    to.add_argument("--steps", type=int, default=4, metavar="N", help="training steps, on one batch; default: 4")
    add_field(to, trial["lr"], "1/512")
    add_field(to, trial["init_std"], "0.08")
    add_field(to, trial["base_width"], "128")
    to.add_argument("--heads", type=int, metavar="N", help="attention heads at every width; default: of size 16")
    add_field(to, trial["base_head_size"], "that of --heads at the base width, else 16")
    add_field(to, trial["alpha_attention"], "1")
    to.set_defaults(scheme="supar", lr=2**-9, init_std=0.08, base_width=128, alpha_attention=1.0)
    to.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="what to train on; default: cpu")
    to.add_argument("--out", metavar="DIR", help="write the tables and the figure there")
    add_figures(to)


def run(a: argparse.Namespace) -> int:
    """Print the verdict on every module; the exit status is 1 if one of them grows or shrinks."""
    if importlib.util.find_spec("torch") is None:
        raise ValueError("the coordinate check needs torch, which is not installed: pip install 'hpsweep[run]'.")
    if (a.format or a.size) and not a.out:
        raise ValueError(
            "--format and --size are of the figure, which is drawn with --out DIR; give it, or leave them out."
        )
    from hpsweep.analysis.coords import (
        coordinate_slopes,
        coordinate_text,
        coordinate_verdicts,
        culprit,
        verdict_sentence,
    )
    from hpsweep.coords.sizes import coordinate_check

    trial = Trial(
        scheme=a.scheme, lr=a.lr, init_std=a.init_std, base_width=a.base_width, steps=1, batch=1, context=TOKENS,
        head_size=_HEAD_SIZE, base_head_size=a.base_head_size or _base_head_size(a),
        alpha_attention=a.alpha_attention,
    )  # fmt: skip

    def progress(done: int, models: int) -> None:
        if done == 0 and a.out:  # after all else is checked, and before any work
            made(Path(a.out))
        if done % 24 == 0:
            say(f"{done} of {counted(models, 'model')} measured")

    sizes = coordinate_check(
        trial, widths=a.widths, densities=a.densities, steps=a.steps, seeds=range(a.seeds), heads=a.heads,
        device=a.device, progress=progress,
    )  # fmt: skip
    slopes = coordinate_slopes(sizes)
    verdicts = coordinate_verdicts(slopes)
    sentence = f"{a.scheme}: {verdict_sentence(verdicts)}"
    written = []
    if a.out:
        from hpsweep.analysis.plots.coords import write

        written = [str(path) for path in write(sizes, slopes, verdicts, Path(a.out), sentence, output_of(a))]
    found = culprit(verdicts)
    if a.json:
        tables = {"verdicts": records(verdicts), "slopes": records(slopes)}
        print_json({"verdict": sentence, "culprit": found and found["module"], **tables, "written": written})
    else:
        print(f"{a.scheme}: {coordinate_text(slopes)}")
        print(*(["", *written] if written else []), sep="\n", end="\n" if written else "")
    return int(found is not None)


def _base_head_size(a: argparse.Namespace) -> int:
    """The head size of the base model. Raises ValueError where so many heads do not divide its width."""
    if not a.heads or a.heads < 1 or any(width % a.heads for width in a.widths):  # which the check refuses
        return _HEAD_SIZE
    if a.base_width % a.heads:
        raise ValueError(
            f"base width {a.base_width} is not divisible by {a.heads} heads; take a base width that is, or say from "
            "which head size attention is scaled, with --base-head-size."
        )
    return int(a.base_width // a.heads)
