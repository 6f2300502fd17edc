"""The words of the hpsweep command: its verbs and options, each with a help text."""

from __future__ import annotations

import argparse
from fractions import Fraction
from typing import Any, NoReturn, get_args

from hpsweep import __version__
from hpsweep.analysis.plots.output import FORMATS, SIZES
from hpsweep.schemes import Scheme
from hpsweep.spec import TUNED, Precision
from hpsweep.sweep.worker import ENGINES
from hpsweep.text import visible


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, visible(f"hpsweep: {' '.join(message.split())}; see {self.prog} --help") + "\n")


class _Verb(_Parser):
    """Refuses what it does not know itself: the parser of all verbs would name the help of all verbs."""

    def parse_known_args(self, *given: Any, **options: Any) -> Any:
        """What argparse makes of them, and nothing that it does not know."""
        known, unknown = super().parse_known_args(*given, **options)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def number(text: str) -> float:
    """A number, or a fraction such as 1/64."""
    try:
        return float(Fraction(text)) if "/" in text else float(text)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is no number or fraction, such as 0.25 or 1/64") from None


def parser() -> argparse.ArgumentParser:
    """The parser of the hpsweep command; every verb and option has a help text."""
    whole = _Parser(prog="hpsweep", description="Tune small, train large, at any density.")
    whole.add_argument("--version", action="version", version=f"hpsweep {__version__}", help="print the version")
    verbs = whole.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Verb)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(name, help=text, description=text)
        added.add_argument("--json", action="store_true", help="print JSON instead of text; missing is null")
        return added

    for name, text in (
        ("plan", "say what a run would train, and about how long it would take"),
        ("run", "train what is missing of an experiment, and store it"),
    ):
        _add_experiment(verb(name, text))
    verbs.choices["plan"].add_argument(
        "--tflops",
        type=number,
        metavar="T",
        help="TFLOP/s of a worker, here or on another machine; default: by stored trials, or timed",
    )
    run = verbs.choices["run"]
    run.add_argument("--address", default="local", help="local, auto (this machine's Ray cluster) or a Ray address")
    for name, text in (
        ("status", "say what a results folder holds"),
        ("optimum", "find the best value of a hyperparameter per group, and how it moves"),
        ("regret", "say what a setting costs where it was not tuned, or what the transfer of a card cost"),
        ("transfer", "write the card that carries the tuned result to a target"),
        ("plot", "draw the figures"),
        ("report", "write the report: verdict first, as one HTML page and as Markdown"),
        ("compact", "join the many small files of a results folder"),
    ):
        added = verb(name, text)
        if name != "regret":
            added.add_argument("folder", metavar="FOLDER", help="the results folder of one experiment")
    _add_regret(verbs.choices["regret"])
    for name in ("optimum", "transfer"):
        verbs.choices[name].add_argument(
            "--over",
            type=_over,
            metavar="A[,B]",
            help="the hyperparameter, or two for their joint optimum; default: two that were searched together, else "
            "that with most values",
        )
    verbs.choices["optimum"].add_argument(
        "--by",
        type=_columns,
        metavar="A,B",
        help="fields that make a group; default: all that vary",
    )
    _add_figures(verbs.choices["plot"])
    verbs.choices["plot"].add_argument(
        "--all", action="store_true", help="every figure; default: of many combinations, and of a large matrix, some"
    )
    verbs.choices["report"].add_argument("--out", metavar="DIR", help="where it goes; default: the results folder")
    _add_target(verbs.choices["transfer"])
    _add_train(verb("train", "train the reference GPT at the target size of a card, with its settings"))
    _add_law(verb("law", "fit a scaling law to a table or a results folder, and say what it knows"))
    for name in ("optimum", "regret", "transfer", "plot", "law"):
        verbs.choices[name].add_argument(
            "--where",
            type=_field,
            action="append",
            metavar="FIELD=VALUE",
            help="only the runs with this value, such as steps=800; may be given more than once",
        )
    for name in ("optimum", "regret", "transfer", "plot", "report", "law"):
        verbs.choices[name].add_argument(
            "--ignore",
            type=_columns,
            metavar="A,B",
            help="columns of another's table that are outcomes or bookkeeping, and may differ among runs of one group",
        )
    _add_export(verb("export", "write a card as parameter groups, or as the file of another trainer"))
    _add_coords(verb("coords", "check that no activation of the proxies grows or shrinks with width or density"))
    return whole


def _add_figures(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--format",
        type=_formats,
        default=None,
        metavar="F[,F]",
        help=f"of the figures: {', '.join(FORMATS)}, or several with commas; default: png,svg",
    )
    to.add_argument(
        "--size", type=_size, metavar="WxH", help="inches of a figure, such as 7x4; default: what each figure asks for"
    )


def _formats(text: str) -> tuple[str, ...]:
    """Formats of figures with commas between them."""
    names = tuple(dict.fromkeys(text.lower().split(",")))
    if odd := [name for name in names if name not in FORMATS]:
        raise argparse.ArgumentTypeError(f"{odd[0]!r} is no format of figures; choose from {', '.join(FORMATS)}")
    return names


