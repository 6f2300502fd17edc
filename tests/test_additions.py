"""What CONTRIBUTING.md says of adding a column, a finding and an architecture: the named files are enough.

The others are shown in test_schemes.py, analysis/test_axes.py, cli/test_verbs.py, export/test_export.py and
store/test_record_grows.py (a field of a trial).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.copies import copied_package, edit, told_by
from tests.paths import ROOT


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return copied_package(tmp_path)


COLUMN = '    Field("last_loss", "float", "training loss of the last step", "nats/token", _NOT_NEGATIVE),\n'

TRAIN_AND_LOAD = f"""
import hpsweep as hp
from hpsweep import store
from hpsweep.proxy.train import train

trial = hp.Trial(width=16, depth=1, head_size=16, context=16, batch=2, steps=3, eval_sequences=4, lr=0.01)
outcome = train([trial])
store.append("results/new", outcome.rows, outcome.curves)
new = hp.load("results/new")
old = hp.load({str(ROOT / "results" / "reference" / "lr_by_density")!r})
print(0 < new["last_loss"].item() < 10, new["last_loss"].dtype, new["val_loss"].notna().all())
print(old["last_loss"].isna().all(), len(hp.optima(old, resamples=20)) == len(old.groupby(["scheme", "density"])))
print(store.RUNS.field("last_loss").metadata[b"unit"].decode())
"""


def test_a_column_is_a_line_of_the_schema_and_one_of_what_makes_it(package: Path) -> None:
    edit(package / "schema.py", '    Field("initial_loss"', f'{COLUMN}    Field("initial_loss"')
    produced = '        "last_loss": float(train_losses[-1]),\n'
    edit(package / "proxy" / "outcome.py", '        "status": "ok",\n', f'        "status": "ok",\n{produced}')
    assert told_by(package, TRAIN_AND_LOAD) == ["True float64 True", "True True", "nats/token"]


WORDS = """    # the proxy's optimum
    "even_width": "A width of {width} is even.",
"""
REMEDIES = """REMEDIES: dict[str, str] = {
    "even_width": "Take {odd}.",
"""
PRODUCER = """    found = []
    if target.width % 2 == 0:
        found.append(Finding(code="even_width", numbers={"width": target.width, "odd": target.width + 1}))
    nonzeros = trial.width * trial.density
"""

CARD_AND_REPORT = f"""
import hpsweep as hp
from pathlib import Path
from hpsweep.cli.inputs import stored_sweep

folder = Path({str(ROOT / "results" / "reference" / "lr_by_density")!r})
runs = hp.load(folder)
sweep = stored_sweep(folder)
card = hp.transfer(runs, sweep.target)
sentence = f"A width of {{sweep.target.width}} is even. Take {{sweep.target.width + 1}}."
print([row["code"] for row in card.findings].count("even_width"), sentence in card.warnings)
saved = hp.report(runs, sweep).save("page")
print([sentence in path.read_text() for path in saved if path.suffix in (".html", ".md")])
card.write("card.json")
print(sentence in hp.Card.read("card.json").warnings)
"""


def test_a_finding_is_its_words_and_what_finds_it(package: Path) -> None:
    findings = package / "analysis" / "findings.py"
    edit(findings, "    # the proxy's optimum\n", WORDS)
    edit(findings, "REMEDIES: dict[str, str] = {\n", REMEDIES)
    producer = package / "analysis" / "transfer" / "card_findings.py"
    edit(producer, "    found = []\n    nonzeros = trial.width * trial.density\n", PRODUCER)
    assert told_by(package, CARD_AND_REPORT) == ["1 True", "[True, True]", "True"]


ONE_MATRIX = '''
"""A model of one hidden matrix between its embedding and its readout."""

from hpsweep.architectures.inventory import FLOPS_OF_A_WEIGHT


def hidden_shapes(width, depth):
    return {f"layer{i}": (width, width) for i in range(depth)}


def tensors(model, vocabulary):
    matrices = {name: (shape, "hidden") for name, shape in hidden_shapes(model.width, model.depth).items()}
    ends = (vocabulary, model.width)
    return {"embedding": (ends, "embedding"), **matrices, "readout": (ends, "readout")}


def readout_tensor(model):
    return "readout"


def residual_streams(depth):
    return {}


def flops_per_token(model, vocabulary, hidden_weights):
    return FLOPS_OF_A_WEIGHT * (hidden_weights + vocabulary * model.width)
'''

COUNT_AND_SCALE = """
import hpsweep as hp
from hpsweep.rules.count import sizes, flops_sparse
from hpsweep.rules.multipliers import tensor_numbers

trial = hp.Trial(scheme="supar", width=256, base_width=64, density=1 / 4, depth=2, steps=100, lr=0.01, init_std=0.08)
print(*sizes(trial, 100))
print(flops_sparse(trial, 100) / trial.total_tokens)
print({name: f"{n.lr:.4g}" for name, n in tensor_numbers(trial, 100).items()})
"""


def test_the_inventory_of_an_architecture_is_a_file_and_a_line(package: Path) -> None:
    folder = package / "architectures"
    (folder / "one_matrix.py").write_text(ONE_MATRIX)
    edit(folder / "__init__.py", "import gpt\n", "import gpt, one_matrix\n")
    edit(folder / "__init__.py", '= {"gpt": gpt}', '= {"gpt": gpt, "one_matrix": one_matrix}')
    edit(folder / "__init__.py", 'name: str = "gpt"', 'name: str = "one_matrix"')
    kept = 2 * 256 * 256 // 4
    assert told_by(package, COUNT_AND_SCALE) == [
        f"{2 * 256 * 256 + 2 * 100 * 256} {2 * 100 * 256} {2 * 256 * 256} {kept}",
        f"{6.0 * (kept + 100 * 256)}",
        # lr / (m_d m_rho) = 0.01 / (4 / 4) for hidden matrices
        "{'embedding': '0.01', 'layer0': '0.01', 'layer1': '0.01', 'readout': '0.01'}",
    ]
