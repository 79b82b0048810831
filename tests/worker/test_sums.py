from __future__ import annotations

import torch

from paceline.contribution import ContributionBuffer
from paceline.layout import ContributionLayout, Rule, Segment
from paceline.worker.sums import SumPool

LAYOUT = ContributionLayout((Segment("trainable.float32", "float32", 16, Rule.SUM, 0, 0),))


def test_sum_stays_with_its_lease_until_it_is_not_held_and_comes_back_empty() -> None:
    made: list[ContributionBuffer] = []

    def make() -> ContributionBuffer:
        made.append(ContributionBuffer(LAYOUT))
        return made[-1]

    pool = SumPool(make)
    first = pool.of(1, {1})
    first.segments[0].fill_(3.0)
    first.lowest_task = 5
    assert pool.of(1, {1}) is first
    assert pool[1] is first
    second = pool.of(2, {1, 2})
    assert second is not first
    # Lease 1 is answered: its bytes may be used again, and nothing of it is left in them.
    third = pool.of(3, {2, 3})
    assert third is first
    assert not torch.any(third.segments[0])
    assert third.lowest_task is None
    assert len(made) == 2


def test_sum_that_was_copied_is_free_at_once() -> None:
    pool = SumPool(lambda: ContributionBuffer(LAYOUT))
    first = pool.of(1, {1})
    pool.release(1)
    assert pool.of(2, {1, 2}) is first
