"""What a known layer makes of its weights and its input."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from hpsweep.own_model.tensors.roles import is_transposed
from hpsweep.own_model.tensors.uses import Use, full_tensor


def is_layer(module: nn.Module) -> bool:
    """Whether `product_of_weights` knows what the module does with its weights."""
    return isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) or is_transposed(module)


def product_of_weights(use: Use, given: Tensor) -> Tensor | None:
    """The layer's weights applied to its input, without bias; None for a layer that is not known."""
    module = use.module
    weight = full_tensor(getattr(module, use.local)).to(given.dtype)
    if isinstance(module, nn.Linear):
        if given.shape[-1] == weight.shape[-1]:
            return F.linear(given, weight)
        if given.shape[-1] == weight.shape[0]:  # a subclass that keeps it as (in, out)
            return given @ weight
        return None
    if is_transposed(module):
        return given @ weight
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        convolution: Any = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}
        function = next(f for kind, f in convolution.items() if isinstance(module, kind))
        padded: Tensor = function(given, weight, None, module.stride, module.padding, module.dilation, module.groups)
        if module.padding_mode == "zeros":
            return padded
    return None


def product_and_bias(use: Use, product: Tensor) -> list[Tensor]:
    """The product, and the layer's bias if that is not zero, in the product's shape."""
    bias = getattr(use.module, "bias", None)
    if bias is None or not full_tensor(bias).any():
        return [product]
    bias = full_tensor(bias).to(product.dtype)
    is_convolution = isinstance(use.module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    shape = (-1, *[1] * (product.dim() - 2)) if is_convolution else (-1,)
    return [product, bias.view(shape).broadcast_to(product.shape)]
