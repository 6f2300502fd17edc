"""The verb coords, the figure, the page and the committed results of the coordinate check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import pandas as pd
import pytest

import hpsweep
from hpsweep.analysis.coords import culprit
from hpsweep.analysis.plots.coords import draw
from hpsweep.cli import main
from hpsweep.spec import Trial
from tests.cli.test_cli import refused
from tests.coords.test_coords import made
from tests.paths import ROOT

SMALL = ("coords", "--widths", "64", "--densities", "1,1/8", "--seeds", "3", "--steps", "2")


def test_the_verdict_comes_first_and_tables_and_figure_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "made" / "here"
    assert main([*SMALL, "--out", str(out)]) == 0
    text, err = capsys.readouterr()
    assert text.startswith("supar: ")
    assert "density: size density: own density: change" in text
    assert "block0.attention.qkv" in text
    assert err == "hpsweep: 0 of 6 models measured\n"
    names = ["sizes.csv", "slopes.csv", "verdicts.csv", "coords.png", "coords.svg"]
    assert text.splitlines()[-5:] == [str(out / name) for name in names]
    assert all((out / name).stat().st_size for name in names)
    again = hpsweep.coords.slopes(pd.read_csv(out / "sizes.csv"))
    kept = pd.read_csv(out / "slopes.csv")
    assert again["slope"].to_numpy() == pytest.approx(kept["slope"].to_numpy(), abs=1e-3, nan_ok=True)


def test_the_text_of_slopes_is_what_the_command_prints(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = made({"a": (0, 0.5, 0.2), "b": (0, 0, 0)})
    monkeypatch.setattr("hpsweep.coords.sizes.coordinate_check", lambda *_, **__: sizes)
    assert main(["coords"]) == 1
    text = hpsweep.coords.text(hpsweep.coords.slopes(sizes))
    assert capsys.readouterr().out == f"supar: {text}\n"
    assert text.startswith("a grows along density: its change by its own weights has slope +0.50")
    assert [line.split()[:2] for line in text.splitlines()[-2:]] == [["a", "grows"], ["b", "ok"]]
    one = hpsweep.coords.text(hpsweep.coords.slopes(sizes[sizes["seed"] == 0]))
    assert one.splitlines()[-1] == "- b, size along density: one seed has no interval: take two or more"


def test_what_shrinks_is_named_in_json_and_by_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--scheme", "mup", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["culprit"] == "block0.attention.qkv"
    assert said["verdict"].startswith("mup: block0.attention.qkv shrinks along density: its size before training has")
    assert {row["module"] for row in said["verdicts"]} == {row["module"] for row in said["slopes"]}
    assert said["written"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--widths", "64,1.5"), "argument --widths: '64,1.5' is no list of whole numbers, such as 64,128,256"),
        (("--widths", "64", "--densities", "1"), "there is one width (64) and one density (1), and nothing to compare"),
        (("--densities", "1,2"), "densities is [1.0, 2.0]; give one or more numbers in (0, 1], each once."),
        (("--seeds", "0"), "seeds is []; give one or more whole numbers"),
        (("--steps", "0"), "steps is 0; give a whole number of at least 1"),
        (("--lr", "-1"), "lr is -1.0"),
        (("--heads", "3"), "heads is 3, which does not divide the width 64; give a divisor of every width."),
        (("--widths", "64,100"), "width 100 is not divisible by head_size 16"),
        (("--out", __file__), "cannot be made (File exists); give another folder with --out."),
    ],
)
def test_wrong_words_are_one_line(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in refused(capsys, "coords", *words)


def test_attention_is_scaled_from_the_head_size_and_the_alpha_that_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Trial] = []

    def check(trial: Trial, **_: object) -> pd.DataFrame:
        asked.append(trial)
        return made({"a": (0, 0, 0)})

    monkeypatch.setattr("hpsweep.coords.sizes.coordinate_check", check)
    for words in ((), ("--heads", "4"), ("--base-head-size", "1", "--alpha-attention", "2")):
        assert main(["coords", *words]) == 0
    assert [(trial.base_head_size, trial.alpha_attention) for trial in asked] == [(16, 1), (32, 1), (1, 2)]
    capsys.readouterr()
    told = refused(capsys, "coords", "--heads", "4", "--base-width", "66")
    assert "base width 66 is not divisible by 4 heads; take a base width that is" in told


def test_a_gpu_that_is_not_there_and_other_bad_words_make_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for words in (("--device", "cuda"), ("--steps", "0"), ("--widths", "64", "--densities", "1")):
        message = refused(capsys, "coords", *words, "--out", str(tmp_path / "out"))
        assert words[0] != "--device" or "device is cuda, but there is no GPU that torch can use; use device" in message
    assert list(tmp_path.iterdir()) == []


def test_the_figure_has_a_panel_per_field_and_quantity_and_names_what_is_wrong() -> None:
    slopes: Any = {"a": (0, 0.5, 0.2), "b": (0, 0, 0)}
    sizes = pd.concat([made(slopes), made(slopes, along="width")]).drop_duplicates(
        ["module", "width", "density", "seed", "step"]
    )
    verdicts = hpsweep.coords.verdicts(hpsweep.coords.slopes(sizes))
    figure = draw(sizes, verdicts, "title")
    assert [ax.get_title() for ax in figure.axes[:3]] == [
        "size before training", "change by its own weights", "change by training",
    ]  # fmt: skip
    assert [ax.get_xlabel() for ax in figure.axes] == ["width"] * 3 + ["density"] * 3
    assert [text.get_text() for text in figure.legends[0].get_texts()][:2] == ["a: grows", "b"]
    line = next(line for line in figure.axes[4].lines if line.get_marker() == "o")  # a's own change along density
    assert line.get_ydata()[-1] == pytest.approx(2**3, rel=0.05)  # half an octave per halving, six of them


def test_of_many_modules_the_legend_names_the_ends_and_what_is_wrong() -> None:
    slopes: Any = {f"m{i}": (0, 0, 0.5 * (i == 20)) for i in range(40)}
    sizes = made(slopes)
    figure = draw(sizes, hpsweep.coords.verdicts(hpsweep.coords.slopes(sizes)), "title")
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["m0", "m20: grows", "m39", "37 others", "slopes within ±0.1"]


# --- the page and the committed results ---


def committed(scheme: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    folder = ROOT / "results" / "reference" / "coords" / scheme
    return pd.read_csv(folder / "slopes.csv"), pd.read_csv(folder / "verdicts.csv")


def test_the_published_result_of_supar_is_flat_over_density_1_to_a_64th_with_its_intervals() -> None:
    slopes, verdicts = committed("supar")
    assert set(verdicts["verdict"]) == {"ok"}
    assert set(slopes["seeds"]) == {12}
    over = slopes[slopes["along"] == "density"]
    assert len(over) == 14 * 2 + 9
    assert over["low"].min() > -0.1
    assert over["high"].max() < 0.1


@pytest.mark.parametrize("scheme", ["supar", "mup", "sp"])
def test_the_page_has_the_numbers_of_the_published_results(scheme: str) -> None:
    page = (ROOT / "docs" / "coords.md").read_text()
    line = next(line for line in page.splitlines() if line.startswith(f"| {scheme} |")).split("|")
    slopes, verdicts = committed(scheme)
    hidden = slopes[slopes["module"].str.startswith("block")].groupby(["along", "quantity"])["slope"]

    def ranges(along: str) -> str:
        of = [hidden.get_group((along, quantity)) for quantity in ("size", "own", "change")]
        return "; ".join(f"{slope.min():.2f} to {slope.max():.2f}" for slope in of)

    assert line[2].strip() == f"{(verdicts['verdict'] == 'ok').sum()} of {len(verdicts)}"
    assert line[3].strip() == ranges("density")
    if scheme == "mup":  # dense models: those of supar
        pd.testing.assert_frame_equal(
            slopes[slopes["along"] == "width"], committed("supar")[0].query("along == 'width'"), rtol=1e-4
        )
    else:
        assert line[4].strip() == ranges("width")
    named = culprit(verdicts)
    assert line[5].strip() == ("" if named is None else f"{named['module']}, along {named['along']}")


@pytest.mark.parametrize("text", ["-4x3", "0x3", "4x-3", "nanx3", "infx3", "1e9x3", "4", "4x3x2", "", "x", "-x-"])
@pytest.mark.parametrize("verb", [["plot", "FOLDER"], ["law", "FOLDER"], ["regret", "FOLDER"], ["coords"]])
def test_a_size_that_no_figure_can_have_is_one_line(
    text: str, verb: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*verb, "--size", text])
    out, err = capsys.readouterr()
    assert (stopped.value.code, out, err.count("\n")) == (2, "", 1)
    if text != "-x-":  # which argparse takes for options
        assert f"argument --size: {text!r}" in err


def test_the_figure_of_the_check_has_the_formats_and_the_size_that_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["coords", "--widths", "32,64", "--densities", "1", "--seeds", "2", "--steps", "1", "--init-std", "0.08"]
    main([*words, "--out", str(tmp_path), "--format", "png", "--size", "12x6"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["coords.png", "sizes.csv", "slopes.csv", "verdicts.csv"]
    pixels = matplotlib.image.imread(tmp_path / "coords.png").shape
    assert pixels[:2] == (1200, 2400)  # 200 to the inch
    capsys.readouterr()
    assert main([*words, "--out", str(tmp_path), "--size", "2x2"]) == 2
    assert "2 x 2 inches are too small for coords" in capsys.readouterr().err
    assert main([*words, "--size", "7x4"]) == 2
    assert "--format and --size are of the figure, which is drawn with --out DIR" in capsys.readouterr().err
