from __future__ import annotations

import pytest

from paceline.server.failures import ADDRESSES, FAILURES, WINDOW_S, Failures, address_of, is_loopback
from paceline.server.waiting import IN_ALL, PER_ADDRESS, WaitingRoom


@pytest.mark.parametrize(
    ("peer", "address", "loopback"),
    [
        ("ipv4:127.0.0.1:5000", "127.0.0.1", True),
        ("ipv4:192.0.2.7:1", "192.0.2.7", False),
        ("ipv6:%5B::1%5D:5000", "::1", True),
        ("ipv6:[::1]:5000", "::1", True),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:5000", "2001:db8:1:2::/64", False),
        ("ipv6:%5Bfe80::1%25eth0%5D:5000", "fe80::/64", False),
        ("ipv6:%5B::ffff:192.0.2.7%5D:5000", "192.0.2.7", False),
        ("ipv6:%5B::ffff:127.0.0.1%5D:5000", "127.0.0.1", True),
        ("unix:/tmp/socket", "unix:/tmp/socket", True),
        ("", "", False),
        ("ipv4:", "", False),
        ("nonsense", "nonsense", False),
    ],
)
def test_limits_go_by_address_or_by_the_network_of_one_customer(peer: str, address: str, loopback: bool) -> None:
    assert (address_of(peer), is_loopback(peer)) == (address, loopback)


def test_an_address_waits_after_so_many_failures_until_the_window_is_over() -> None:
    failures = Failures()
    for number in range(FAILURES):
        assert failures.wait_s("a", number) == 0.0
        failures.note("a", float(number))
    assert failures.wait_s("a", 10.0) == WINDOW_S - 10.0
    assert failures.wait_s("b", 10.0) == 0.0
    assert failures.wait_s("a", WINDOW_S) == 0.0
    failures.note("a", WINDOW_S)
    assert failures.wait_s("a", WINDOW_S + 1) == 0.0


def test_failures_of_a_million_addresses_keep_a_thousand() -> None:
    failures = Failures()
    for number in range(50 * ADDRESSES):
        failures.note(f"a{number}", 0.0)
    assert len(failures) == ADDRESSES


def test_an_address_has_so_many_seats_and_gets_them_back() -> None:
    room = WaitingRoom()
    seats = [room.take("a") for _ in range(PER_ADDRESS)]
    assert room.take("a") is None
    assert room.take("b") is not None
    first = seats[0]
    assert first is not None
    first.free()
    first.free()
    assert room.take("a") is not None
    assert room.take("a") is None
    assert len(room) == PER_ADDRESS + 1


def test_there_are_so_many_seats_in_all() -> None:
    room = WaitingRoom()
    seats = [room.take(f"a{number // PER_ADDRESS}") for number in range(IN_ALL)]
    assert all(seats)
    assert room.take("z") is None
    for seat in seats:
        assert seat is not None
        seat.free()
    assert len(room) == 0
    assert room.take("z") is not None
