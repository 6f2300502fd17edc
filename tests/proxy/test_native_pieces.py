"""The native engine's functions, one at a time, against torch: for this processor, lesser ones and emulated tiles."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from hpsweep.proxy.data import Dataset
from hpsweep.proxy.native import memory
from hpsweep.proxy.native.engine import NativeTrial
from hpsweep.spec import Trial
from tests.proxy.native_library import LANES, TARGETS, call, floats, rows, use

RANDOM = np.random.default_rng(0)
BEGINNING = RANDOM.bit_generator.state


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Every test draws the same, whichever others run."""
    RANDOM.bit_generator.state = BEGINNING


@pytest.fixture(params=TARGETS)
def native(request: pytest.FixtureRequest) -> Iterator[ctypes.CDLL]:
    with pytest.MonkeyPatch.context() as patch:
        yield use(request.param, patch)


def _normals(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, dtype=np.float32)


def _close(actual: Any, expected: Any, tolerance: float = 2e-6) -> None:
    """Equal up to rounding of sums: relative to the largest, or to 1 as the summands' size."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1, np.abs(expected).max()))


def _double(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float64)).requires_grad_(True)


def _half(values: np.ndarray) -> np.ndarray:
    """The nearest bfloat16, ties to even, as torch rounds."""
    return torch.from_numpy(np.array(values)).bfloat16().double().numpy()


@pytest.mark.parametrize("target", LANES)
def test_a_lesser_processor_has_shorter_vectors(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if target in TARGETS:
        assert use(target, monkeypatch).native_lanes() == LANES[target]


@pytest.mark.parametrize("name", ["tensor", "matrix", "block", "model"])
def test_pythons_structures_are_those_of_c(native: ctypes.CDLL, name: str) -> None:
    structures = {
        "tensor": memory.TensorMemory,
        "matrix": memory.MatrixMemory,
        "block": memory.BlockMemory,
        "model": memory.ModelMemory,
    }
    structure = structures[name]
    for field, *_ in structure._fields_:
        mirrored, own = f"{name}.{field.rstrip('_')}".encode(), getattr(structure, field)
        assert (native.piece_offset(mirrored), native.piece_size(mirrored)) == (own.offset, own.size), mirrored
    size = {
        "tensor": native.piece_size_of_tensor,
        "matrix": native.piece_size_of_matrix,
        "block": native.native_size_of_block,
        "model": native.native_size_of_model,
    }[name]
    assert size() == ctypes.sizeof(structure)


def test_exponential_is_good_to_two_in_ten_million(native: ctypes.CDLL) -> None:
    x = np.concatenate([np.linspace(-87, 88, 16000), _normals(1600) * 1e-3, np.zeros(16)]).astype(np.float32)
    y = floats(x)
    call(native.piece_exponential, y.size, y)
    np.testing.assert_allclose(y, np.exp(x.astype(np.float64)), rtol=2e-7)
    assert (y[-16:] == 1).all()


def test_exponential_is_held_within_its_range_and_keeps_not_a_number(native: ctypes.CDLL) -> None:
    y = floats([-np.inf, -1e30, -87.5, 88.5, 1e30, np.inf, np.nan, -np.nan, *[0.0] * 8])
    call(native.piece_exponential, 16, y)
    np.testing.assert_allclose(y[:3], math.exp(-87), rtol=2e-7)
    np.testing.assert_allclose(y[3:6], math.exp(88), rtol=2e-7)
    assert np.isnan(y[6:8]).all()
    assert (y[8:] == 1).all()


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_an_extreme_keeps_what_is_not_a_number_in_its_first_argument(native: ctypes.CDLL, name: str) -> None:
    a, b = _normals(32), _normals(32)
    a[3] = np.nan
    result = floats(a)
    call(getattr(native, f"piece_{name}"), 32, result, floats(b))
    np.testing.assert_array_equal(result, getattr(np, name)(a, b))


def test_square_root_is_exact(native: ctypes.CDLL) -> None:
    x = np.abs(_normals(64))
    x[0] = 0
    y = floats(x)
    call(native.piece_square_root, 64, y)
    np.testing.assert_array_equal(y, np.sqrt(x))


@pytest.mark.parametrize(("rows_", "columns"), [(1, 1), (3, 17), (16, 16), (17, 5), (33, 50)])
def test_transpose_leaves_zeros_beyond_the_rows(native: ctypes.CDLL, rows_: int, columns: int) -> None:
    a = _normals(rows_, columns)
    whole = rows(np.zeros((columns, rows_)))
    whole[:] = 7
    call(native.piece_transpose, rows_, columns, rows(a), -(-columns // 16) * 16, whole, whole.shape[1])
    np.testing.assert_array_equal(whole[:, :rows_], a.T)
    assert (whole[:, rows_:] == 0).all()


def test_lane_sums_gives_every_row_its_sum(native: ctypes.CDLL) -> None:
    lanes = native.native_lanes()
    x, sums = _normals(lanes, lanes), floats(np.zeros(16))
    call(native.piece_lane_sums, floats(x), sums)
    _close(sums[:lanes], x.astype(np.float64).sum(1))


SHAPES = [(1, 16, 1), (3, 48, 7), (5, 16, 33), (6, 64, 256), (7, 80, 257), (13, 32, 600), (64, 128, 64), (33, 144, 34)]


@pytest.mark.parametrize("add", [0, 1])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
def test_a_product_is_that_of_its_matrices(
    native: ctypes.CDLL, m: int, n: int, k: int, transposed: bool, add: int
) -> None:
    a, b, c = _normals(m, k), _normals(k, n), _normals(m, n)
    result = floats(c)
    stored = rows(a.T if transposed else a)
    row, step = (1, stored.shape[1]) if transposed else (stored.shape[1], 1)
    call(native.piece_product, m, n, k, stored, row, step, floats(b), n, result, n, add)
    _close(result, a.astype(np.float64) @ b + add * c)


def test_a_product_stays_within_its_columns(native: ctypes.CDLL) -> None:
    a, b = _normals(5, 9), _normals(9, 32)
    result = floats(np.full((5, 64), 7.0))
    call(native.piece_product, 5, 32, 9, rows(a), 16, 1, floats(b), 32, result, 64, 0)
    _close(result[:, :32], a.astype(np.float64) @ b)
    assert (result[:, 32:] == 7).all()


def _awkward_for_rounding() -> np.ndarray:
    """Ties upward and downward, their neighbours, carries into the exponent and to infinity, and what is no number."""
    bits = [0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001, 0x3FFF8000, 0x7F7F8000, 0x7F7F7FFF, 0x7F800000, 0x7F800001]
    bits += [0x7FFFFFFF, 0x7FC00000, 0, 0x00800000]
    return np.array([*bits, *[b | 0x80000000 for b in bits], 0x7F80FFFF] * 2, np.uint32).view(np.float32)


def _bfloat16_bits(values: np.ndarray) -> np.ndarray:
    return torch.from_numpy(np.array(values)).bfloat16().view(torch.int16).numpy().astype(np.uint16)


def _same_bits(actual: np.ndarray, values: np.ndarray) -> None:
    """Equal to torch's bfloat16; of what is not a number only that it is not."""
    lost = np.isnan(values)
    np.testing.assert_array_equal(actual[~lost], _bfloat16_bits(values)[~lost])
    assert (actual[lost] & 0x7FFF > 0x7F80).all()


