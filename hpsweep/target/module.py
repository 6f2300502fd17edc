"""The model of a target run: the proxies' own, an ensemble of one inside a torch.nn.Module.

So a target differs from a proxy in size only. A module is what torch.compile and DistributedDataParallel take.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hpsweep.proxy import model
from hpsweep.spec import Trial


class ReferenceGPT(nn.Module):
    """The proxies' GPT of one trial: parameters with a trial axis of 1, named as in `architectures.tensors`."""

    def __init__(self, trial: Trial, vocabulary: int, device: torch.device, masks: Mapping[str, Tensor]) -> None:
        super().__init__()
        initial = model.initial_parameters([trial], vocabulary, device, kept=masks)
        self.names = tuple(initial)  # a module's own parameter names cannot have dots
        self.weights = nn.ParameterList(initial.values())
        self.head_size = trial.head_size
        # no buffers, which DistributedDataParallel would send around in every step
        self.multipliers = model.Multipliers(*(m.to(device) for m in model.forward_multipliers([trial], vocabulary)))

    def parameters_by_name(self) -> model.Parameters:
        """The tensors without autograd, by name: the same memory."""
        return {name: weight.detach() for name, weight in zip(self.names, self.weights, strict=True)}

    def forward(
        self, inputs: Int[Tensor, "batch context"], targets: Int[Tensor, "batch context"]
    ) -> Float[Tensor, "1 batch"]:
        """Mean cross-entropy of every sequence, nats/token."""
        weights = dict(zip(self.names, self.weights, strict=True))
        return model.sequence_losses(weights, self.multipliers, inputs[None], targets[None], head_size=self.head_size)
