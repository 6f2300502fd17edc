"""No artist leaves its figure, no legend is lost or covers anything, and a panel speaks of its own groups alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation

import hpsweep as hp
from hpsweep import store
from hpsweep.analysis.law.law import fit_law
from hpsweep.analysis.optimum.searched import over_of
from hpsweep.analysis.plots import coords as plot_coords
from hpsweep.analysis.plots import figures as plots
from hpsweep.analysis.plots import law as plot_law
from hpsweep.analysis.plots import layout as plot_layout
from hpsweep.analysis.plots import style as style
from hpsweep.analysis.plots.joint import heat_table, heatmap, surface_heatmaps
from hpsweep.analysis.plots.output import Output
from hpsweep.analysis.plots.regret import regret_figure, regret_heatmap, regret_of
from hpsweep.analysis.plots.transfer import curves, transfer_figure
from hpsweep.analysis.transfer.card import Card
from hpsweep.analysis.transfer.regret_matrix import MATRIX_COLUMNS, regret_matrix
from hpsweep.spec import Trial
from tests.analysis.law import law_cells
from tests.analysis.optimum.test_optima import bowl, made_runs
from tests.coords.test_coords import made as coordinates
from tests.paths import ROOT

REFERENCE = ROOT / "results" / "reference"
FOLDERS = sorted(path.name for path in REFERENCE.iterdir() if (path / "runs").is_dir())
LR = [2.0**k for k in range(-11, -3)]


def figures_of(runs: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """All that hpsweep plot draws with --all."""
    yield from plots.figures(runs, whole=True)
    try:
        yield from regret_of(runs, over_of(runs, None))
    except ValueError:  # several durations, one place: not every sweep has regrets
        return


def covered(figure: Figure) -> list[str]:
    """Legends that lie over a panel, its title, what is said above it, or each other, in a figure that is drawn."""
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes if ax.get_legend())]
    found = []
    for i, legend in enumerate(legends):
        box = legend.get_window_extent().padded(-2)
        for ax in figure.axes:
            titles = [ax.title, ax._left_title, ax._right_title, *ax.texts]  # type: ignore[attr-defined]
            said = [text for text in titles if text.get_text().strip() and text.get_visible()]
            over = [text.get_text() for text in said if box.overlaps(text.get_window_extent().padded(-2))]
            over += ["the panel"] if box.overlaps(ax.get_window_extent().padded(-2)) else []
            found += [f"a legend over {what!r}" for what in over]
        found += ["a legend over another"] if any(box.overlaps(o.get_window_extent()) for o in legends[i + 1 :]) else []
    return found


def texts_side_by_side(figure: Figure) -> list[str]:
    """Titles and texts above panels that run into those of the next panel."""
    boxes = []
    for ax in figure.axes:
        texts = [*(t for t in (ax.title, ax._left_title) if t.get_text()), *ax.texts]  # type: ignore[attr-defined]
        above = [t for t in texts if not isinstance(t, Annotation) or t.xy == (0, 1)]
        boxes.append([t.get_window_extent().padded(-1) for t in above if t.get_text().strip()])
    pairs = [(a, b) for i, one in enumerate(boxes) for other in boxes[i + 1 :] for a in one for b in other]
    return ["texts of two panels overlap"] if any(a.overlaps(b) for a, b in pairs) else []


def faults(figure: Figure) -> list[str]:
    return plot_layout.outside(figure) + covered(figure) + texts_side_by_side(figure)


# --- what is published ---


DRAWN = ("lr_by_density", "lr_by_init_std", "warmup")
"""The folders of the short form: a pair of axes, a surface, other fields."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in DRAWN else pytest.mark.slow) for name in FOLDERS]
)
def test_no_artist_leaves_a_figure_of_the_published_runs(name: str) -> None:
    runs = store.load(REFERENCE / name)
    if name == "scaling_law":  # 80 figures of one kind: a size of each
        runs = runs[runs["steps"].isin([100, 800])]
    found = {name: faults(figure) for name, figure in figures_of(runs)}
    assert found
    assert not any(found.values()), found