@pytest.mark.parametrize("by", ["rows", "columns"])
def test_pairs_are_rounded_to_nearest_even(native: ctypes.CDLL, by: str) -> None:
    values = np.concatenate([_awkward_for_rounding()] * 3 + [_normals(96 * 16)])[: 96 * 16].reshape(96, 16)
    if by == "rows":
        packed = floats(np.zeros((48, 16))).view(np.uint16).reshape(48, 16, 2)
        call(native.piece_pair_rows, 96, 16, floats(values), 16, packed, 16)
        actual = packed.transpose(0, 2, 1).reshape(96, 16)
    else:
        packed = floats(np.zeros((96, 16))).view(np.uint16).reshape(96, 32)
        call(native.piece_pair_columns, 96, 16, floats(values), 16, packed, 16)
        actual = packed[:, :16]
        assert (packed[:, 16:] == 0).all()
    _same_bits(actual, values)


def test_an_odd_last_row_is_paired_with_zero(native: ctypes.CDLL) -> None:
    values, packed = _normals(5, 16), floats(np.full((3, 16), np.nan)).view(np.uint16).reshape(3, 16, 2)
    call(native.piece_pair_rows, 5, 16, floats(values), 16, packed, 16)
    np.testing.assert_array_equal(packed[2, :, 0], _bfloat16_bits(values[4]))
    assert (packed[2, :, 1] == 0).all()


