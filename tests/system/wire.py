"""A network of its own for a worker: a namespace at the end of a veth pair, with counted faults. Needs root."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

_NUMBERS = itertools.count()


def why_not() -> str:
    """Say what is missing here, or nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "tc", "iptables"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed: apt-get install iproute2 iptables"
    probe = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)
    return "" if probe.returncode == 0 else f"no network namespaces here: {probe.stderr.strip()}"


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} gave {done.returncode}: {done.stderr.strip()}")
    return done.stdout


class Wire:
    """A veth pair between this machine and a namespace.

    Attributes:
        namespace: its name; `inside` is the command that runs another one there.
        host: this end's address, where a server listens; a worker inside dials it.
    """

    def __init__(self) -> None:
        own = (os.getpid() * 8 + next(_NUMBERS)) % (1 << 14)
        self.namespace = f"paceline-{own}"
        self.inside = ("ip", "netns", "exec", self.namespace)
        self._near, self._far = f"pace{own}n", f"pace{own}f"
        self.host = f"10.213.{own >> 6}.{(own & 63) * 4 + 1}"
        self._there = f"10.213.{own >> 6}.{(own & 63) * 4 + 2}"
        self._rules: list[tuple[str, ...]] = []

    def open(self) -> None:
        run("ip", "netns", "add", self.namespace)
        run("ip", "link", "add", self._near, "type", "veth", "peer", "name", self._far)
        run("ip", "link", "set", self._far, "netns", self.namespace)
        run("ip", "address", "add", f"{self.host}/30", "dev", self._near)
        run("ip", "link", "set", self._near, "up")
        run(*self.inside, "ip", "link", "set", "lo", "up")
        run(*self.inside, "ip", "address", "add", f"{self._there}/30", "dev", self._far)
        run(*self.inside, "ip", "link", "set", self._far, "up")

    def close(self) -> None:
        self.heal()
        # The pair goes with either end.
        subprocess.run(["ip", "link", "delete", self._near], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", self.namespace], capture_output=True, check=False)

    def drop(self, *, to_worker: bool = False, from_worker: bool = False, chance: float = 1.0) -> None:
        """Drop packets of one direction or both, each with this chance, until healed."""
        some = () if chance == 1.0 else ("-m", "statistic", "--mode", "random", "--probability", str(chance))
        if from_worker:
            self._add("INPUT", "-i", self._near, *some, "-j", "DROP")
        if to_worker:
            self._add("OUTPUT", "-o", self._near, *some, "-j", "DROP")

    def heal(self) -> int:
        """Take the rules of `drop` away, and count the packets that they dropped."""
        dropped = 0
        for chain in {rule[0] for rule in self._rules}:
            lines = run("iptables", "-w", "-L", chain, "-n", "-v", "-x").splitlines()
            dropped += sum(int(line.split()[0]) for line in lines if self._near in line.split())
        while self._rules:
            run("iptables", "-w", "-D", *self._rules.pop())
        return dropped

    def shape(self, *discipline: str) -> None:
        """Queue the packets of both directions by a discipline of tc, such as "tbf rate 1mbit ..."."""
        run("tc", "qdisc", "replace", "dev", self._near, "root", *discipline)
        run(*self.inside, "tc", "qdisc", "replace", "dev", self._far, "root", *discipline)

    def queued_bytes(self) -> int:
        """Give the bytes that the disciplines have let through, in both directions."""
        near = run("tc", "-s", "qdisc", "show", "dev", self._near)
        far = run(*self.inside, "tc", "-s", "qdisc", "show", "dev", self._far)
        return sum(int(said.split("Sent ")[1].split()[0]) for said in (near, far))

    def _add(self, *rule: str) -> None:
        run("iptables", "-w", "-A", *rule)
        self._rules.append(rule)


@contextlib.contextmanager
def wire() -> Iterator[Wire]:
    made = Wire()
    try:
        made.open()
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def hosts(*names: str) -> Iterator[dict[str, tuple[str, ...]]]:
    """Make hosts in namespaces of their own, on one bridge, that know one another by name.

    Yields:
        by name the command that runs another one on that host.
    """
    own = (os.getpid() * 8 + next(_NUMBERS)) % (1 << 14)
    bridge = f"pace{own}b"
    spaces = {name: f"paceline-{own}-{name}" for name in names}
    addresses = {name: f"10.214.{own >> 6}.{place}" for place, name in enumerate(names, 1)}
    book = "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in addresses.items())
    try:
        run("ip", "link", "add", bridge, "type", "bridge")
        run("ip", "link", "set", bridge, "up")
        for place, (name, space) in enumerate(spaces.items()):
            near, far = f"pace{own}n{place}", f"pace{own}f{place}"
            # What lies there is /etc/hosts for whoever runs in it.
            folder = Path("/etc/netns") / space
            folder.mkdir(parents=True)
            (folder / "hosts").write_text(book)
            run("ip", "netns", "add", space)
            run("ip", "link", "add", near, "type", "veth", "peer", "name", far)
            run("ip", "link", "set", near, "master", bridge, "up")
            run("ip", "link", "set", far, "netns", space)
            inside = ("ip", "netns", "exec", space, "ip")
            run(*inside, "link", "set", "lo", "up")
            run(*inside, "address", "add", f"{addresses[name]}/24", "dev", far)
            run(*inside, "link", "set", far, "up")
        yield {name: ("ip", "netns", "exec", space) for name, space in spaces.items()}
    finally:
        for space in spaces.values():
            subprocess.run(["ip", "netns", "delete", space], capture_output=True, check=False)
            shutil.rmtree(Path("/etc/netns") / space, ignore_errors=True)
        subprocess.run(["ip", "link", "delete", bridge], capture_output=True, check=False)


def has_netem() -> bool:
    """Tell whether the kernel can delay packets."""
    with wire() as probe:
        try:
            probe.shape("netem", "delay", "1ms")
        except RuntimeError:
            return False
    return True
