"""The proxy: a GPT as functions over a leading trial axis.

Comparable with nanoGPT at bias=False: pre-LayerNorm with gain only, exact GELU, learned positions, four-fold MLP,
readout tied to the token embedding (untied as an option), no dropout. The model receives numbers and knows no
scheme: weights already initialized by the rules, and three multipliers per trial.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hpsweep.parametrization import masks as mask_rules
from hpsweep.parametrization.rules import SPARSE, attention_scale, readout_multiplier, tensor_numbers, tensors
from hpsweep.spec import Trial

Parameters = dict[str, Tensor]
"""Name -> (trial, *shape); names and shapes as in `parametrization.rules.tensors`."""

Watch = Callable[[str, Tensor, Tensor | None], None]
"""Is given every activation, trial axis first, by the name of the tensor that makes it, in the order of the pass.

Last is what a hidden matrix was multiplied with; of other activations None.
"""


class Multipliers(NamedTuple):
    """Forward multipliers, one of each per trial; they act in training and evaluation alike."""

    embedding: Float[Tensor, " trial"]
    attention: Float[Tensor, " trial"]
    readout: Float[Tensor, " trial"]


def multipliers(trials: Sequence[Trial], vocabulary: int) -> Multipliers:
    """The forward multipliers of every trial, by the rules."""
    return Multipliers(
        embedding=torch.tensor([tensor_numbers(t, vocabulary)["embedding.token"].forward for t in trials]),
        attention=torch.tensor([attention_scale(t) for t in trials]),
        readout=torch.tensor([readout_multiplier(t) for t in trials]),
    )


def masks(trials: Sequence[Trial], vocabulary: int) -> dict[str, Bool[Tensor, "trial fan_out fan_in"]]:
    """Which weights exist, for every hidden matrix; {} if all trials are dense."""
    if all(trial.density == 1 for trial in trials):
        return {}
    result = {}
    for name, (shape, kind) in tensors(trials[0], vocabulary).items():
        if kind in SPARSE:
            drawn = {(t.seed, t.density): mask_rules.mask(t.seed, name, shape, t.density) for t in trials}
            result[name] = torch.from_numpy(np.stack([drawn[t.seed, t.density] for t in trials]))
    return result


def initial_parameters(trials: Sequence[Trial], vocabulary: int) -> Parameters:
    """Initial weights: unit normals by (seed, tensor name), times the trial's init std, times its mask; gains 1.

    Trials of one seed start from the same normals, so that differences between their settings are paired.
    """
    kept = masks(trials, vocabulary)
    numbers = [tensor_numbers(t, vocabulary) for t in trials]
    result = {}
    for name, (shape, kind) in tensors(trials[0], vocabulary).items():
        if kind == "norm":
            result[name] = torch.ones(len(trials), *shape)
            continue
        drawn = {seed: _normals(seed, name, shape) for seed in {t.seed for t in trials}}
        result[name] = torch.stack([drawn[t.seed] * n[name].init_std for t, n in zip(trials, numbers, strict=True)])
        if name in kept:
            result[name] *= kept[name]
    return result


def _normals(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    draws = np.random.Generator(mask_rules.generator("init", seed, name)).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(draws)


def _unwatched(name: str, x: Tensor, made_from: Tensor | None) -> None:
    pass


def logits(
    parameters: Parameters,
    multiply: Multipliers,
    inputs: Int[Tensor, "trial batch context"],
    *,
    head_size: int,
    watch: Watch = _unwatched,
) -> Float[Tensor, "trial batch context vocabulary"]:
    """Next-token logits. Nothing here mixes trials: every product is batched over the trial axis.

    `watch` also sees the residual stream ("embedding", "block0", ...) and the attention logits
    ("block0.attention.logits"; trial, causal pairs).
    """
    trial, batch, context = inputs.shape
    token = parameters["embedding.token"]
    x = _look_up(token, inputs) + parameters["embedding.position"][:, None, :context]
    x = x * _over(x, multiply.embedding)
    x = x.view(trial, batch * context, -1)  # (trial, batch x context, width) from here on
    watch("embedding", x, None)
    block = 0
    while f"block{block}.norm1" in parameters:
        p = {name: parameters[f"block{block}.{name}"] for name in _BLOCK}
        x = _block(p, multiply, x, batch=batch, head_size=head_size, watch=_within(f"block{block}", watch))
        block += 1
    x = _norm(x, parameters["norm"])
    watch("norm", x, None)
    x = x * _over(x, multiply.readout)
    scores = _linear(x, parameters.get("readout", token)).view(trial, batch, context, -1)
    watch("readout", scores, None)
    return scores


def _within(block: str, watch: Watch) -> Watch:
    """The watch that is told a tensor's whole name; of no watch, the same."""
    if watch is _unwatched:
        return watch
    return lambda name, x, made_from: watch(f"{block}.{name}".removesuffix("."), x, made_from)


