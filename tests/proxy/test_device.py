from __future__ import annotations

import contextlib
from typing import Any, get_args
from unittest import mock

import pytest
import torch

from hpsweep.proxy import device
from hpsweep.proxy.device import (
    WARM_UP,
    Captured,
    by_onednn,
    fitting_trials,
    float32_products,
    is_exact_product,
    onednn_is_better,
    out_of_memory,
)
from hpsweep.proxy.gpu import Lacking
from hpsweep.proxy.outcome import check_precision
from hpsweep.spec import Precision


def test_a_product_in_bfloat16_is_told_from_one_in_float32() -> None:
    assert is_exact_product(torch.matmul)
    assert not is_exact_product(lambda a, b: (a.bfloat16() @ b.bfloat16()).float())
    assert not is_exact_product(lambda a, b: a.bfloat16().float() @ b.bfloat16().float())


def test_products_are_exact_to_float32_and_the_setting_comes_back() -> None:
    def fail() -> None:
        assert by_onednn() == onednn_is_better()
        assert is_exact_product(torch.matmul)
        assert is_exact_product(lambda a, b: torch.bmm(a[None], b[None])[0])
        raise KeyError

    before = torch.get_float32_matmul_precision()
    with pytest.raises(KeyError), float32_products(torch.device("cpu")):
        fail()
    assert torch.get_float32_matmul_precision() == before


def test_products_in_two_threads_put_the_setting_back_when_both_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "onednn_is_better", lambda: True)
    before = torch.get_float32_matmul_precision()
    first, second = float32_products(torch.device("cpu")), float32_products(torch.device("cpu"))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert by_onednn()
    second.__exit__(None, None, None)
    assert torch.get_float32_matmul_precision() == before != "medium"


def test_products_of_two_precisions_in_one_process_at_a_time_are_refused() -> None:
    before = torch.get_float32_matmul_precision()
    gpu = torch.device("cuda")
    with float32_products(gpu, "float32"), float32_products(gpu, "bfloat16"):
        with pytest.raises(RuntimeError, match=r"'high'.*while.*'highest'.*own process"), float32_products(gpu, "tf32"):
            pytest.fail("both at a time")
        assert torch.get_float32_matmul_precision() == "highest"
    with float32_products(gpu, "tf32"):
        assert torch.get_float32_matmul_precision() == "high"
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize(
    ("free", "one", "several", "count", "size"),
    [
        (1000, 150, 500, 8, 16),  # 50 each and 100 once: 900 = 100 + 16 x 50
        (1000, 50, 400, 8, 18),
        (100, 150, 500, 8, 1),  # at least one is tried
        (1000, 20, 20, 8, 881),  # within what memory is counted in
    ],
)
def test_the_trials_that_fit_leave_a_tenth_of_the_memory_free(
    free: int, one: int, several: int, count: int, size: int
) -> None:
    assert fitting_trials(free, one, several, count) == size


@pytest.mark.parametrize(
    ("most", "calls"),
    [
        (2**31, [(-3, 2**30), (-1, 2**31 - 1)]),
        (2**25, [(-3, 2**30), (-3, 2**25), (-1, 2**31 - 1)]),  # glibc before 2.35: the largest that it takes
        (2**24, [(-3, 2**30), (-3, 2**25)]),  # the other call would only keep the threshold from growing
    ],
)
def test_blocks_as_large_as_the_c_library_allows_are_kept(
    monkeypatch: pytest.MonkeyPatch, most: int, calls: list[tuple[int, int]]
) -> None:
    made: list[tuple[int, int]] = []

    def mallopt(what: int, value: int) -> int:
        made.append((what, value))
        return int(what != -3 or value <= most)

    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: mock.Mock(mallopt=mallopt))
    device.keep_memory.__wrapped__()
    assert made == calls


def test_a_c_library_without_mallopt_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.ctypes, "CDLL", lambda _: object())
    device.keep_memory.__wrapped__()


def test_memory_that_runs_out_is_told_also_where_it_ended_a_capture() -> None:
    assert out_of_memory(torch.OutOfMemoryError("made up"))
    assert out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"))
    assert not out_of_memory(RuntimeError("another"))
    ended = RuntimeError("operation failed due to a previous error during capture")
    ended.__context__ = torch.OutOfMemoryError("made up")
    assert out_of_memory(ended)


