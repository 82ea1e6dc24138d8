"""A network on one machine: hosts with addresses and firewalls of their own, as network namespaces joined by a bridge.

Needs root, ip (iproute2), tc and nft; bandwidth is tc's tbf, loss nft's numgen. Kernels without netem know no delay: see relay.py.
"""

import ctypes
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from e2e.deployment import COORDINATOR

PORT = 9443
RELAY = "relay"
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

NEIGHBOURS = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept;"  # without these IPv6 finds no host
# a hospital: one outbound port to the coordinator (or the relay before it), and nothing inbound
SITE_RULES = f"""
table inet firewall {{
  chain in {{ type filter hook input priority 0; policy drop; iif lo accept; {NEIGHBOURS} ct state established,related accept; }}
  chain out {{ type filter hook output priority 0; policy drop; oif lo accept; {NEIGHBOURS} ct state established,related accept;
    ip daddr {{ 10.77.0.1, 10.77.0.2 }} tcp dport {PORT} accept; ip6 daddr {{ fd77::1, fd77::2 }} tcp dport {PORT} accept; }}
}}
"""
BOTH_WAYS = """
table inet {name} {{
  chain in {{ type filter hook input priority -5; iif != lo {what}; }}
  chain out {{ type filter hook output priority -5; oif != lo {what}; }}
}}
"""


class Network:
    """The coordinator, a host for a relay, and the sites."""

    def __init__(self, sites: Sequence[str]) -> None:
        self.name = f"csasn{os.getpid()}"
        self.addresses = {COORDINATOR: "10.77.0.1", RELAY: "10.77.0.2"}
        self.addresses |= {site: f"10.77.0.{11 + number}" for number, site in enumerate(sites)}
        self.addresses6 = {host: address.replace("10.77.0.", "fd77::") for host, address in self.addresses.items()}
        self._switch = f"{self.name}-switch"
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "br0", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "br0", "up")
        for number, host in enumerate(self.addresses):
            self._plug_in(host, f"port{number}")
        for site in sites:
            self.rule(site, SITE_RULES)

    def inside(self, host: str) -> list[str]:
        """The words that go before a command which is to run on `host`."""
        return ["ip", "netns", "exec", self._namespace(host)]

    @contextmanager
    def on(self, host: str) -> Iterator[None]:
        """This thread's new sockets are `host`'s."""
        with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{self._namespace(host)}").open() as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def connect(self, source: str, target: str, port: int = PORT, timeout_s: float = 3.0) -> socket.socket:
        """A connection from one host to another; an OSError where there is no way."""
        with self.on(source):
            return socket.create_connection((self.addresses[target], port), timeout_s)

    def listen(self, host: str, port: int = PORT) -> socket.socket:
        """A listening socket on `host`."""
        with self.on(host):
            return socket.create_server((self.addresses[host], port))

    def rule(self, host: str, rules: str) -> None:
        """Adds nft rules on `host`."""
        subprocess.run([*self.inside(host), "nft", "-f", "-"], input=rules, text=True, check=True, timeout=20)

    def cut(self, host: str) -> None:
        """Nothing passes between `host` and the others; connections stay open, as with a line that is cut."""
        self.rule(host, BOTH_WAYS.format(name="cut", what="drop"))

    def mend(self, host: str) -> None:
        """Takes `cut` back."""
        subprocess.run([*self.inside(host), "nft", "delete", "table", "inet", "cut"], check=True, timeout=20)

    def block(self, host: str, target: str) -> None:
        """`host` may not reach `target`, so that it has to take another way."""
        addresses = f"ip daddr {self.addresses[target]} drop; ip6 daddr {self.addresses6[target]} drop;"
        self.rule(host, f"table inet block {{ chain out {{ type filter hook output priority -6; {addresses} }}\n}}")

    def forget(self, host: str) -> None:
        """A firewall that knows connections from their first packet loses its table: what is open is dropped, on both ways, and
        nobody is told."""
        _run(*self.inside(host), "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_loose=0")
        self.rule(host, BOTH_WAYS.format(name="stateful", what="ct state invalid counter drop"))
        _run(*self.inside(host), "conntrack", "-F")

    def num_dropped(self, host: str) -> int:
        """Packets of connections that were forgotten."""
        said = _run(*self.inside(host), "nft", "list", "table", "inet", "stateful")
        return sum(map(int, re.findall(r"counter packets (\d+)", said)))

    def lose(self, host: str, percent: int) -> None:
        """Of the packets to and from `host`, so many are lost."""
        self.rule(host, BOTH_WAYS.format(name="loss", what=f"numgen random mod 100 < {percent} drop"))

    def slow(self, host: str, mbit: float) -> None:
        """Limits the line of `host`, either way."""
        number = list(self.addresses).index(host)
        for namespace, device in ((self._namespace(host), "eth0"), (self._switch, f"port{number}")):
            tbf = ["tbf", "rate", f"{int(mbit * 1000)}kbit", "burst", "32kb", "latency", "300ms"]
            _run("tc", "-n", namespace, "qdisc", "replace", "dev", device, "root", *tbf)

    def reset(self, host: str) -> None:
        """Takes back all that was done to the line of `host`."""
        number = list(self.addresses).index(host)
        for words in (
            *([*self.inside(host), "nft", "delete", "table", "inet", name] for name in ("cut", "loss", "block", "stateful")),
            ["tc", "-n", self._namespace(host), "qdisc", "del", "dev", "eth0", "root"],
            ["tc", "-n", self._switch, "qdisc", "del", "dev", f"port{number}", "root"],
        ):
            subprocess.run(words, check=False, stderr=subprocess.DEVNULL, timeout=20)

    def listeners(self, host: str) -> list[str]:
        """Addresses and ports that something on `host` listens at."""
        said = _run(*self.inside(host), "ss", "-ltnH")
        return [line.split()[3] for line in said.splitlines()]

    def close(self) -> None:
        """Takes all hosts away."""
        for host in [*self.addresses, "switch"]:
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", self._namespace(host))

    def _plug_in(self, host: str, port: str) -> None:
        namespace = self._namespace(host)
        _ip("netns", "add", namespace)
        _ip("link", "add", "eth0", "netns", namespace, "type", "veth", "peer", "name", port, "netns", self._switch)
        _ip("-n", self._switch, "link", "set", port, "master", "br0", "up")
        _ip("-n", namespace, "addr", "add", f"{self.addresses[host]}/24", "dev", "eth0")
        _ip("-n", namespace, "addr", "add", f"{self.addresses6[host]}/64", "dev", "eth0", "nodad")
        for device in ("lo", "eth0"):
            _ip("-n", namespace, "link", "set", device, "up")

    def _namespace(self, host: str) -> str:
        return f"{self.name}-{host}"


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, timeout=20).stdout
