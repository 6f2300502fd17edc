"""The proxy: a GPT as functions over a leading trial axis.

Comparable with nanoGPT at bias=False: pre-LayerNorm with gain only, exact GELU, learned positions, four-fold MLP,
readout tied to the token embedding (untied as an option), no dropout. The model receives numbers and knows no
scheme: weights already initialized by the rules, and three multipliers per trial.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hpsweep.architectures import SPARSE, tensors
from hpsweep.proxy.device import by_onednn
from hpsweep.rules import masks as mask_rules
from hpsweep.rules.multipliers import attention_scale, readout_multiplier, tensor_numbers
from hpsweep.spec import Trial

Parameters = dict[str, Tensor]
"""Name -> (trial, *shape); names and shapes as in `architectures.tensors`."""

Job = TypeVar("Job")
Drawn = TypeVar("Drawn")
CPU = torch.device("cpu")

PLAIN_CONTEXT = 256
"""Tokens up to which attention as product, softmax, product is the faster one on a CPU whose products oneDNN does."""


class Multipliers(NamedTuple):
    """Forward multipliers, one of each per trial; they act in training and evaluation alike."""

    embedding: Float[Tensor, " trial"]
    attention: Float[Tensor, " trial"]
    readout: Float[Tensor, " trial"]


def forward_multipliers(trials: Sequence[Trial], vocabulary: int) -> Multipliers:
    """The forward multipliers of every trial, by the rules."""
    return Multipliers(
        embedding=torch.tensor([tensor_numbers(t, vocabulary)["embedding.token"].forward for t in trials]),
        attention=torch.tensor([attention_scale(t) for t in trials]),
        readout=torch.tensor([readout_multiplier(t) for t in trials]),
    )


def hidden_masks(
    trials: Sequence[Trial], vocabulary: int, device: torch.device = CPU
) -> dict[str, Bool[Tensor, "trial fan_out fan_in"]]:
    """Which weights exist: True or False for every weight of every hidden matrix; {} if all trials are dense."""
    if all(trial.density == 1 for trial in trials):
        return {}
    shapes = {name: shape for name, (shape, kind) in tensors(trials[0], vocabulary).items() if kind in SPARSE}
    # Trials of one seed and density have the same masks, which are drawn once.
    of_trials = [(trial.seed, trial.density) for trial in trials]
    settings = list(dict.fromkeys(of_trials))
    chosen = torch.tensor([settings.index(setting) for setting in of_trials], device=device)

    def draw(job: tuple[str, tuple[int, float]]) -> npt.NDArray[np.bool_]:
        name, (seed, density) = job
        return mask_rules.mask(seed, name, shapes[name], density)

    drawn = _in_threads(draw, itertools.product(shapes, settings))
    masks = {}
    for name in shapes:
        by_setting = np.stack([next(drawn) for _ in settings])
        masks[name] = torch.from_numpy(by_setting).to(device).index_select(0, chosen)
    return masks


def initial_parameters(
    trials: Sequence[Trial],
    vocabulary: int,
    device: torch.device = CPU,
    *,
    kept: Mapping[str, Bool[Tensor, "trial fan_out fan_in"]] | None = None,
) -> Parameters:
    """Initial weights: unit normals by (seed, tensor name), times the trial's init std, times its mask; gains 1.

    Trials of one seed start from the same normals, so that differences between their settings are paired. `kept`: the
    trials' masks on the device, where they have been drawn already.
    """
    if kept is None:
        kept = hidden_masks(trials, vocabulary, device)
    numbers = [tensor_numbers(t, vocabulary) for t in trials]
    shapes = {name: shape for name, (shape, kind) in tensors(trials[0], vocabulary).items() if kind != "norm"}
    seeds = list(dict.fromkeys(t.seed for t in trials))

    def draw(job: tuple[str, int]) -> npt.NDArray[np.float32]:
        name, seed = job
        return mask_rules.initial_normals(seed, name, shapes[name])

    drawn = _in_threads(draw, itertools.product(shapes, seeds))
    result = {}
    for name, (shape, kind) in tensors(trials[0], vocabulary).items():
        if kind == "norm":
            result[name] = torch.ones(len(trials), *shape, device=device)
            continue
        normals = {seed: torch.from_numpy(next(drawn)).to(device) for seed in seeds}
        weights = [normals[t.seed] * n[name].init_std for t, n in zip(trials, numbers, strict=True)]
        result[name] = torch.stack(weights)
        if name in kept:
            result[name] *= kept[name]
    return result


def _in_threads(draw: Callable[[Job], Drawn], jobs: Iterable[Job]) -> Iterator[Drawn]:
    """What each job draws, in their order, by as many threads as torch uses: numpy draws without Python's lock."""
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        return iter(list(threads.map(draw, jobs)))