@pytest.mark.parametrize("schemes", [("sp",), ("sp", "supar"), ("sp", "mup", "supar")])
def test_no_artist_leaves_the_figure_of_a_transfer_and_every_mark_is_in_its_legend(schemes: tuple[str, ...]) -> None:
    cards = [Card.read(REFERENCE / "narrow_dense" / f"card_{scheme}_at_2.json") for scheme in schemes]
    found = curves(cards, store.load(REFERENCE / "wide_sparse"), store.load(REFERENCE / "narrow_dense"))
    figure = transfer_figure(found)
    assert not faults(figure)
    labels = {text.get_text() for text in figure.legends[0].get_texts()}
    assert {"proxy's optimum", "the setting carried", "loss at its own optimum", "range of the seeds"} <= labels


@pytest.mark.parametrize("prefix", ["", "transformer.a_rather_long_name_of_a_module.layers."])
@pytest.mark.parametrize(("count", "both"), [(1, False), (12, True), (40, False)])
def test_no_artist_leaves_the_figure_of_a_coordinate_check(prefix: str, count: int, both: bool) -> None:
    slopes: Any = {f"{prefix}{i}.attention": (0, 0.5, 0.5 * (i % 2)) for i in range(count)}
    sizes = pd.concat([coordinates(slopes), coordinates(slopes, along="width")]) if both else coordinates(slopes)
    sizes = sizes.drop_duplicates(["module", "width", "density", "seed", "step"])
    verdicts = hp.coords.verdicts(hp.coords.slopes(sizes))
    assert not faults(plot_coords.draw(sizes, verdicts, "A long sentence of what grows and where to look. " * 4))


# --- sweeps of any shape ---


def sweep(
    schemes: int, values: int, seeds: int, lines: str = "density", status: str = "ok", **fields: Any
) -> pd.DataFrame:
    """A grid over lr: `values` densities or widths under so many schemes, with noise where there are several seeds."""
    along = [2.0**-k for k in range(values)] if lines == "density" else [64 * 2**k for k in range(values)]
    grid = {"scheme": ["sp", "mup", "supar"][:schemes], lines: along, "lr": LR, "seed": list(range(seeds))}
    optimum = {"ok": -7.0, "edge": -1.0}[status]
    return made_runs(bowl(optimum), grid, noise=0.004, base=Trial(steps=100, base_width=64, **fields))


SHAPES = [
    *((schemes, values, 2, "density", "ok") for schemes in (1, 2, 3) for values in (1, 2, 4, 8)),
    *((schemes, values, seeds, "width", status) for schemes, values, seeds, status in (
        (1, 5, 1, "ok"), (3, 4, 1, "ok"), (1, 4, 4, "edge"), (3, 8, 1, "edge"), (2, 4, 12, "ok"),
    )),
]  # fmt: skip


@pytest.mark.parametrize(
    "shape", [pytest.param(shape, marks=pytest.mark.slow if i % 3 else ()) for i, shape in enumerate(SHAPES)], ids=str
)
def test_nothing_is_cut_in_a_sweep_of_any_shape(shape: Any) -> None:
    schemes, values, seeds, lines, status = shape
    runs = sweep(schemes, values, seeds, lines, status)
    if status == "edge":
        runs.loc[(runs["lr"] == LR[-1]) & (runs["seed"] == 0), ["status", "val_loss"]] = ["diverged", np.nan]
    found = {name: faults(figure) for name, figure in figures_of(runs)}
    assert len(found) >= 1 + (values > 1)
    assert not any(found.values()), found