def test_a_function_is_called_while_it_warms_up_then_captured_once_and_replayed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    made, used = mock.Mock(return_value=mock.Mock(spec=torch.cuda.Stream)), list[object]()
    monkeypatch.setattr(device, "_side_streams", {})
    monkeypatch.setattr(torch.cuda, "Stream", made)
    for name in ("current_stream", "current_device"):
        monkeypatch.setattr(torch.cuda, name, mock.Mock())

    def on(name: str, stream: object) -> object:
        used.append(stream)
        return contextlib.nullcontext(done.append(name))

    monkeypatch.setattr(torch.cuda, "stream", lambda stream: on("stream", stream))
    monkeypatch.setattr(torch.cuda, "graph", lambda _, *, stream: on("graph", stream))
    graph = mock.Mock(replay=lambda: done.append("replay"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    captured = Captured()
    for _ in range(WARM_UP + 2):
        captured.call(lambda: done.append("call"))
    assert done == ["stream", "call"] * WARM_UP + ["graph", "call", "replay"] + ["replay"]
    assert made.call_count == 1  # memory belongs to a stream, and would stay with each
    assert used == [made.return_value] * (WARM_UP + 1)


@pytest.mark.parametrize(("precision", "setting"), [("float32", "highest"), ("bfloat16", "highest"), ("tf32", "high")])
def test_on_a_gpu_float32_is_float32_whatever_torch_was_set_to(precision: Precision, setting: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with float32_products(torch.device("cuda"), precision):
            assert torch.get_float32_matmul_precision() == setting
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


NEW_WAY = pytest.mark.skipif(
    not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9 has no precision by backend"
)


@NEW_WAY
@pytest.mark.parametrize("where", ["", "cuda.matmul", "mkldnn.matmul"])
@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_a_precision_that_was_set_by_backend_is_overruled_on_a_gpu_and_comes_back(
    where: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "onednn_is_better", onednn_is_better.__wrapped__)
    backend: Any = torch.backends
    for name in filter(None, where.split(".")):
        backend = getattr(backend, name)
    found = by_backend()
    before = torch.get_float32_matmul_precision()
    backend.fp32_precision = "tf32"
    try:
        said = by_backend()
        for precision, expected in (("float32", "ieee"), ("tf32", "tf32")):
            with float32_products(torch.device(kind), precision):
                assert kind == "cpu" or by_backend()["cuda"] == expected
                assert by_onednn() in (True, False)
            assert by_backend() == said
        assert by_onednn() in (True, False)  # also where nothing is held
    finally:
        backend.fp32_precision = "none"
        torch.set_float32_matmul_precision(before)
        for name, value in found.items():
            getattr(torch.backends, name).matmul.fp32_precision = value


def by_backend() -> dict[str, str]:
    """What products are taken in, as torch has it since 2.9."""
    return {name: getattr(torch.backends, name).matmul.fp32_precision for name in ("cuda", "mkldnn")}


@pytest.mark.parametrize(
    ("capability", "rocm", "has_it"),
    [((7, 5), None, False), ((8, 0), None, True), ((9, 0), None, True), ((9, 4), "6.2", False)],
)
def test_tf32_is_refused_on_a_gpu_that_has_none(
    capability: tuple[int, int], rocm: str | None, has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "made up")
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.version, "hip", rocm)
    gpu = torch.device("cuda")
    device.check_gpu_has("float32", gpu)
    if has_it:
        device.check_gpu_has("tf32", gpu)
    else:
        with pytest.raises(Lacking, match=r"'tf32', which made up does not have.*capability 8\.0.*use float32, or"):
            device.check_gpu_has("tf32", gpu)


@pytest.mark.parametrize("has_it", [True, False])
def test_bfloat16_is_refused_on_a_gpu_of_which_torch_says_that_it_has_none(
    has_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (5, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "made up")
    monkeypatch.setattr(torch.cuda, "device", contextlib.nullcontext)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_it)
    if has_it:
        device.check_gpu_has("bfloat16", torch.device("cuda"))
    else:
        with pytest.raises(Lacking, match=r"'bfloat16', which made up does not have; use float32, or"):
            device.check_gpu_has("bfloat16", torch.device("cuda"))


def test_on_a_gpu_attention_is_not_cudnns() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    with float32_products(torch.device("cuda")):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert torch.backends.cuda.flash_sdp_enabled()
        assert torch.backends.cuda.mem_efficient_sdp_enabled()
        assert torch.backends.cuda.math_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


def test_tf32_is_refused_on_a_cpu() -> None:
    check_precision("tf32", "cuda")
    with pytest.raises(ValueError, match=r"precision is 'tf32'.*use float32 or bfloat16 on a CPU"):
        check_precision("tf32", "cpu")


@pytest.mark.parametrize(("said", "refused"), [("1", "float32"), ("0", "tf32")])
def test_what_nvidias_override_would_change_is_refused(
    said: str, refused: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", said)
    for precision in get_args(Precision):
        if precision != refused:
            check_precision(precision, "cuda")
    with pytest.raises(ValueError, match=f"NVIDIA_TF32_OVERRIDE={said} makes .* '{refused}' .*unset it"):
        check_precision(refused, "cuda")
    if refused == "float32":
        check_precision(refused, "cpu")