def _size(text: str) -> tuple[float, float]:
    """Width and height in inches."""
    try:
        width, height = (float(side) for side in text.lower().split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size WIDTHxHEIGHT in inches, such as 7x4") from None
    if not all(SIZES[0] <= side <= SIZES[1] for side in (width, height)):
        raise argparse.ArgumentTypeError(
            f"{text!r}: width and height must be in [{SIZES[0]:g}, {SIZES[1]:g}] inches, such as 7x4"
        )
    return width, height


def _add_regret(to: argparse.ArgumentParser) -> None:
    to.add_argument("folders", metavar="FOLDER", nargs="+", help="the results folder; with --card those of the target")
    to.add_argument(
        "--card",
        metavar="CARD",
        nargs="+",
        help="say what the transfer of these cards cost: FOLDER has the target's own sweep, and it or target/ beside "
        "the card what train made of it",
    )
    to.add_argument("--figures", metavar="DIR", help="draw the regret of the cards there")
    _add_figures(to)
    to.add_argument("--over", choices=TUNED, help="the hyperparameter; default: that with most values")
    to.add_argument(
        "--per-doubling",
        type=number,
        metavar="NATS",
        help="nats/token that doubling the compute buys, for the equivalent compute; default: from the widths",
    )
    to.add_argument(
        "--flops",
        choices=("flops_dense", "flops_sparse"),
        default="flops_dense",
        help="which FLOPs that is measured in: zeros multiplied, or free",
    )


def _add_coords(to: argparse.ArgumentParser) -> None:
    to.add_argument("--scheme", choices=get_args(Scheme), default="supar", help="the rules; default: supar")
    to.add_argument(
        "--widths", type=_wholes, default=[64, 128, 256, 512], metavar="N,N", help="default: 64,128,256,512"
    )
    to.add_argument(
        "--densities", type=_numbers, default=[1, 1 / 4, 1 / 16, 1 / 64], metavar="D,D", help="default: 1,1/4,1/16,1/64"
    )
    to.add_argument("--seeds", type=int, default=12, metavar="K", help="models of each; default: 12")
    to.add_argument("--steps", type=int, default=4, metavar="N", help="training steps, on one batch; default: 4")
    to.add_argument("--lr", type=number, default=2**-9, metavar="LR", help="base learning rate; default: 1/512")
    to.add_argument("--init-std", type=number, default=0.08, metavar="S", help="base init std; default: 0.08")
    to.add_argument("--base-width", type=int, default=128, metavar="N", help="where m_d is 1; default: 128")
    to.add_argument("--heads", type=int, metavar="N", help="attention heads at every width; default: of size 16")
    to.add_argument(
        "--base-head-size",
        type=int,
        metavar="N",
        help="head size of the base model, from which attention is scaled; 1 is the published scale; default: that of "
        "--heads at the base width, else 16",
    )
    to.add_argument("--alpha-attention", type=number, default=1.0, metavar="A", help="of attention logits; default: 1")
    to.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="what to train on; default: cpu")
    to.add_argument("--out", metavar="DIR", help="write the tables and the figure there")
    _add_figures(to)


def _numbers(text: str) -> list[float]:
    """Numbers with commas between them."""
    return [number(part) for part in text.split(",")]