def folded_parameters(parameters: Parameters, multiply: Multipliers) -> Parameters:
    """Parameters of the same model that needs fewer passes over its tokens: without gains, which are in the matrices.

    A gain multiplies the columns of the next matrix, with it the readout multiplier those of the readout, and the
    attention multiplier the rows that make queries: all in the precision of the weights. Gradients pass through.
    """
    p = dict(parameters)
    block = 0
    while f"block{block}.norm1" in p:
        qkv = f"block{block}.attention.qkv"
        up = f"block{block}.mlp.in"
        query, others = p[qkv].tensor_split((p[qkv].shape[1] // 3,), dim=1)
        # The attention multiplier goes into the rows that make queries, gains into the columns of the next matrix.
        scaled = torch.cat([query * _over(query, multiply.attention), others], 1)
        gain1 = p.pop(f"block{block}.norm1")
        gain2 = p.pop(f"block{block}.norm2")
        p[qkv] = scaled * gain1[:, None]
        p[up] = p[up] * gain2[:, None]
        block += 1
    # The last gain and the readout multiplier go into the columns of the readout.
    gain = p.pop("norm")
    scale = gain * _over(gain, multiply.readout)
    p["readout"] = p.get("readout", p["embedding.token"]) * scale[:, None]
    return p


def logits(
    parameters: Parameters, multiply: Multipliers, inputs: Int[Tensor, "trial batch context"], *, head_size: int
) -> Float[Tensor, "trial batch context vocabulary"]:
    """Next-token logits. Nothing here mixes trials: every product is batched over the trial axis.

    Of `folded_parameters` the embedding multiplier is the only one that acts here.
    """
    trial, batch, context = inputs.shape
    is_folded = "norm" not in parameters
    attention: Tensor | None = multiply.attention
    if is_folded:  # the multiplier is in the matrices
        attention = None
    token = parameters["embedding.token"]
    x = _look_up(token, inputs) + parameters["embedding.position"][:, None, :context]
    x = x * _over(x, multiply.embedding)
    x = x.view(trial, batch * context, -1)  # (trial, batch x context, width) from here on
    block = 0
    while f"block{block}.mlp.in" in parameters:
        p = {name: parameters[f"block{block}.{name}"] for name in _MATRICES}
        gain1, gain2 = (parameters.get(f"block{block}.{name}") for name in ("norm1", "norm2"))
        x = x + _attention(p, attention, _norm(x, gain1), batch=batch, head_size=head_size)
        hidden = F.gelu(_linear(_norm(x, gain2), p["mlp.in"]))  # (trial, batch x context, 4 width)
        x = x + _linear(hidden, p["mlp.out"])
        block += 1
    x = _norm(x, parameters.get("norm"))
    if not is_folded:
        x = x * _over(x, multiply.readout)
    return _linear(x, parameters.get("readout", token)).view(trial, batch, context, -1)


_MATRICES = ("attention.qkv", "attention.out", "mlp.in", "mlp.out")


def sequence_losses(
    parameters: Parameters,
    multiply: Multipliers,
    inputs: Int[Tensor, "trial batch context"],
    targets: Int[Tensor, "trial batch context"],
    *,
    head_size: int,
) -> Float[Tensor, "trial batch"]:
    """Mean cross-entropy of every sequence, nats/token."""
    scores = logits(parameters, multiply, inputs, head_size=head_size)
    each = F.cross_entropy(scores.flatten(0, 2).float(), targets.flatten(), reduction="none")
    return each.view(targets.shape).mean(-1)


def _attention(
    p: Parameters,
    multiplier: Float[Tensor, " trial"] | None,
    x: Float[Tensor, "trial tokens width"],
    *,
    batch: int,
    head_size: int,
) -> Float[Tensor, "trial tokens width"]:
    trial, tokens, width = x.shape
    context = tokens // batch
    qkv = _linear(x, p["attention.qkv"])  # (trial, tokens, 3 width)
    qkv = qkv.view(trial * batch, context, 3, width // head_size, head_size)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (trial x batch, heads, context, head_size)
    if multiplier is not None:
        q = (q.view(trial, batch, *q.shape[1:]) * _over(q[None], multiplier, dims=5)).flatten(0, 1)
    if q.device.type == "cpu" and (q.dtype == torch.bfloat16 or (by_onednn() and context <= PLAIN_CONTEXT)):
        y = _plain_attention(q, k, v)
    else:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    y = y.transpose(1, 2).reshape(trial, tokens, width)
    return _linear(y, p["attention.out"])


def _plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # Faster on CPU than torch's fused attention: several times where its backward pass is in bfloat16, and where its
    # many small products go to oneDNN, twice up to the context at which the scores outgrow the cache.
    shape = q.shape
    context = shape[-2]
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    future = torch.full((context, context), -torch.inf, dtype=q.dtype, device=q.device).triu(1)
    scores = (q @ k.mT).add_(future)  # (trial x batch x heads, context, context)
    return (scores.softmax(-1) @ v).view(shape)


def _linear(
    x: Float[Tensor, "trial tokens fan_in"], weight: Float[Tensor, "trial fan_out fan_in"]
) -> Float[Tensor, "trial tokens fan_out"]:
    return torch.bmm(x, weight.transpose(1, 2))


def _norm(
    x: Float[Tensor, "trial tokens width"], gain: Float[Tensor, "trial width"] | None
) -> Float[Tensor, "trial tokens width"]:
    if gain is not None:
        return F.layer_norm(x, x.shape[-1:]) * gain[:, None]
    if torch.compiler.is_compiling():
        standardized: Tensor = _Standardized.apply(x, _product_dtype(x))[0]  # type: ignore[no-untyped-call]
        return standardized
    return F.layer_norm(x, x.shape[-1:])


def _product_dtype(x: Tensor) -> torch.dtype:
    """What a product turns x into."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


class _Standardized(torch.autograd.Function):
    """Layer norm without a gain, in the dtype of the product that takes it.

    Its backward pass reads this result, which the product keeps too, and not the residual stream, which is twice as
    large in half precision: a compiled step then need not keep that at all.
    """

    @staticmethod
    def forward(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        y, _, inverse = torch.native_layer_norm(x, x.shape[-1:], None, None, 1e-5)
        return y.to(dtype), inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: tuple[Tensor, Tensor]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, by_y: Tensor, _: Tensor) -> tuple[Tensor, None]:
        y, inverse = ctx.saved_tensors
        g = by_y.float()
        y = y.float()
        along = (g * y).mean(-1, keepdim=True)
        return inverse * (g - g.mean(-1, keepdim=True) - y * along), None


def _look_up(
    table: Float[Tensor, "trial vocabulary width"], ids: Int[Tensor, "trial batch context"]
) -> Float[Tensor, "trial batch context width"]:
    trial, vocabulary, width = table.shape
    if table.is_cuda:
        return _gathered(table, ids)
    first = torch.arange(trial, device=ids.device).view(-1, 1, 1) * vocabulary
    return F.embedding(ids + first, table.reshape(trial * vocabulary, width))


def _gathered(
    table: Float[Tensor, "trial vocabulary width"], ids: Int[Tensor, "trial batch context"]
) -> Float[Tensor, "trial batch context width"]:
    # The backward pass of torch's embedding sorts many ids and may wait for the GPU, which no CUDA graph can hold
    # (pytorch issue 82886); on a CPU it is the faster one.
    places = ids.flatten(1)[..., None].expand(-1, -1, table.shape[-1])
    return table.gather(1, places).view(*ids.shape, -1)


def _over(x: Tensor, per_trial: Float[Tensor, " trial"], dims: int | None = None) -> Tensor:
    """One number per trial, shaped to multiply a tensor with the trial axis first."""
    return per_trial.view(-1, *[1] * ((dims or x.dim()) - 1)).to(x.dtype)
