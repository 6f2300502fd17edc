"""The unit of a loss: nats/byte of bytes, nats/token of tokens, and bits/byte where the bytes of a token are known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import hpsweep as hp
from hpsweep.proxy.data import load_dataset
from hpsweep.spec import Trial
from hpsweep.units import Unit, bytes_per_token, unit_of, unit_of_sources
from tests.analysis.optimum.test_optima import OCTAVES, bowl, made_runs

BIN = "bin:train.bin?dtype=uint16&vocabulary=50304"


@pytest.mark.parametrize(
    ("source", "stated"),
    [
        ("stdlib", 1.0),
        ("text:corpus/", 1.0),
        ("jsonl:a.jsonl?field=text", 1.0),
        ("parquet:a.parquet?column=text", 1.0),
        (BIN, None),
        (BIN + "&bytes_per_token=4.3", 4.3),
        ("bin:a.bin?bytes_per_token=1&dtype=uint8&vocabulary=256", 1.0),
        ("somewhere else", None),
    ],
)
def test_bytes_stand_for_themselves_and_a_token_for_what_its_source_states(source: str, stated: float | None) -> None:
    assert bytes_per_token(source) == stated


@pytest.mark.parametrize("wrong", ["0", "-1", "nan", "inf", "1001", "four"])
def test_bytes_per_token_that_cannot_be_are_refused_before_the_file_is_read(wrong: str, tmp_path: Path) -> None:
    source = f"bin:{tmp_path / 'absent.bin'}?dtype=uint16&vocabulary=9&bytes_per_token={wrong}"
    with pytest.raises(ValueError, match=rf"bytes_per_token is {wrong}; give a number in \(0, 1000\].*=4\.3"):
        load_dataset(source)


def test_a_sweep_of_bytes_and_a_sweep_of_tokens_compare_in_bits_per_byte() -> None:
    byte, token = unit_of_sources(["stdlib"]), unit_of_sources([BIN + "&bytes_per_token=4"])
    assert (byte.name, token.name) == ("nats/byte", "nats/token")
    assert byte.bits_per_byte is not None
    assert token.bits_per_byte is not None
    assert byte.bits_per_byte * math.log(2) == pytest.approx(1.0)
    assert token.bits_per_byte * 4 * math.log(2) == pytest.approx(1.0)  # one bit a byte is four bits a token
    assert byte.note() == "nats/byte (x 1.443 = bits/byte)"
    assert unit_of_sources([BIN]) == Unit("nats/token", None)
    assert unit_of_sources([BIN]).note() == "nats/token"


def test_the_option_changes_no_token_and_the_id_of_no_trial_without_it(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    np.arange(400, dtype="<u2").tofile(path)
    source = f"bin:{path}?dtype=uint16&vocabulary=400"
    assert load_dataset(source).data_hash == load_dataset(source + "&bytes_per_token=4.3").data_hash
    assert Trial(steps=300, data="stdlib", base_head_size=1).trial_id == "0ce2b64391585bad"


def test_runs_with_and_without_the_option_are_fitted_together_as_their_tokens_are_the_same() -> None:
    runs = made_runs(bowl(-7.0), {"lr": OCTAVES, "seed": [0, 1]}, base=Trial(steps=300, data=BIN))
    half = runs["seed"] == 1
    mixed = runs.assign(data=runs["data"].where(half, BIN + "&bytes_per_token=4.3"))
    one, both = (hp.optima(table, by=["scheme"]).to_dict("records")[0] for table in (runs, mixed))
    assert both["opt"] == one["opt"]
    assert both["n_runs"] == len(runs)
    assert unit_of(mixed).bits_per_byte == pytest.approx(1 / math.log(2) / 4.3)
    with pytest.raises(ValueError, match="different data"):
        hp.optima(mixed.assign(data_hash=np.where(half, "a", "b")), by=["scheme"])


def test_two_numbers_of_bytes_for_one_token_are_refused() -> None:
    with pytest.raises(ValueError, match=r"4\.3 \(bin:.*\) and 4\.5 \(bin:.*--where data="):
        unit_of_sources([BIN + "&bytes_per_token=4.3", BIN + "&bytes_per_token=4.5"])


def test_a_table_without_data_is_in_nats_per_token() -> None:
    runs = made_runs(bowl(-7.0), {"lr": OCTAVES, "seed": [0]}, base=Trial(steps=300))
    assert unit_of(runs.drop(columns="data")) == Unit("nats/token", None)
    assert unit_of(runs.assign(data=None)) == Unit("nats/token", None)


# --- images ---


@pytest.mark.parametrize(
    "source", ["glyphs", "glyphs?size=28", "images:a", "npz:a", "npy:a?labels=b", "parquet:a?image=image&label=label"]
)
def test_losses_of_images_are_in_nats_per_image(source: str) -> None:
    assert bytes_per_token(source) is None
    assert unit_of_sources([source]) == Unit("nats/image", None)


def test_losses_of_images_and_of_text_are_refused_together() -> None:
    with pytest.raises(ValueError, match=r"some runs are on images \(glyphs\) and others on text \(stdlib\).*--where"):
        unit_of_sources(["stdlib", "glyphs"])