def _wholes(text: str) -> list[int]:
    """Whole numbers with commas between them."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers, such as 64,128,256") from None


def _add_train(to: argparse.ArgumentParser) -> None:
    to.add_argument("card", metavar="CARD", help="the card, a JSON file that transfer wrote")
    to.add_argument("--data", metavar="SOURCE", help="what to train on; default: the proxy's data")
    length = to.add_mutually_exclusive_group()
    length.add_argument("--tokens", type=int, metavar="N", help="tokens to train on; default: those of the card")
    length.add_argument("--steps", type=int, metavar="N", help="optimizer steps, instead of tokens")
    to.add_argument("--batch", type=int, metavar="N", help="sequences per step, of all processes; default: the proxy's")
    to.add_argument("--eval-sequences", type=int, metavar="N", help="held-out sequences behind val_loss; default: 1024")
    to.add_argument("--seed", type=int, metavar="N", help="of masks, initial weights and batches; default: the card's")
    to.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="what to train on")
    to.add_argument("--dtype", default="float32", choices=get_args(Precision), help="of products; weights are float32")
    to.add_argument("--compile", action="store_true", help="compile the model with torch.compile")
    to.add_argument("--accumulate", type=int, default=1, metavar="K", help="parts a process splits its batch into")
    to.add_argument("--checkpoint-every", type=int, metavar="N", help="steps; default: a twentieth of all")
    to.add_argument("--out", metavar="FOLDER", help="results folder; default: target/ beside the card")


def _add_export(to: argparse.ArgumentParser) -> None:
    to.add_argument("card", metavar="CARD", help="the card, a JSON file that transfer wrote")
    to.add_argument(
        "--to",
        required=True,
        choices=("torch", "hf", "nanogpt"),
        help="torch: parameter groups of a module of yours; hf: a script for transformers.Trainer; nanogpt: a config "
        "of nanoGPT-mup's supar branch",
    )
    to.add_argument("--out", metavar="FILE", help="where it goes; default: printed")


def _add_law(to: argparse.ArgumentParser) -> None:
    to.add_argument("table", metavar="TABLE", help="a .csv or .parquet file with a row per model, or a results folder")
    for name, text in (
        ("loss", "measured loss; default: loss"),
        ("params", "nonzero parameters N; default: params"),
        ("tokens", "training data D; default: tokens"),
        ("sparsity", "fraction of weights that are zero; default: sparsity if there is one, else the law is dense"),
        ("status", "ok, or why there is no loss; default: status if there is one"),
    ):
        to.add_argument(f"--{name}", metavar="COL", help=f"column of the {text}")
    to.add_argument(
        "--tuned", metavar="COL,...", help="hyperparameters of which the best is taken at each S, N, D; none: no column"
    )
    to.add_argument(
        "--residuals", choices=("log", "raw"), default="log", help="what the Huber loss is of; default: log"
    )
    to.add_argument("--delta", type=number, help="of the Huber loss; default: 1e-3 of log residuals, 0.01 of raw ones")
    to.add_argument(
        "--counts", metavar="TEXT", help="what N counts, such as 'nonzeros without embeddings'; is recorded"
    )
    to.add_argument("--unit", metavar="TEXT", help="unit of D, such as tokens or examples; is recorded")
    to.add_argument("--scheme", choices=get_args(Scheme), help="of a results folder; default: supar, else mup, else sp")
    to.add_argument("--nonzeros", choices=("hidden", "all"), help="what N counts in a results folder; default: hidden")
    to.add_argument("--compare", metavar="COEFFICIENTS", action="append", help="t5_c4, vit_jft, or a_S=...,b_S=...,...")
    to.add_argument("--at", metavar="S,N,D[=LOSS]", action="append", help="predict there, beside what was measured")
    to.add_argument("--budget", metavar="N,D", action="append", help="best sparsity if a dense model of N could see D")
    to.add_argument("--extrapolate", action="store_true", help="answer more than ten-fold beyond what was fitted")
    to.add_argument("--resamples", type=int, default=400, metavar="K", help="resamples behind the intervals")
    to.add_argument("--seed", type=int, default=0, metavar="N", help="of the resamples")
    to.add_argument("--figures", metavar="DIR", help="draw the figures there")
    _add_figures(to)
    to.add_argument("--out", metavar="FILE", help="write the whole law there, as JSON")


def _columns(text: str) -> list[str]:
    """Names with commas between them."""
    names = [name.strip() for name in text.split(",")]
    if "" in names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of different names, such as scheme,density")
    return names


def _field(text: str) -> tuple[str, str]:
    """The name and the value of FIELD=VALUE."""
    name, _, value = text.partition("=")
    if not (name and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form FIELD=VALUE, such as steps=800")
    return name, value


def _over(text: str) -> str:
    """One hyperparameter or two, as given."""
    names = text.split(",")
    if odd := [name for name in names if name not in TUNED]:
        raise argparse.ArgumentTypeError(f"{odd[0]!r} is no hyperparameter; choose from {', '.join(TUNED)}")
    if len(names) > 2 or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"{text!r} is neither one hyperparameter nor two different ones")
    return text


def _add_experiment(to: argparse.ArgumentParser) -> None:
    to.add_argument("experiment", metavar="EXPERIMENT", help="an experiment file, or its name in experiments/")
    to.add_argument("--results", default="results", metavar="DIR", help="where results go, a folder per experiment")
    to.add_argument("--workers", type=int, metavar="N", help="how many train at once; default: one per core or GPU")
    to.add_argument("--ensemble-size", type=int, metavar="K", help="trials trained together; default: by device")
    to.add_argument("--gpus-per-worker", type=number, default=1.0, metavar="F", help="part of a GPU each worker gets")
    to.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="what to train on")
    to.add_argument(
        "--engine",
        default="auto",
        choices=tuple(ENGINES),
        help="what trains: native (on a CPU, only the nonzero weights; needs a C compiler), torch, or auto: native "
        "where it can",
    )


def _add_target(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--scheme", choices=get_args(Scheme), help="the rules that carry the result; default: supar, else mup, else sp"
    )
    to.add_argument("--density", type=number, metavar="D", help="density of the target, such as 1/64")
    to.add_argument("--proxy-width", type=int, metavar="N", help="width of the tuned proxy; default: its base width")
    to.add_argument("--proxy-density", type=number, metavar="D", help="density of the proxy; default: base density")
    for name, text in (
        ("width", "width of the target"),
        ("depth", "number of blocks of the target"),
        ("head_size", "width of an attention head of the target"),
        ("context", "tokens per sequence of the target"),
        ("vocabulary", "vocabulary of the target"),
        ("tokens", "tokens the target is trained on"),
        ("mask_seed", "seed of the target's masks"),
    ):
        to.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=f"{text}; default: as recorded")
    to.add_argument(
        "--along-drift", action="store_true", help="carry the setting along the fitted drift, not the constant"
    )
    to.add_argument("--out", metavar="FILE", help="where the card goes; default: card.json in the folder")
