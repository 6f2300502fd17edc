"""The GPT of the proxies: token and position embedding, blocks of attention and MLP, final norm, readout.

Names are those of the model's parameters (`proxy.model`). The readout is the token embedding where it is tied.
"""

from __future__ import annotations

from hpsweep.architectures.inventory import FLOPS_OF_A_WEIGHT, Kind, ModelSizes, Tensors


def hidden_shapes(width: int, depth: int) -> dict[str, tuple[int, int]]:
    """(fan_out, fan_in) of every hidden matrix, by tensor name: four in each block."""
    block = {
        "attention.qkv": (3 * width, width),
        "attention.out": (width, width),
        "mlp.in": (4 * width, width),
        "mlp.out": (width, 4 * width),
    }
    return {f"block{i}.{name}": shape for i in range(depth) for name, shape in block.items()}


def tensors(model: ModelSizes, vocabulary: int) -> Tensors:
    """Token embedding (vocabulary, width), position embedding (context, width); the gains of two norms and the four
    hidden matrices of each block; the final norm; the readout (vocabulary, width) unless it is tied.
    """
    table: Tensors = {
        "embedding.token": ((vocabulary, model.width), "embedding"),
        "embedding.position": ((model.context, model.width), "embedding"),
    }
    matrices = hidden_shapes(model.width, model.depth)
    for i in range(model.depth):
        table[f"block{i}.norm1"] = table[f"block{i}.norm2"] = ((model.width,), "norm")
        for name in (name for name in matrices if name.startswith(f"block{i}.")):
            kind: Kind = "residual_out" if name.endswith(".out") else "hidden"
            table[name] = (matrices[name], kind)
    table["norm"] = ((model.width,), "norm")
    if not model.tied:
        table["readout"] = ((vocabulary, model.width), "readout")
    return table


def readout_tensor(model: ModelSizes) -> str:
    """The token embedding of a tied model, else a tensor of its own."""
    return "embedding.token" if model.tied else "readout"


def residual_streams(depth: int) -> dict[str, str]:
    """Before its attention a block is given what the block before returned; its second norm stands within."""
    norms: dict[str, str] = {}
    for i in range(depth):
        norms[f"block{i}.norm1"] = f"block{i - 1}" if i else "embedding"
        norms[f"block{i}.norm2"] = ""
    return {**norms, "norm": f"block{depth - 1}"}


def flops_per_token(model: ModelSizes, vocabulary: int, hidden_weights: int) -> int:
    """6 for every hidden weight that is multiplied and every readout weight, and 12 x depth x width x context for
    attention (logits and mixing, over all positions).
    """
    attention = 12 * model.depth * model.width * model.context
    return FLOPS_OF_A_WEIGHT * (hidden_weights + vocabulary * model.width) + attention