@pytest.mark.parametrize("add", [0, 1])
@pytest.mark.parametrize(
    ("m", "n", "k"), [*SHAPES, (32, 32, 32), (40, 160, 120), (70, 96, 31), (31, 32, 64), (65, 48, 530)]
)
def test_a_product_in_bfloat16_rounds_the_factors_alone(native: ctypes.CDLL, m: int, n: int, k: int, add: int) -> None:
    a, b, c = _normals(m, k), _normals(k, n), _normals(m, n)
    words, even, result = native.piece_pairs_of(k), -(-k // 2), floats(c)
    first, second = floats(np.zeros((m, words))), floats(np.zeros((even, n)))
    whole = rows(a)
    call(native.piece_pair_columns, m, 2 * even, whole, whole.shape[1], first, words)
    call(native.piece_pair_rows, k, n, floats(b), n, second, n)
    call(native.piece_half_product, m, n, even, first, words, second, n, result, n, add)
    _close(result, _half(a) @ _half(b) + add * c)


def _scattered(counts: list[int], columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A dense matrix with so many nonzeros in its rows; their rows, columns and where each row's begin."""
    dense = np.zeros((len(counts), columns), np.float32)
    for i, count in enumerate(counts):
        dense[i, RANDOM.permutation(columns)[:count]] = _normals(count)
    row, column = (x.astype(np.int32) for x in np.nonzero(dense))
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return dense, row, column, start


COUNTS = [0, 1, 15, 16, 17, 40, 0, 3, 0]


@pytest.mark.parametrize("add", [0, 1])
@pytest.mark.parametrize("n", [16, 48, 128, 144])
def test_a_sparse_product_multiplies_the_nonzeros(native: ctypes.CDLL, n: int, add: int) -> None:
    dense, row, column, start = _scattered(COUNTS, 40)
    x, y = _normals(40, n), _normals(len(COUNTS), n)
    result = floats(y)
    call(native.piece_sparse_product, len(COUNTS), n, start, column, floats(dense[row, column]), floats(x), result, add)
    _close(result, dense.astype(np.float64) @ x + add * y)
    assert (result[0] == add * y[0]).all()


@pytest.mark.parametrize("counts", [COUNTS, [1], [0, 15], [16], [17, 0]])
@pytest.mark.parametrize("n", [16, 48, 128, 144])
def test_a_sampled_product_is_the_outer_product_where_there_are_nonzeros(
    native: ctypes.CDLL, n: int, counts: list[int]
) -> None:
    _, row, column, _ = _scattered(counts, 40)
    dy, x, before = _normals(len(counts), n), _normals(40, n), _normals(len(row))
    gradient = floats(before)
    call(native.piece_sampled_product, len(row), n, row, column, floats(dy), floats(x), gradient)
    _close(gradient, before + (dy.astype(np.float64) @ x.T)[row, column])


@pytest.mark.parametrize(("width", "n"), [(4, 16), (40, 48), (48, 128), (64, 208)])
def test_a_norm_and_its_gradients_are_torchs(native: ctypes.CDLL, width: int, n: int) -> None:
    x, gain, dy, dx, dgain = (
        _normals(width, n) * 3 + 1,
        _normals(width),
        _normals(width, n),
        _normals(width, n),
        _normals(width),
    )
    one, two, factor = _double(x), _double(gain), 0.625
    expected = torch.nn.functional.layer_norm(one.T, (width,)).T * two[:, None] * factor
    expected.backward(torch.from_numpy(dy.astype(np.float64)))
    normed, rstd, y, again = (floats(np.zeros(shape)) for shape in ((width, n), n, (width, n), (width, n)))
    call(native.piece_norm, width, n, floats(x), floats(gain), factor, normed, rstd, y)
    _close(y, expected.detach())
    call(native.piece_scaled, width, n, normed, floats(gain), factor, again)
    np.testing.assert_array_equal(again, y)
    to_gain, to_x = floats(dgain), floats(dx)
    call(native.piece_norm_backward, width, n, floats(dy), floats(gain), factor, normed, rstd, to_gain, to_x)
    _close(to_x, dx + one.grad.numpy(), 1e-5)
    _close(to_gain, dgain + two.grad.numpy(), 1e-5)


def test_a_token_whose_features_are_equal_has_a_finite_norm(native: ctypes.CDLL) -> None:
    normed, rstd, y = (floats(np.zeros(shape)) for shape in ((16, 16), 16, (16, 16)))
    call(native.piece_norm, 16, 16, floats(np.ones((16, 16))), floats(np.ones(16)), 1.0, normed, rstd, y)
    assert (y == 0).all()
    np.testing.assert_allclose(rstd, 1e-5**-0.5, rtol=1e-6)


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)


@pytest.mark.parametrize(
    ("size", "context", "heads", "sequences"),
    [
        *[(size, 50, 2, 2) for size in (4, 12, 16, 32, 64)],
        *[(8, context, 3, sequences) for context, sequences in ((1, 3), (7, 5), (16, 3), (64, 2), (130, 1))],
        (32, 130, 2, 1),
        (12, 16, 3, 5),
    ],
)
def test_attention_and_its_gradients_are_torchs(
    native: ctypes.CDLL, size: int, context: int, heads: int, sequences: int
) -> None:
    span, scale = -(-context // 16) * 16, 0.375
    qkv, dmixed = 2 * _normals(3, heads, size, sequences, span), _normals(heads, size, sequences, span)
    dmixed[..., context:] = 0  # no loss asks for what padding gives
    mixed, dqkv = floats(np.zeros(dmixed.shape)), floats(np.full(qkv.shape, 7.0))
    call(native.piece_attention, heads, size, context, sequences, scale, floats(qkv), mixed, floats(dmixed), dqkv)
    asked = _double(qkv[..., :context])
    expected = _attention(*asked.permute(0, 3, 1, 4, 2), scale)  # (sequences, heads, context, size)
    expected.backward(torch.from_numpy(dmixed[..., :context].astype(np.float64)).permute(2, 0, 3, 1))
    _close(mixed[..., :context], expected.detach().permute(1, 3, 0, 2).numpy(), 1e-5)
    _close(dqkv[..., :context], asked.grad.numpy(), 1e-5)
    assert (dqkv[..., context:] == 0).all()


@pytest.mark.parametrize("large", [1e20, 1e38, np.inf, np.nan])
def test_a_norm_of_what_is_beyond_all_numbers_is_not_a_number(native: ctypes.CDLL, large: float) -> None:
    x, normed, rstd, y = _normals(16, 16), *(floats(np.zeros(shape)) for shape in ((16, 16), 16, (16, 16)))
    x[3, 5] = large  # its square overflows
    call(native.piece_norm, 16, 16, floats(x), floats(np.ones(16)), 1.0, normed, rstd, y)
    assert np.isnan(y[:, 5]).all()
    assert np.isfinite(np.delete(y, 5, 1)).all()


def test_attention_keeps_its_head_over_large_scores_and_shows_what_is_not_a_number(native: ctypes.CDLL) -> None:
    qkv = 300 * _normals(3, 1, 16, 1, 16)
    mixed, dqkv, dmixed = floats(np.zeros((16, 16))), floats(np.zeros((48, 16))), floats(np.zeros((16, 16)))
    call(native.piece_attention, 1, 16, 16, 1, 1.0, floats(qkv), mixed, dmixed, dqkv)
    q, k, v = torch.from_numpy(qkv.astype(np.float64)).permute(0, 3, 1, 4, 2)
    _close(mixed, _attention(q, k, v, 1.0)[0, 0].T.numpy(), 1e-4)
    qkv[0, 0, 3, 0, 5] = np.nan  # a feature of the sixth token's query
    call(native.piece_attention, 1, 16, 16, 1, 1.0, floats(qkv), mixed, dmixed, dqkv)
    assert np.isnan(mixed[:, 5]).all()
    assert np.isfinite(np.delete(mixed, 5, 1)).all()


def test_gelu_and_its_slope_are_torchs(native: ctypes.CDLL) -> None:
    x = np.concatenate([np.linspace(-12, 12, 1600), [0, -0.0, 1e-20, -1e-20, 30, -30, 1e5, -1e5] * 2]).astype(
        np.float32
    )
    one = _double(x)
    expected = torch.nn.functional.gelu(one)
    expected.sum().backward()
    y, slope, d = floats(x), floats(x), _normals(x.size)
    call(native.piece_gelu, x.size, y, slope)
    # Phi to 1e-7, hence x Phi(x) to that times x; what is far below zero gives nearly nothing
    np.testing.assert_allclose(y, expected.detach(), rtol=4e-7, atol=1e-6)
    np.testing.assert_allclose(slope, one.grad, rtol=4e-7, atol=1e-6)
    back = floats(d)
    call(native.piece_gelu_backward, x.size, slope, back)
    np.testing.assert_array_equal(back, d * slope)


def test_gelu_keeps_what_is_not_a_number(native: ctypes.CDLL) -> None:
    y, slope = floats([np.nan, *[1.0] * 15]), floats(np.zeros(16))
    call(native.piece_gelu, 16, y, slope)
    np.testing.assert_array_equal(np.isnan(y), [True, *[False] * 15])


@pytest.mark.parametrize("size", [1.0, 4.0, 50.0, 1e4])
@pytest.mark.parametrize(
    ("vocabulary", "context", "sequences"), [(5, 7, 3), (16, 16, 1), (257, 50, 2), (1001, 20, 3), (131_072, 4, 1)]
)
def test_cross_entropy_and_its_gradient_are_torchs(
    native: ctypes.CDLL, vocabulary: int, context: int, sequences: int, size: float
) -> None:
    span, weight = -(-context // 16) * 16, 0.25
    logits = size * _normals(vocabulary, sequences, span)
    tokens = RANDOM.integers(0, vocabulary, (sequences, context + 1), dtype=np.int32)
    losses, result = np.ones(sequences), floats(logits)
    call(native.piece_cross_entropy, vocabulary, context, sequences, tokens, weight, result, losses)
    one = _double(logits[..., :context])
    expected = torch.nn.functional.cross_entropy(
        one.permute(1, 0, 2), torch.from_numpy(tokens[:, 1:].astype(np.int64)), reduction="none"
    ).sum(1)
    (weight * expected.sum()).backward()
    np.testing.assert_allclose(losses, 1 + expected.detach(), rtol=2e-6)
    _close(result[..., :context], one.grad, 2e-5)  # relative to a logit's own size, e^x has that error
    assert (result[..., context:] == 0).all()
    losses[:], result[...] = 1, logits
    call(native.piece_cross_entropy, vocabulary, context, sequences, tokens, 0.0, result, losses)
    np.testing.assert_allclose(losses, 1 + expected.detach(), rtol=2e-6)


def test_cross_entropy_shows_what_is_not_a_number(native: ctypes.CDLL) -> None:
    logits, losses = _normals(20, 2, 16), np.zeros(2)
    logits[11, 1, 3] = np.nan
    call(native.piece_cross_entropy, 20, 16, 2, np.zeros((2, 17), np.int32), 0.0, floats(logits), losses)
    np.testing.assert_array_equal(np.isnan(losses), [False, True])


AWKWARD = Trial(
    width=40, head_size=8, depth=1, context=50, batch=3, steps=20, eval_sequences=7, base_width=16, alpha_input=3.0,
    weight_decay=0.3, clip=0.25, lr=2.0**-4, embedding_lr_mult=4.0,
)  # fmt: skip


def _trial(trial: Trial, vocabulary: int = 77) -> NativeTrial:
    tokens = RANDOM.integers(0, vocabulary, 2000).astype(np.uint16)
    return NativeTrial(
        trial, Dataset(source="made", train=tokens, validation=tokens, vocabulary=vocabulary, data_hash="")
    )


def test_a_look_up_and_its_gradient_are_torchs(native: ctypes.CDLL) -> None:
    training = _trial(AWKWARD)
    tokens = RANDOM.integers(0, 5, (3, 51), dtype=np.int32)  # every token many times
    x, dx = floats(np.zeros((40, 3, 64))), _normals(40, 3, 64)
    call(native.piece_look_up, ctypes.byref(training._model), 3, tokens, x)
    token, position = (_double(training.tensor(f"embedding.{name}")) for name in ("token", "position"))
    expected = (torch.nn.functional.embedding(torch.from_numpy(tokens[:, :-1].astype(np.int64)), token) + position) * 3
    _close(x[..., :50], expected.detach().permute(2, 0, 1).numpy(), 2e-7)
    expected.backward(torch.from_numpy(dx[..., :50].astype(np.float64)).permute(1, 2, 0))
    call(native.piece_look_up_backward, ctypes.byref(training._model), 3, tokens, floats(dx))
    _close(training.tensor("embedding.token", "gradient"), token.grad)
    _close(training.tensor("embedding.position", "gradient"), position.grad)
    for name in ("token", "position"):
        assert (training._arrays[f"embedding.{name}"]["gradient"].reshape(-1, 48)[:, 40:] == 0).all()


@pytest.mark.parametrize("add", [0, 1])
@pytest.mark.parametrize("name", ["attention.qkv", "attention.out", "mlp.in", "mlp.out", "token"])
@pytest.mark.parametrize(
    ("precision", "density"),
    [("float32", 1.0), ("float32", 0.5), ("float32", 0.1), ("bfloat16", 1.0), ("bfloat16", 0.5)],
)
def test_a_matrix_and_its_gradients_are_torchs_whichever_way_it_multiplies(
    native: ctypes.CDLL, name: str, precision: Any, density: float, add: int
) -> None:
    training = _trial(AWKWARD.replace(precision=precision, density=density))
    place = (
        training._model.token
        if name == "token"
        else getattr(training._model.blocks[0], name.replace("attention.", "").replace(".", "_"))
    )
    full = "embedding.token" if name == "token" else f"block0.{name}"
    weight = training.tensor(full)
    (out, fan_in), n = weight.shape, 3 * 64
    x, y, dx, dy = _normals(fan_in, n), _normals(out, n), _normals(fan_in, n), _normals(out, n)
    forth, back = floats(y), floats(dx)
    call(
        native.piece_linear,
        ctypes.byref(training._model),
        ctypes.byref(place),
        3,
        floats(x),
        forth,
        add,
        floats(dy),
        back,
        add,
    )
    rounded = _half if precision == "bfloat16" else np.float64
    _close(forth, rounded(weight) @ rounded(x) + add * y)
    _close(back, rounded(weight).T @ rounded(dy) + add * dx)
    if full not in training._sparse:
        assert (training._arrays[full]["gradient"].reshape(out, -1)[:, fan_in:] == 0).all()
    kept = training._mask(full) if name != "token" and density < 1 else 1
    _close(training.tensor(full, "gradient"), rounded(dy) @ rounded(x).T * kept)
    assert training._model.blocks[0].qkv.way == {1.0: 0, 0.5: 0, 0.1: 1}[density] + 2 * (precision == "bfloat16")


@pytest.mark.parametrize("clip", [0.25, 1e9])
@pytest.mark.parametrize("density", [1.0, 0.103])  # nonzeros in no whole vectors
def test_clipping_and_adamw_are_torchs(native: ctypes.CDLL, clip: float, density: float) -> None:
    trial = AWKWARD.replace(clip=clip, density=density, beta1=0.8, beta2=0.9, eps=1e-3, scheme="mup")
    training = _trial(trial)
    numbers = training._numbers
    parameters = {name: torch.nn.Parameter(torch.from_numpy(training.tensor(name))) for name in numbers}
    adamw = torch.optim.AdamW(
        [{"params": [p], "lr": 0.0, "weight_decay": numbers[name].weight_decay} for name, p in parameters.items()],
        betas=(0.8, 0.9),
        eps=1e-3,
    )
    for step in range(1, 6):
        for name, parameter in parameters.items():
            flat = training._arrays[name]["gradient"]
            flat[:] = _normals(flat.size) * 0.1
            if name in training._sparse:
                flat[np.count_nonzero(training._sparse[name]) - 1] = 3  # the last counts, in no whole vector
            else:  # padding of rows and gains has no gradient
                flat.reshape(-1, memory.padded(parameter.shape[-1]))[:, parameter.shape[-1] :] = 0
            parameter.grad = torch.from_numpy(training.tensor(name, "gradient"))
        factor = 0.2 * step
        for group, number in zip(adamw.param_groups, numbers.values(), strict=True):
            group["lr"] = number.lr * factor
        expected = torch.nn.utils.clip_grad_norm_(parameters.values(), clip)
        norm = native.native_update(ctypes.byref(training._model), step, factor)
        assert norm == pytest.approx(float(expected), rel=1e-5)
        adamw.step()
    for name, parameter in parameters.items():
        np.testing.assert_allclose(training.tensor(name), parameter.detach(), rtol=1e-5, atol=1e-6)
        for part, theirs in (("first", "exp_avg"), ("second", "exp_avg_sq")):
            moment = adamw.state[parameter][theirs].numpy()
            np.testing.assert_allclose(training.tensor(name, part), moment, rtol=0, atol=1e-5 * np.abs(moment).max())
