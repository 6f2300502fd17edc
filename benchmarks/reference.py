"""Make the tables, figures and cards of results/reference anew from its stored runs: python -m benchmarks.reference

Nothing is trained. Run it after a change of the analysis, look at `git diff results`, and correct the numbers that
README, docs/ and experiments/LOG.md quote. A file that was not there before is removed again: results/README.md says
which are kept. --only NAME ... takes these folders.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from hpsweep.cli import main as hpsweep

REFERENCE = Path("results/reference")
SCHEMES = ("sp", "mup", "supar")
MULTIPLIERS = (2, 8)  # of the embeddings' learning rate, in narrow_dense and wide_sparse


def commands(name: str) -> Iterator[list[str]]:
    """The hpsweep commands that make the committed files of one folder."""
    folder = str(REFERENCE / name)
    yield ["optimum", folder, "--save"]
    yield ["plot", folder, "--save"]
    if (REFERENCE / name / "regret.csv").exists():
        yield ["regret", folder, "--save"]
    if (REFERENCE / name / "card.json").exists():
        yield ["transfer", folder, "--save"]
    if name == "scaling_law":
        yield ["law", folder, "--out", f"{folder}/law.json", "--figures", f"{folder}/figures"]
    for multiplier in MULTIPLIERS:
        where = ["--where", f"embedding_lr_mult={multiplier}"]
        cards = [str(REFERENCE / f"narrow_dense/card_{scheme}_at_{multiplier}.json") for scheme in SCHEMES]
        if name == "narrow_dense":
            for scheme, card in zip(SCHEMES, cards, strict=True):
                yield ["transfer", folder, "--scheme", scheme, *where, "--out", card]
        if name == "wide_sparse" and multiplier == MULTIPLIERS[0]:  # the table of both multipliers, the README's figure
            yield ["regret", folder, "--card", *cards, "--save"]
            yield ["regret", folder, *where, "--card", *cards, "--figures", f"{folder}/figures"]


def _files(names: list[str]) -> set[Path]:
    """Tables, figures and cards of these folders; runs and curves are never removed, also those stored meanwhile."""
    found = {path for name in names for path in (REFERENCE / name).rglob("*")}
    return {path for path in found if path.suffix != ".parquet" and path.is_file()}


def main() -> None:
    """Run the commands of every folder, and remove what they made beside the committed files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these folders of results/reference")
    only = parser.parse_args().only
    names = only or sorted(path.parent.name for path in REFERENCE.glob("*/runs"))
    before = _files(names)
    for name in names:
        for words in commands(name):
            print(f"\n$ hpsweep {' '.join(words)}\n", flush=True)
            if status := hpsweep(words):
                raise SystemExit(status)
    for path in _files(names) - before:
        path.unlink()


if __name__ == "__main__":
    main()