_BLOCK = ("norm1", "attention.qkv", "attention.out", "norm2", "mlp.in", "mlp.out")


def _block(
    p: Parameters,
    multiply: Multipliers,
    x: Float[Tensor, "trial tokens width"],
    *,
    batch: int,
    head_size: int,
    watch: Watch,
) -> Float[Tensor, "trial tokens width"]:
    normed = _norm(x, p["norm1"])
    watch("norm1", normed, None)
    x = x + _attention(p, multiply, normed, batch=batch, head_size=head_size, watch=watch)
    normed = _norm(x, p["norm2"])
    watch("norm2", normed, None)
    hidden = _linear(normed, p["mlp.in"])  # (trial, batch x context, 4 width)
    watch("mlp.in", hidden, normed)
    hidden = F.gelu(hidden)
    out = _linear(hidden, p["mlp.out"])
    watch("mlp.out", out, hidden)
    x = x + out
    watch("", x, None)
    return x


def losses(
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
    multiply: Multipliers,
    x: Float[Tensor, "trial tokens width"],
    *,
    batch: int,
    head_size: int,
    watch: Watch,
) -> Float[Tensor, "trial tokens width"]:
    trial, tokens, width = x.shape
    context = tokens // batch
    qkv = _linear(x, p["attention.qkv"])  # (trial, tokens, 3 width)
    watch("attention.qkv", qkv, x)
    qkv = qkv.view(trial * batch, context, 3, width // head_size, head_size)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (trial x batch, heads, context, head_size)
    q = (q.view(trial, batch, *q.shape[1:]) * _over(q[None], multiply.attention, dims=5)).flatten(0, 1)
    if watch is not _unwatched:
        past = torch.ones(context, context, dtype=torch.bool, device=q.device).tril()
        watch("attention.logits", (q @ k.transpose(-2, -1))[..., past].view(trial, -1, int(past.sum())), None)
    if q.dtype == torch.bfloat16 and q.device.type == "cpu":
        y = _plain_attention(q, k, v)
    else:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    y = y.transpose(1, 2).reshape(trial, tokens, width)
    out = _linear(y, p["attention.out"])
    watch("attention.out", out, y)
    return out


def _plain_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    # The backward pass of torch's fused bfloat16 attention is several times slower than this on CPU.
    context = q.shape[-2]
    future = torch.ones(context, context, dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ k.transpose(-2, -1)).masked_fill(future, -torch.inf)
    return scores.softmax(-1) @ v


def _linear(
    x: Float[Tensor, "trial tokens fan_in"], weight: Float[Tensor, "trial fan_out fan_in"]
) -> Float[Tensor, "trial tokens fan_out"]:
    return torch.bmm(x, weight.transpose(1, 2))


def _norm(
    x: Float[Tensor, "trial tokens width"], gain: Float[Tensor, "trial width"]
) -> Float[Tensor, "trial tokens width"]:
    return F.layer_norm(x, x.shape[-1:]) * gain[:, None]


def _look_up(
    table: Float[Tensor, "trial vocabulary width"], ids: Int[Tensor, "trial batch context"]
) -> Float[Tensor, "trial batch context width"]:
    trial, vocabulary, width = table.shape
    first = torch.arange(trial, device=ids.device).view(-1, 1, 1) * vocabulary
    return F.embedding(ids + first, table.reshape(trial * vocabulary, width))


def _over(x: Tensor, per_trial: Float[Tensor, " trial"], dims: int | None = None) -> Tensor:
    """One number per trial, shaped to multiply a tensor with the trial axis first."""
    return per_trial.view(-1, *[1] * ((dims or x.dim()) - 1)).to(x.dtype)
