"""What scripts that were exported call, whose files users keep: the check that a plan has the sizes of its card."""

from __future__ import annotations

from hpsweep.own_model.card_sizes import check_plan as check_plan
