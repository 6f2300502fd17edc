"""The divergence rule by hand, for what each engine asks it with."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hpsweep.proxy.divergence import loss_limit


def test_the_limit_is_twice_the_first_loss_or_that_of_uniform_guessing_whichever_is_larger() -> None:
    assert loss_limit(np.float64(6.0), 256) == 12.0
    assert loss_limit(np.float64(4.0), 256) == 2 * math.log(256)  # 5.545 nats/token
    assert math.isnan(loss_limit(np.float64("nan"), 256))


def test_trials_of_a_tensor_have_a_limit_each_equal_to_that_of_a_number() -> None:
    first = torch.tensor([6.0, 4.0, math.nan], dtype=torch.float64)
    limits = loss_limit(first, 256)
    assert limits.tolist() == pytest.approx([12.0, 2 * math.log(256), math.nan], rel=0, abs=0, nan_ok=True)
    assert limits.numpy() == pytest.approx(loss_limit(first.numpy(), 256), rel=0, abs=0, nan_ok=True)