@pytest.mark.parametrize("width", [3.0, 4.2, 12.0])
@pytest.mark.parametrize("count", [1, 4, 9])
@pytest.mark.parametrize("letters", [5, 40, 150])
def test_a_legend_of_a_figure_has_as_many_columns_as_fit_and_breaks_what_is_too_long(
    width: float, count: int, letters: int
) -> None:
    figure = Figure(figsize=(width, 9.0), layout="constrained")
    figure.subplots()
    handles = [plt.Line2D([], [], label="ab cd efg " * (letters // 10) + "x" * (letters % 10)) for _ in range(count)]
    made = plot_layout.legend(figure, handles, loc="outside lower center", ncols=4)
    assert not faults(figure)
    if letters == 5 and width == 12.0 and count > 1:
        assert made._ncols == 4  # type: ignore[attr-defined]


# --- what a panel says of its own noise ---


def test_a_panel_says_that_noise_is_assumed_where_its_own_interval_column_says_so() -> None:
    runs = sweep(2, 3, 3)
    alone = (runs["scheme"] == "mup") & (runs["density"] == 0.5) & (runs["seed"] > 0)
    runs = runs[~alone]
    found = hp.optima(runs, by=["scheme", "density"])
    assumed = found[found["interval"] == "assumed"]
    assert assumed[["scheme", "density"]].to_numpy().tolist() == [["mup", 0.5]]
    figure = plots.optimum_stability(runs, found)
    said = {ax.get_title("left"): "\n".join(text.get_text() for text in ax.texts) for ax in figure.axes}
    assert said["μP"].strip() == "noise assumed at density 1/2"
    assert "assumed" not in said["SP"]
    assert "assumed" not in " ".join(text.get_text() for legend in figure.legends for text in legend.get_texts())
    key = plots.path_figure(found, None).legends[0].get_texts()
    assert [text.get_text() for text in key] == ["SP", "μP  noise assumed at density 1/2", "95 % interval"]
    for scheme, wanted in (("sp", False), ("mup", True)):
        own = Figure(figsize=(6, 4)).subplots()
        plots.loss_curves(runs[runs["scheme"] == scheme], found, own)
        words = " ".join(" ".join(text.get_text().split()) for text in own.get_legend().get_texts())
        assert ("noise assumed at density 1/2" in words) == wanted


def test_a_heatmap_says_that_noise_is_assumed_above_its_own_panel() -> None:
    grid = {"density": [1.0, 0.5], "lr": LR, "init_std": [2.0**k for k in range(-5, 0)], "seed": [0, 1]}
    runs = made_runs(
        lambda t: 2 + 0.05 * (np.log2(t.lr) + 7) ** 2 + 0.05 * (np.log2(t.init_std) + 3) ** 2, grid, noise=0.003,
        base=Trial(steps=100, scheme="supar"),
    )  # fmt: skip
    runs = runs[(runs["density"] == 1.0) | (runs["seed"] == 0)]
    found = hp.surface(runs, ["scheme", "density"]).assign(
        interval=lambda table: np.where(table["density"] == 1.0, "resampled", "assumed")
    )
    figure = surface_heatmaps(runs, found)
    said = ["\n".join(text.get_text() for text in ax.texts) for ax in figure.axes[:2]]
    assert ["noise assumed" in text for text in said] == [False, True]
    assert "assumed" not in " ".join(text.get_text() for text in figure.legends[0].get_texts())
    assert not faults(figure)


# --- Axes of the caller's own ---


@pytest.fixture(scope="module")
def drawings() -> dict[str, Any]:
    """Every function that takes an Axes, by name."""
    runs = sweep(1, 3, 1)
    found = hp.optima(runs, by=["scheme", "density"], resamples=50)
    slopes = hp.drift(runs, along="density", by=["scheme"], resamples=50)
    matrix = regret_matrix(runs)
    pair = made_runs(bowl(-7.0), {"lr": LR, "init_std": [0.02, 0.04, 0.08, 0.16], "seed": [0, 1]}, noise=0.003)
    (best,) = hp.surface(pair, ["scheme", "density"], resamples=50).itertuples(index=False)
    return {
        "loss_curves": lambda ax: plots.loss_curves(runs, found, ax),
        "optimum_path": lambda ax: plots.optimum_path(found, slopes, ax),
        "heatmap": lambda ax: heatmap(heat_table(pair), best, ax),
        "regret_heatmap": lambda ax: regret_heatmap(matrix, ax, top=0.3),
    }


@pytest.mark.parametrize("name", ["loss_curves", "optimum_path", "heatmap", "regret_heatmap"])
@pytest.mark.parametrize("layout", [None, "constrained", "tight"])
@pytest.mark.parametrize("columns", [1, 2])
def test_on_an_axes_of_the_caller_the_legend_stays_on_it_and_inside_the_figure(
    drawings: dict[str, Any], name: str, layout: Any, columns: int
) -> None:
    figure, axes = plt.subplots(1, columns, figsize=(4.8 * columns, 4.8), layout=layout, squeeze=False)
    try:
        for ax in axes[0]:
            drawings[name](ax)
            ax.set_title("a title of the caller")
            legend = ax.get_legend()
            assert legend is not None
            assert legend.get_texts()
        assert not faults(figure)
    finally:
        plt.close(figure)


# --- files ---


def test_text_is_text_in_an_svg_and_fonts_of_a_pdf_are_truetype(tmp_path: Path) -> None:
    runs = sweep(1, 2, 2)
    found = hp.optima(runs, by=["scheme", "density"], resamples=50)
    output = Output(formats=("svg", "pdf"))
    paths = plots.draw_all(runs, tmp_path, found, output)
    assert [path.suffix for path in paths] == [".svg", ".pdf"] * 2
    assert ">base learning rate<" in paths[0].read_text()
    pdf = paths[1].read_bytes()
    assert b"/Type3" not in pdf
    assert b"/FontFile2" in pdf
    before = {path: path.read_bytes() for path in paths}
    assert not any(word in before[paths[0]] + pdf for word in (b"dc:date", b"CreationDate", b"Matplotlib v"))
    again = plots.draw_all(runs, tmp_path, found, output)
    assert {path: path.read_bytes() for path in again} == before


def test_a_png_has_few_colours_none_of_which_is_far_from_the_drawn_one(tmp_path: Path) -> None:
    figure = dict(plots.figures(store.load(REFERENCE / "lr_by_density")))["optimum_stability_lr"]
    figure.savefig(tmp_path / "drawn.png", dpi=200)
    drawn, saved = (plt.imread(path)[..., :3] for path in (tmp_path / "drawn.png", *save_png(figure, tmp_path)))
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 1000
    assert len(np.unique(saved.reshape(-1, 3), axis=0)) <= 256
    difference = abs(saved - drawn).max(axis=-1)
    assert np.mean(difference > 16 / 255) < 1e-3
    assert difference.max() < 1 / 4  # of the edge of a letter


def save_png(figure: Figure, folder: Path) -> list[Path]:
    return style.save(figure, folder / "saved", ["png"])


def test_what_a_user_has_set_in_matplotlib_changes_no_figure(tmp_path: Path) -> None:
    runs = sweep(1, 2, 2)
    first = {path.name: path.read_bytes() for path in plots.draw_all(runs, tmp_path / "a")}
    theirs = {"font.size": 20, "axes.grid": True, "savefig.bbox": "tight", "figure.facecolor": "black"}
    with mpl.rc_context({**theirs, "lines.linewidth": 9, "svg.fonttype": "path"}):
        before = dict(mpl.rcParams)
        second = {path.name: path.read_bytes() for path in plots.draw_all(runs, tmp_path / "b")}
        assert dict(mpl.rcParams) == before
    assert first == second


def test_a_size_is_kept_and_one_that_is_too_small_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    runs = sweep(2, 3, 2)
    for path in plots.draw_all(runs, tmp_path / "a", output=Output(formats=("png",), size=(8.0, 5.0))):
        assert plt.imread(path).shape[:2] == (1000, 1600)
    with pytest.raises(
        ValueError, match=r"2 x 2 inches are too small for optimum_stability_lr: .* larger size, such as"
    ):
        plots.draw_all(runs, tmp_path / "b", output=Output(size=(2.0, 2.0)))
    assert not (tmp_path / "b").exists()


def test_a_matrix_whose_numbers_have_no_room_in_their_cells_is_refused() -> None:
    runs = hp.load(ROOT / "results/reference/lr_by_width_and_density")
    matrix = hp.regret_matrix(runs, resamples=20)
    plot_layout.check_room(regret_figure(matrix), "regret_lr")
    plot_layout.check_room(regret_figure(matrix, size=(10.0, 7.0)), "regret_lr")
    with pytest.raises(ValueError, match=r"4 x 3 inches are too small for regret_lr: the .*matrix.* has no room"):
        plot_layout.check_room(regret_figure(matrix, size=(4.0, 3.0)), "regret_lr")


def test_losses_of_bytes_are_in_nats_per_byte_and_in_bits_and_of_tokens_in_what_is_known() -> None:
    for data, label, bits in (
        ("stdlib", "validation loss (nats/byte)", True),
        ("bin:a.bin?dtype=uint16&vocabulary=50304", "validation loss (nats/token)", False),
        ("bin:a.bin?dtype=uint16&vocabulary=50304&bytes_per_token=4", "validation loss (nats/token)", True),
    ):
        runs = sweep(1, 2, 2, data=data)
        (ax,) = plots.optimum_stability(runs, hp.optima(runs, by=["scheme", "density"])).axes
        assert ax.get_ylabel() == label
        assert [right.get_ylabel() for right in ax.child_axes] == ["bits/byte"] * bits


def test_a_regret_of_an_init_std_has_its_article_and_its_diagonal_its_entry() -> None:
    runs = sweep(1, 3, 2)
    matrix = regret_matrix(runs).assign(hyperparameter="init_std")
    figure = regret_figure(matrix)
    assert figure.get_suptitle().startswith("Regret of an init std tuned")
    assert "used where tuned" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_matrix_of_very_many_places_has_colours_and_no_numbers() -> None:
    places = [64 * k for k in range(1, 26)]
    others = dict.fromkeys(MATRIX_COLUMNS)
    rows = [
        {**others, "scheme": "sp", "hyperparameter": "lr", "tuned_width": a, "tuned_density": 1.0, "used_width": b,
         "used_density": 1.0, "regret": abs(a - b) / 1e4, "low": 0.0, "high": 1.0, "status": "ok", "why": "",
         "used_from": "measured"}
        for a in places for b in places
    ]  # fmt: skip
    figure = regret_figure(pd.DataFrame(rows))
    assert not faults(figure)
    assert not figure.axes[0].texts
    assert figure.axes[-1].get_ylabel() == "nats/token"


def test_columns_are_words_on_axes_and_in_sentences() -> None:
    assert style.axis_name("embedding_lr_mult") == "embedding lr mult"
    assert style.sentence_name("init_std") == "init std"


@pytest.mark.parametrize("schemes", [1, 3])
def test_labels_of_ticks_do_not_touch(schemes: int) -> None:
    runs = sweep(schemes, 2, 1)
    figure = plots.optimum_stability(runs, hp.optima(runs, by=["scheme", "density"], resamples=50))
    figure.draw_without_rendering()
    for ax in figure.axes:
        boxes = [label.get_window_extent() for label in ax.get_xticklabels() if label.get_text()]
        assert len(boxes) >= 3
        assert not any(a.padded(1).overlaps(b) for a, b in pairwise(boxes))


@pytest.mark.parametrize("sparse", [True, False])
def test_no_artist_leaves_a_figure_of_a_law(sparse: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    table = law_cells.made(noise=0.003)
    law = fit_law(table if sparse else table[table["sparsity"] == 0].drop(columns="sparsity"), resamples=50)
    drawn: dict[str, Figure] = {}

    def keep(figure: Figure, path: Path, formats: tuple[str, ...]) -> list[Path]:
        drawn[path.name] = figure
        return []

    monkeypatch.setattr(style, "save", keep)
    plot_law.draw_all(law, Path())
    assert len(drawn) >= 4
    found = {name: plot_layout.outside(figure) + covered(figure) for name, figure in drawn.items()}
    assert not any(found.values()), found
