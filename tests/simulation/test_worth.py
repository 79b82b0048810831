"""What a round is worth: held against sums made by hand where times do not vary."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("numba")

from paceline.errors import UsageError
from paceline.link_rates import ROUND_OVERHEAD_S
from paceline.simulation.experiments.listener import Nobody
from paceline.simulation.experiments.worth import (
    ALONE,
    DDP,
    LeftOut,
    Machines,
    Way,
    enough_tasks,
    left_out,
    verdict,
    ways,
)
from paceline.simulation.shapes import parse_shape

LINK = 1e8


def machines(*means_s: float, **changes: Any) -> Machines:
    n = len(means_s)
    made = Machines(
        names=tuple(f"w{number}" for number in range(1, n + 1)),
        means_s=means_s,
        links=(LINK,) * n,
        prices=(1.0,) * n,
        server_link=LINK,
        pull_bytes=1e6,
        push_bytes=1e6,
        tasks=12,
        law=parse_shape("const"),
    )
    return replace(made, **changes)


def found(asked: Machines, policy: str = "fixed") -> tuple[Way, Way, Way]:
    best, ddp, alone = ways(asked, [policy], 50, 0, Nobody())
    return best, ddp, alone


def test_a_round_is_the_best_split_and_the_transfer_of_all_over_the_servers_link() -> None:
    # 12 tasks: 6 x 0.1 = 4 x 0.15 = 2 x 0.3.
    best, _, _ = found(machines(0.1, 0.15, 0.3, prices=(3.0, 1.0, 0.5)))
    transfer_s = ROUND_OVERHEAD_S + 3 * 2e6 / LINK
    assert best.tasks == pytest.approx((6.0, 4.0, 2.0))
    assert best.transfer_s == pytest.approx(transfer_s)
    assert best.round_s == pytest.approx(0.6 + transfer_s)
    assert best.busy_s == pytest.approx(1.8)
    assert best.rented == pytest.approx(4.5 * best.round_s / 3600)
    assert best.used == pytest.approx(4.5 * (0.6 + transfer_s) / 3600)


def test_a_slow_link_holds_up_the_round_where_its_worker_has_tasks() -> None:
    best, _, _ = found(machines(0.1, 0.1, links=(LINK, LINK / 100)))
    assert best.transfer_s == pytest.approx(ROUND_OVERHEAD_S + 2e6 / (LINK / 100))
    # Too slow for a task, so its link does not matter.
    other, _, _ = found(machines(0.1, 9.9, links=(LINK, LINK / 100)))
    assert other.tasks == pytest.approx((12.0, 0.0))
    assert other.transfer_s == pytest.approx(ROUND_OVERHEAD_S + 2e6 / LINK)


def test_ddp_does_as_many_tasks_everywhere_and_hides_its_ring() -> None:
    _, ddp, _ = found(machines(0.1, 0.15, 0.3))
    assert (ddp.round_s, ddp.transfer_s, ddp.busy_s) == pytest.approx((4 * 0.3, 0.0, 4 * 0.55))
    _, slow, _ = found(machines(0.1, 0.15, 0.3, links=(LINK / 1000,) * 3))
    assert slow.round_s == pytest.approx(2 * 2 / 3 * 1e6 / (LINK / 1000))
    assert slow.transfer_s == pytest.approx(slow.round_s - 1.2)


def test_the_fastest_machine_alone_transfers_nothing_and_is_paid_alone() -> None:
    _, _, alone = found(machines(0.3, 0.1, prices=(1.0, 2.0)))
    assert (alone.name, alone.tasks) == ("w2 alone", (0.0, 12.0))
    assert alone.round_s == pytest.approx(1.2)
    assert alone.rented == alone.used == pytest.approx(2.0 * 1.2 / 3600)


def test_noise_makes_rounds_longer_but_for_who_takes_the_first_results() -> None:
    still = found(machines(0.1, 0.15, 0.3))[0]
    noisy = found(machines(0.1, 0.15, 0.3, law=parse_shape("exp")))[0]
    assert noisy.round_s > still.round_s
    greedy = ways(machines(0.1, 0.15, 0.3, law=parse_shape("exp")), ["greedy"], 500, 0, Nobody())[0]
    assert greedy.round_s < noisy.round_s


def judged(asked: Machines) -> tuple[str, tuple[str, ...]]:
    best, ddp, alone = found(asked)
    return verdict(best, ddp, alone, left_out(asked, "fixed", 50, 0, Nobody()))


def test_each_advice_is_given_where_it_is_due() -> None:
    assert judged(machines(0.1, 0.15, 0.3)) == ("fixed", ())
    assert judged(machines(0.1, 0.1, 0.1)) == (DDP, ())
    assert judged(machines(0.1, 0.8, 0.8, pull_bytes=1e9, push_bytes=1e9)) == (ALONE, ())
    # With its one task in twelve it holds up nobody, and saves next to nothing.
    assert judged(machines(0.1, 0.12, 3.0)) == ("fixed", ("w3",))


def test_a_worker_that_costs_nothing_is_not_left_out() -> None:
    free = judged(machines(0.1, 0.12, 3.0, prices=(1.0, 1.0, 0.0)))
    assert free == ("fixed", ())


def test_what_a_round_is_without_each_worker() -> None:
    without = left_out(machines(0.1, 0.15, 0.3), "fixed", 50, 0, Nobody())
    assert [other.worker for other in without] == ["w1", "w2", "w3"]
    assert without[2].way.tasks == pytest.approx((7.0, 5.0))
    assert left_out(machines(0.1), "fixed", 50, 0, Nobody()) == []


def test_more_tasks_an_update_make_up_for_transfer() -> None:
    asked = machines(0.1, 0.15, 0.3, pull_bytes=2e7, push_bytes=2e7)
    assert judged(asked)[0] == ALONE
    enough = enough_tasks(asked, "fixed", 50, 0, Nobody())
    assert enough is not None
    assert judged(replace(asked, tasks=enough))[0] == "fixed"
    assert judged(replace(asked, tasks=enough // 2))[0] != "fixed"


def test_a_policy_that_needs_more_workers_is_refused() -> None:
    with pytest.raises(UsageError, match="policy cmab-kl employs 12 workers a round, but there are 2"):
        ways(machines(0.1, 0.2), ["cmab-kl"], 50, 0, Nobody())


def test_times_of_no_meaning_are_refused() -> None:
    with pytest.raises(UsageError):
        machines(0.1, -1.0)


def test_the_verdict_names_all_that_are_useless() -> None:
    best = Way(name="p", round_s=1.0, transfer_s=0.0, busy_s=1.0, rented=3.0, used=1.0, tasks=(1.0,))
    cheap, dear = replace(best, round_s=1.01, rented=2.0), replace(best, round_s=1.5, rented=2.0)
    slow = replace(best, round_s=9.0)
    others = [LeftOut("a", cheap), LeftOut("b", dear), LeftOut("c", cheap)]
    assert verdict(best, slow, slow, others) == ("p", ("a", "c"))
