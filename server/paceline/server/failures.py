"""Counts failed joins by address, in bounded memory, so that who fails often is answered without a look or a line."""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections import OrderedDict

FAILURES = 10
WINDOW_S = 60.0
ADDRESSES = 1024


def address_of(peer: str) -> str:
    """Give what limits go by: a peer's address without its port; of IPv6 the network that one customer has.

    Args:
        peer: as gRPC says it, ``ipv4:192.0.2.7:1234`` or ``ipv6:%5B2001:db8::1%5D:1234``.
    """
    kind, _, rest = urllib.parse.unquote(peer).partition(":")
    host = rest.rpartition(":")[0].strip("[]")
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return peer if kind not in ("ipv4", "ipv6") else host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        if not address.is_loopback:
            return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def is_loopback(peer: str) -> bool:
    """Tell whether a peer is on this machine."""
    try:
        return ipaddress.ip_address(address_of(peer)).is_loopback
    except ValueError:
        return peer.startswith("unix:")


class Failures:
    """Failed joins: after FAILURES of them an address must wait until WINDOW_S are over."""

    def __init__(self) -> None:
        # By address: since when, and how many. The oldest go first.
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counts)

    def wait_s(self, address: str, now_s: float) -> float:
        """Give how long an address must wait; 0: not at all."""
        since_s, count = self._counts.get(address, (now_s, 0))
        return max(0.0, since_s + WINDOW_S - now_s) if count >= FAILURES else 0.0

    def note(self, address: str, now_s: float) -> None:
        """Count a failure."""
        since_s, count = self._counts.get(address, (now_s, 0))
        if now_s - since_s >= WINDOW_S:
            del self._counts[address]
            since_s, count = now_s, 0
        self._counts[address] = (since_s, min(count + 1, FAILURES))
        if len(self._counts) > ADDRESSES:
            self._counts.popitem(last=False)
